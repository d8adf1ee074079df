//! Why the operator waits, in a closed list, and the words a person reads in a condition.

use crds::{MemberId, Reason};
use jiff::Timestamp;

use super::action::{list, short};
use crate::observe::{ClientSecret, Filled};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    Paused,
    /// Objects of an earlier cluster of this name are still being removed.
    EarlierObjects {
        names: Vec<String>,
    },
    VolumesOfSeveralClusters {
        ids: Vec<String>,
    },
    /// Status was lost and the pods that run know no leader.
    LostStatusWithoutLeader,
    /// Volumes that were not yet inspected.
    Inspection {
        members: Vec<MemberId>,
    },
    AdoptionQuorum {
        present: usize,
        needed: usize,
        voters: Vec<MemberId>,
    },
    /// Inspected volumes hold no configuration, and not every volume of a first set is there.
    NothingToAdopt,
    PodsGone {
        members: Vec<MemberId>,
    },
    PodsStarting {
        members: Vec<MemberId>,
        trouble: Option<String>,
    },
    Unschedulable {
        members: Vec<MemberId>,
        trouble: String,
    },
    FailedPodPause {
        member: MemberId,
    },
    Reports {
        members: Vec<MemberId>,
    },
    VolumeLost {
        member: MemberId,
    },
    Damaged {
        member: MemberId,
        what: String,
    },
    /// A volume that is labelled retired while its member has its seat.
    VolumeRetired {
        member: MemberId,
    },
    /// The Secret that the spec names for the client port.
    ClientSecret {
        name: String,
        state: ClientSecret,
    },
    Leader,
    Initialized,
    CatchUp {
        members: Vec<MemberId>,
    },
    HandOver {
        from: MemberId,
        to: MemberId,
    },
    NoSuccessor {
        leader: MemberId,
    },
    /// A member that took the changed spec is not yet what it was.
    Rejoin {
        member: MemberId,
    },
    /// Containers of the user's beside a member that took the changed spec.
    App {
        member: MemberId,
        trouble: String,
        until: Timestamp,
    },
    /// Nobody goes down while one of these is not well.
    TurnBlocked {
        next: MemberId,
        by: Vec<MemberId>,
    },
    /// Members whose turn in a rollout is still to come.
    Turns {
        members: Vec<MemberId>,
    },
    /// Taking the victims out would leave too few voters that are alive.
    QuorumForRemoval {
        alive: usize,
        needed: usize,
    },
    VotersDown {
        members: Vec<MemberId>,
    },
    /// A voter is lost, and it is not yet time to replace it.
    ReplacementPause {
        member: MemberId,
        at: Timestamp,
    },
    /// As many replacements as the spec allows began within the last hour.
    ReplacementLimit {
        member: MemberId,
        max: i32,
        at: Timestamp,
    },
    /// The only voter is lost.
    NothingToReplaceFrom {
        member: MemberId,
    },
    /// A majority is lost; only the user can decide to go on.
    Acknowledgement {
        source: MemberId,
        nonce: String,
        /// What the spec carries instead.
        void: Option<String>,
    },
    /// Pods of the lost incarnation whose end nobody confirms.
    Unconfirmed {
        members: Vec<MemberId>,
        source: MemberId,
    },
    Rewrite {
        from: MemberId,
    },
    /// The TaskStoreRestore that the spec names has nothing to say.
    RestoreOrder {
        name: String,
        has_ended: bool,
    },
    Restore {
        member: MemberId,
        filled: Option<Filled>,
    },
    /// It is to be fenced, and no other voter could lead.
    Successor {
        member: MemberId,
    },
    /// Larger volumes were asked for.
    VolumesGrowing {
        members: Vec<MemberId>,
    },
    /// The API server does not let them grow.
    GrowthRefused {
        members: Vec<MemberId>,
        words: String,
    },
    Budget,
    Evictions,
    JointConfiguration,
}

impl Waiting {
    /// Takes up another wait of the same kind, so that people read one sentence. False: it is another kind.
    pub fn absorb(&mut self, other: &Self) -> bool {
        match (&mut *self, other) {
            (
                Self::PodsStarting { members, trouble },
                Self::PodsStarting {
                    members: more,
                    trouble: theirs,
                },
            ) if trouble == theirs => {
                members.extend(more);
            }
            (
                Self::GrowthRefused { members, words },
                Self::GrowthRefused {
                    members: more,
                    words: theirs,
                },
            ) if words == theirs => members.extend(more),
            (Self::VolumesGrowing { members }, Self::VolumesGrowing { members: more }) => {
                members.extend(more);
            }
            (Self::PodsGone { members }, Self::PodsGone { members: more }) => members.extend(more),
            (known, other) => return known == other,
        }
        true
    }

    pub fn reason(&self) -> Reason {
        match self {
            Self::Paused => Reason::PausedBySpec,
            Self::EarlierObjects { .. } | Self::PodsGone { .. } => Reason::WaitingForPodDeletion,
            Self::VolumesOfSeveralClusters { .. }
            | Self::LostStatusWithoutLeader
            | Self::AdoptionQuorum { .. }
            | Self::NothingToAdopt => Reason::AdoptionBlocked,
            Self::Inspection { .. } | Self::Reports { .. } => Reason::WaitingForMembers,
            Self::PodsStarting { .. } | Self::FailedPodPause { .. } => Reason::WaitingForPods,
            Self::Unschedulable { .. } => Reason::WaitingForPods,
            Self::VolumeLost { .. } => Reason::VolumeLost,
            Self::Damaged { .. } => Reason::MemberDamaged,
            Self::VolumeRetired { .. } => Reason::VolumeRetired,
            Self::ClientSecret { .. } => Reason::WaitingForCertificates,
            Self::Leader | Self::Initialized => Reason::WaitingForLeader,
            Self::CatchUp { .. } | Self::Rejoin { .. } => Reason::WaitingForCatchUp,
            Self::App { .. } => Reason::WaitingForPods,
            Self::TurnBlocked { .. } => Reason::WaitingForMembers,
            Self::Turns { .. } => Reason::RollingOut,
            Self::JointConfiguration => Reason::WaitingForMembership,
            Self::HandOver { .. } | Self::NoSuccessor { .. } => Reason::WaitingForHandOver,
            Self::QuorumForRemoval { .. } => Reason::WaitingForQuorum,
            Self::VotersDown { .. } => Reason::WaitingForMembers,
            Self::ReplacementPause { .. } => Reason::WaitingForReplacement,
            Self::ReplacementLimit { .. } => Reason::ReplacementLimit,
            Self::NothingToReplaceFrom { .. } => Reason::NothingToReplaceFrom,
            Self::Acknowledgement { .. } => Reason::WaitingForAcknowledgement,
            Self::Unconfirmed { .. } => Reason::WaitingForPodDeletion,
            Self::Rewrite { .. } => Reason::Recovering,
            Self::RestoreOrder { .. } => Reason::WaitingForRestore,
            Self::Restore {
                filled: Some(Filled::Refused(_)),
                ..
            } => Reason::RestoreRefused,
            Self::Restore { .. } => Reason::Restoring,
            Self::Successor { .. } => Reason::WaitingForSuccessor,
            Self::VolumesGrowing { .. } => Reason::WaitingForVolumes,
            Self::GrowthRefused { .. } => Reason::VolumeGrowthRefused,
            Self::Budget => Reason::WaitingForBudget,
            Self::Evictions => Reason::WaitingForEvictions,
        }
    }

    pub fn words(&self) -> String {
        match self {
            Self::Paused => "spec.paused is set; nothing is changed until it is taken back".into(),
            Self::EarlierObjects { names } => format!(
                "objects of an earlier cluster of this name are still being removed: {}",
                names.join(", ")
            ),
            Self::VolumesOfSeveralClusters { ids } => format!(
                "volumes of several clusters carry this name ({}); label those that are not wanted with \
                 taskstore.dev/retired=true or delete them",
                ids.join(", ")
            ),
            Self::LostStatusWithoutLeader => {
                "status was lost, and no member that runs on the existing volumes leads; waiting for a leader \
                 to say who belongs to this cluster; when none can come, deleting the pods lets the volumes be \
                 read instead".into()
            }
            Self::Inspection { members } => format!(
                "existing volumes are being read: {}; a volume that is lost for good is left out once it is \
                 deleted or labelled taskstore.dev/retired=true",
                list(members)
            ),
            Self::AdoptionQuorum { present, needed, voters } => format!(
                "only {present} undamaged volumes of the last configuration ({}) are present, {needed} are needed",
                list(voters)
            ),
            Self::NothingToAdopt => {
                "existing volumes were formatted but hold no configuration, and not all of a first set are \
                 present; delete them to start anew".into()
            }
            Self::PodsGone { members } => format!("waiting for earlier pods to be gone: {}", list(members)),
            Self::PodsStarting { members, trouble: None } => {
                format!("waiting for pods to start: {}", list(members))
            }
            Self::PodsStarting { members, trouble: Some(trouble) } => {
                format!("waiting for pods to start: {}: {trouble}", list(members))
            }
            Self::Unschedulable { members, trouble } => {
                format!("pods cannot be scheduled: {}: {trouble}", list(members))
            }
            Self::FailedPodPause { member } => {
                format!("the pod of {} ended right after its start; it is made again in a moment", short(*member))
            }
            Self::Reports { members } => format!("waiting for members to report: {}", list(members)),
            Self::VolumeLost { member } => format!(
                "the volume of {} is gone, empty or another one; an id never gets a second volume",
                short(*member)
            ),
            Self::Damaged { member, what } => format!("{} refuses its disk: {what}", short(*member)),
            Self::VolumeRetired { member } => format!(
                "the volume of {} is labelled taskstore.dev/retired while {0} belongs to the store; its pod is \
                 not made again until the label is taken off",
                short(*member)
            ),
            Self::ClientSecret { name, state } => match state {
                ClientSecret::Missing => {
                    format!("the Secret {name} that spec.tls names is not there; no member can start without it")
                }
                ClientSecret::Invalid(what) => format!("the Secret {name} that spec.tls names is of no use: {what}"),
                ClientSecret::Good => format!("the Secret {name} is good"),
            },
            Self::Leader => "waiting for a leader".into(),
            Self::Initialized => "initialize was called; waiting for the first leader".into(),
            Self::CatchUp { members } => format!("waiting for new members to catch up: {}", list(members)),
            Self::HandOver { from, to } => {
                format!("{} leads and is about to go; handing over to {}", short(*from), short(*to))
            }
            Self::NoSuccessor { leader } => format!(
                "{} leads and is about to go, and no remaining member is caught up to take over",
                short(*leader)
            ),
            Self::Rejoin { member } => format!(
                "waiting for {} to be Ready and caught up with the changed spec",
                short(*member)
            ),
            Self::App { member, trouble, until } => format!(
                "waiting for the containers beside {} to be Ready with the changed spec, at most until {}: {trouble}",
                short(*member),
                clock(*until)
            ),
            Self::TurnBlocked { next, by } => format!(
                "{} takes the changed spec once all other voters are alive, caught up and Ready; waiting for {}",
                short(*next),
                list(by)
            ),
            Self::Turns { members } => format!(
                "members that take the changed spec after that, one at a time: {}",
                list(members)
            ),
            Self::QuorumForRemoval { alive, needed } => format!(
                "only {alive} of the members that would remain are alive, {needed} are needed"
            ),
            Self::VotersDown { members } => format!(
                "voters are down or not Ready: {}; evictions wait until they are back",
                list(members)
            ),
            Self::ReplacementPause { member, at } => {
                format!("{} is replaced at {}, unless it is well again before", short(*member), clock(*at))
            }
            Self::ReplacementLimit { member, max, at } => format!(
                "{} is to be replaced, and as many replacements as spec.replacement.maxPerHour allows ({max}) began \
                 within the last hour; it is replaced at {}, unless it is well again before",
                short(*member),
                clock(*at)
            ),
            Self::NothingToReplaceFrom { member } => format!(
                "{} is the only voter: there is no other to replace it from",
                short(*member)
            ),
            Self::Acknowledgement { source, nonce, void } => {
                let given = void.as_ref().map_or(String::new(), |void| {
                    format!("; what it carries now ({void}) is about another situation")
                });
                format!(
                    "a majority of voters is lost; nothing is done about it unless spec.recovery.acknowledge is set \
                     to {nonce}: then the store goes on from {} alone, without what status.recovery.lossBound \
                     says{given}",
                    short(*source)
                )
            }
            Self::Unconfirmed { members, source } if members.contains(source) => format!(
                "the store is to go on from {}, whose own pod is not gone; take back spec.recovery.acknowledge to \
                 choose anew",
                short(*source)
            ),
            Self::Unconfirmed { members, .. } => format!(
                "nobody confirms that the pods of {} are gone: delete their nodes, or list {} in \
                 spec.recovery.acceptUnconfirmed; they may still serve whoever reaches them",
                list(members),
                members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ),
            Self::Successor { member } => format!(
                "{} is fenced once another voter is alive and caught up that spec.fenced does not name",
                short(*member)
            ),
            Self::VolumesGrowing { members } => {
                format!("waiting for the volumes of {} to grow", list(members))
            }
            Self::GrowthRefused { members, words } => format!(
                "the volumes of {} stay as large as they are: {words}; let the storage class expand volumes, or \
                 delete the claim and the pod of one member after the other: its successor gets a volume of the new \
                 size",
                list(members)
            ),
            Self::RestoreOrder { name, has_ended: false } => format!(
                "the cluster begins with what the TaskStoreRestore {name} has ordered; waiting for it"
            ),
            Self::RestoreOrder { name, has_ended: true } => format!(
                "the TaskStoreRestore {name} has failed or was for another cluster; delete this one and order another \
                 restore"
            ),
            Self::Restore { member, filled } => {
                let member = short(*member);
                match filled {
                    Some(Filled::Reading { percent }) => {
                        format!("{member} reads the bucket into its volume, {percent} % so far")
                    }
                    Some(Filled::Failing(words)) => {
                        format!("{member} tries again to read the bucket: {words}")
                    }
                    Some(Filled::Refused(words)) => format!("nothing was restored: {words}"),
                    Some(Filled::Done(_)) | None => format!("{member} fills its volume from the bucket"),
                }
            }
            Self::Rewrite { from } => format!("the volume of {} is being rewritten", short(*from)),
            Self::Budget => "waiting for the status of the disruption budget to show the pods as they are now".into(),
            Self::Evictions => "waiting for evictions that were granted before the budget closed".into(),
            Self::JointConfiguration => "a half-done configuration change is being finished".into(),
        }
    }
}

/// To the second, in UTC: what moves more often would be written more often.
pub fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
