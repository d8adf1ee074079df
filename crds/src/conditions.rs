//! Condition types and reasons. Every wait of the operator is one of the reasons, with human words in
//! the message; no condition string is spelled elsewhere.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Longest message, in characters: the CRD refuses a longer one, so [`set`] cuts it.
pub const MESSAGE_CHARS_MAX: usize = 4096;

/// A closed list of words and how each is spelled in the API.
macro_rules! words {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident,)* }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$inner])* $variant,)* }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }

            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.as_str() == word)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What a condition is about. `True` is good for all but Progressing, Degraded and Paused.
    ConditionType {
        /// The store serves reads and writes.
        Ready,
        /// A quorum of voters is alive and has a leader.
        Quorate,
        /// The operator is changing something, or waits to.
        Progressing,
        /// Less redundancy than asked for, or something a person should look at.
        Degraded,
        /// The committed configuration is uniform and no change of it runs.
        MembershipStable,
        /// Every certificate is there and loaded.
        TLSReady,
        /// `spec.paused` is set.
        Paused,
        /// Backups can be made, and the log is shipped where the spec asks for it. Only with `spec.backup`.
        BackupReady,
        /// A drill has restored what lies in the bucket, not too long ago.
        BackupVerified,
    }
}

words! {
    /// Why a condition is what it is. New reasons are appended; none is ever renamed.
    Reason {
        // Ready.
        /// Reads and writes are served.
        Serving,
        /// The store was never initialized.
        NotInitialized,
        /// Members are alive, none of them leads yet.
        NoLeader,
        /// A leader is there, but too few pods are Ready for the Service.
        MembersNotReady,
        /// The spec breaks a rule; nothing is done until it is put right.
        InvalidSpec,
        /// The object is being deleted.
        Deleting,
        /// `spec.hibernated` is set: no member runs, every volume is kept.
        Hibernated,

        // Quorate.
        /// A quorum of voters answers.
        QuorumAlive,
        /// Fewer voters than a quorum answer.
        QuorumLost,
        /// Nobody could be asked; unknown is never treated as dead.
        NotObserved,

        // Progressing, while it moves.
        /// Nothing to do.
        Settled,
        /// Making the first members and initializing the store.
        Bootstrapping,
        /// Taking up the volumes that are already there.
        Adopting,
        /// Adding members.
        ScalingOut,
        /// Removing members.
        ScalingIn,
        /// Giving the place of a lost member to a new one.
        Replacing,
        /// Taking the members' pods away, because `spec.hibernated` is set.
        Hibernating,
        /// Bringing a changed image or pod setting to running members, one at a time.
        RollingOut,
        /// Going on from a survivor of a lost majority, as the user has acknowledged.
        Recovering,
        /// Filling the first volume with what a bucket holds.
        Restoring,
        /// Making an object again that was lost or drifted.
        Healing,

        // Progressing, while it waits.
        /// For pods to be scheduled and started.
        WaitingForPods,
        /// For a pod to be gone.
        WaitingForPodDeletion,
        /// For members to report their disks.
        WaitingForMembers,
        /// For a leader.
        WaitingForLeader,
        /// For a quorum.
        WaitingForQuorum,
        /// For new members to catch up.
        WaitingForCatchUp,
        /// For a configuration change to commit.
        WaitingForMembership,
        /// For a voter that could lead, before the only one that can is fenced.
        WaitingForSuccessor,
        /// For leadership to move to another member.
        WaitingForHandOver,
        /// For the disruption budget's status to show the pods as they are.
        WaitingForBudget,
        /// For evictions that were granted before the budget closed.
        WaitingForEvictions,
        /// For certificates or for the Secret that the spec names.
        WaitingForCertificates,
        /// For the API server to accept a write (quota, rights, a terminating namespace).
        WaitingForApiServer,
        /// For a lost member to come back, before it is replaced.
        WaitingForReplacement,
        /// For the hour to be over in which as many members were replaced as the spec allows.
        ReplacementLimit,
        /// The only voter is lost: no other is left to make a new one from.
        NothingToReplaceFrom,
        /// A majority is lost; the user may acknowledge the nonce of `status.recovery`.
        WaitingForAcknowledgement,
        /// For the TaskStoreRestore that the spec names.
        WaitingForRestore,
        /// The bucket does not hold what was asked for, or it is damaged.
        RestoreRefused,
        /// For volumes to grow to their new size.
        WaitingForVolumes,
        /// An operation has passed its deadline; it is still being tried.
        OperationOverdue,
        /// Too few undamaged volumes of the last configuration are there to go on safely.
        AdoptionBlocked,
        /// An object of a name we need belongs to someone else.
        NameTaken,

        // Degraded.
        /// All voters are alive and caught up.
        AllMembersHealthy,
        /// One replica: no failure is survived and no disruption budget protects it.
        SingleReplica,
        /// A voter does not answer.
        MemberDown,
        /// A voter answers no client and does not lead, because `spec.fenced` names it.
        MemberFenced,
        /// A voter is behind.
        MemberLagging,
        /// A member refuses its own disk.
        MemberDamaged,
        /// A volume is gone or is not the one the member was bound to.
        VolumeLost,
        /// A volume cannot grow to the size that the spec asks for.
        VolumeGrowthRefused,
        /// A volume is labelled retired while its member still belongs to the store.
        VolumeRetired,
        /// A member's pod cannot be scheduled, often because its local volume's node is drained.
        MemberUnschedulable,
        /// Two voters run on one node.
        VotersShareNode,
        /// A drain would take one more voter; its eviction waits until the others are back.
        DrainWaiting,
        /// A voter's disk is nearly full; creates are refused.
        DiskHighWater,

        // MembershipStable.
        /// One uniform configuration of the wanted size.
        Uniform,
        /// A change of the configuration runs.
        Changing,
        /// Two configurations are in force until a change is finished.
        Joint,

        // TLSReady.
        /// All certificates are issued and loaded.
        CertificatesLoaded,
        /// Certificates are being issued or loaded.
        CertificatesPending,
        /// The Secret that `spec.tls` names is not there.
        SecretMissing,
        /// The Secret that `spec.tls` names does not hold a usable certificate and key.
        SecretInvalid,

        // Paused; also the reason of a Progressing that stands still for it.
        /// `spec.paused` is set.
        PausedBySpec,
        /// `spec.paused` is not set.
        NotPaused,

        // BackupReady.
        /// The destination was found good, and the log is shipped if it is to be.
        DestinationAccepted,
        /// No member has looked at the destination yet.
        DestinationUnchecked,
        /// Members lack a right at the destination, or it cannot be one.
        DestinationRefused,
        /// Nobody knows: the destination does not answer.
        DestinationUnavailable,
        /// The log is to be shipped, and is not.
        LogNotShipped,

        // BackupVerified.
        /// The last drill restored what lies in the bucket.
        DrillPassed,
        /// The last drill could not restore it.
        DrillFailed,
        /// No drill has come to an end yet.
        NotDrilled,
        /// The last drill that passed is older than twice the time between drills.
        DrillOverdue,
    }
}

/// The three values of a condition. `Unknown` is said when it is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    True,
    False,
    Unknown,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for State {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// Puts a condition in its place. The transition time moves only when the state flips, so an
/// unchanged world gives an unchanged status.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: ConditionType,
    state: State,
    reason: Reason,
    message: impl Into<String>,
    generation: Option<i64>,
    now: &Time,
) {
    let message = shortened(message.into());
    let mut wanted = Condition {
        type_: kind.as_str().into(),
        status: state.as_str().into(),
        reason: reason.as_str().into(),
        message,
        observed_generation: generation,
        last_transition_time: now.clone(),
    };
    match conditions
        .iter_mut()
        .find(|known| known.type_ == wanted.type_)
    {
        Some(known) => {
            if known.status == wanted.status {
                wanted.last_transition_time = known.last_transition_time.clone();
            }
            *known = wanted;
        }
        None => conditions.push(wanted),
    }
}

/// As long as a message may be, of a condition or of a status.
pub fn shortened(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(MESSAGE_CHARS_MAX) {
        message.truncate(end);
    }
    message
}

/// The condition of a type, if it was ever set.
pub fn get(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|known| known.type_ == kind.as_str())
}

/// Whether a condition is there and `True`.
pub fn is_true(conditions: &[Condition], kind: ConditionType) -> bool {
    get(conditions, kind).is_some_and(|known| known.status == State::True.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn the_transition_time_moves_only_when_the_state_flips() {
        let mut conditions = Vec::new();
        set(
            &mut conditions,
            ConditionType::Ready,
            State::False,
            Reason::NoLeader,
            "a",
            Some(1),
            &at(1),
        );
        set(
            &mut conditions,
            ConditionType::Ready,
            State::False,
            Reason::MembersNotReady,
            "b",
            Some(2),
            &at(2),
        );
        let known = get(&conditions, ConditionType::Ready).unwrap().clone();
        assert_eq!(
            (known.last_transition_time, known.message.as_str()),
            (at(1), "b")
        );
        set(
            &mut conditions,
            ConditionType::Ready,
            State::True,
            Reason::Serving,
            "c",
            Some(2),
            &at(3),
        );
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0].last_transition_time, at(3));
        assert!(is_true(&conditions, ConditionType::Ready));
    }

    #[test]
    fn a_message_is_cut_where_the_crd_would_refuse_it() {
        let mut conditions = Vec::new();
        let long = "ü".repeat(MESSAGE_CHARS_MAX + 10);
        set(
            &mut conditions,
            ConditionType::Degraded,
            State::True,
            Reason::MemberDown,
            long,
            None,
            &at(1),
        );
        assert_eq!(conditions[0].message.chars().count(), MESSAGE_CHARS_MAX);
    }

    #[test]
    fn every_word_is_read_back_and_fits_the_api() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
            assert!(reason.as_str().chars().all(|c| c.is_ascii_alphanumeric()));
        }
        for kind in ConditionType::ALL {
            assert_eq!(ConditionType::parse(kind.as_str()), Some(*kind));
        }
    }
}
