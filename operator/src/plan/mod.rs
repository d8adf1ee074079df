//! What to do next, decided by a pure function: `plan(cluster, observed, now) -> Plan`.
//!
//! ```text
//!  identity ─▶ objects ─▶ adoption │ budget ─▶ healing ─▶ bootstrap ─▶ membership ─▶ rollout ─▶ retirement ─▶ growth, fence ─▶ backups
//!  who we are  made once   inspect │ computed   volumes,   initialize   scale out     one at     removed       larger          orders to
//!                                  │ from Raft  pods       once         and in,       a time     members go    volumes         members
//!                      hibernation │                                    replace
//!                      all asleep  │
//!                      recovery    │
//!                      one is left │
//!                      restore     │
//!                      one begins  │
//! ```
//!
//! Invariants: O1 pure and total. O2 what must be remembered is in `progress`, and the caller writes it to
//! status before it does any of `actions`. O3 one operation at a time. O4 unknown is not dead: a member
//! counts as down only when a leader with a quorum says so. O6 every wait has a named reason. O8 the wanted
//! size comes from the spec alone. O9 nothing sleeps: `wake_at` says when time alone changes the answer.

pub mod action;
mod adoption;
pub mod backups;
mod bootstrap;
mod budget;
pub mod explain;
mod fence;
mod growth;
mod healing;
mod hibernation;
mod identity;
mod joining;
pub mod loss;
mod membership;
mod objects;
mod recovery;
mod replacement;
mod restore;
mod retirement;
mod rollout;
mod roster;
mod safety;
mod survivors;
mod wanted;

use crds::status::{Identity, Membership, Operation, OperationKind, RecoveryOffer, Restored, Step};
use crds::{MemberId, TaskStoreCluster, TaskStoreClusterStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use action::Action;
pub use explain::Waiting;
pub use hibernation::is_asleep;
pub use loss::Loss;
pub use roster::{Seat, roster};
pub use wanted::{Due, Wanted, outdated};

use crate::observe::{Leader, Observed, Volume};

/// When an operation starts to be called overdue. Nothing is given up then.
const OPERATION_OVERDUE_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// What status must say before anything is done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    pub identity: Option<Identity>,
    pub operation: Option<Operation>,
    pub membership: Option<Membership>,
    /// When replacements began, oldest first.
    pub replacements: Vec<Time>,
    pub recovery: Option<RecoveryOffer>,
    pub backup: backups::Progress,
    /// What the cluster began with.
    pub restored: Option<Restored>,
}

impl Progress {
    pub fn recorded(cluster: &TaskStoreCluster) -> Self {
        let status = cluster.status.clone().unwrap_or_default();
        Self {
            identity: status.identity,
            operation: status.operation,
            membership: status.membership,
            replacements: status.replacements,
            recovery: status.recovery,
            backup: status
                .backup
                .map_or_else(Default::default, |known| backups::Progress {
                    accepted: known.accepted,
                    scheduled_up_to: known.scheduled_up_to.map(|at| at.0),
                    shipper: known.shipper,
                    drill: known.last_drill,
                    verified: known.last_verified.map(|at| at.0),
                }),
            restored: status.restored,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub progress: Progress,
    pub actions: Vec<Action>,
    pub waiting: Vec<Waiting>,
    pub wake_at: Option<Timestamp>,
    /// Absent while nothing was found out about backups, and without any.
    pub backup_ready: Option<backups::Readiness>,
}

impl Plan {
    /// Whether status must be written before any action.
    pub fn must_record(&self, cluster: &TaskStoreCluster) -> bool {
        self.progress != Progress::recorded(cluster)
    }
}

pub fn plan(cluster: &TaskStoreCluster, observed: &Observed, now: Timestamp) -> Plan {
    let mut draft = Draft::new(cluster, observed, now);
    if cluster.metadata.deletion_timestamp.is_some() {
        // Garbage collection removes what we own; making anything now would only be removed again.
        return draft.plan;
    }
    if cluster.spec.paused {
        draft.wait(Waiting::Paused);
        return draft.plan;
    }
    match identity::settle(&mut draft) {
        identity::Known::Nothing => {}
        identity::Known::Inspecting {
            cluster_id,
            members,
        } => {
            objects::plan(&mut draft, &cluster_id);
            adoption::plan(&mut draft, &cluster_id, &members);
        }
        identity::Known::Asking { cluster_id } => objects::plan(&mut draft, &cluster_id),
        identity::Known::Recorded(identity) => {
            draft.note_membership();
            objects::plan(&mut draft, &identity.cluster_id);
            if hibernation::is_asleep(cluster, &draft.plan.progress) {
                hibernation::plan(&mut draft);
                return draft.plan;
            }
            if restore::plan(&mut draft, &identity) || recovery::plan(&mut draft, &identity) {
                draft.wake_when_overdue();
                return draft.plan;
            }
            membership::plan(&mut draft, &identity);
            rollout::plan(&mut draft, &identity);
            // First of all effects: it must be closed before anything else is disturbed.
            budget::plan(&mut draft, &identity);
            healing::plan(&mut draft, &identity);
            bootstrap::plan(&mut draft, &identity);
            membership::change(&mut draft, &identity);
            rollout::change(&mut draft, &identity);
            retirement::plan(&mut draft, &identity);
            growth::plan(&mut draft, &identity);
            fence::plan(&mut draft, &identity);
            // Last of all: nothing of the store's waits for a bucket.
            backups::plan(&mut draft, &identity);
        }
    }
    draft.wake_when_overdue();
    draft.plan
}

/// A plan in the making, with what every phase reads.
struct Draft<'a> {
    cluster: &'a TaskStoreCluster,
    observed: &'a Observed,
    now: Timestamp,
    recorded: TaskStoreClusterStatus,
    leader: Option<Leader<'a>>,
    wanted: Wanted<'a>,
    plan: Plan,
}

impl<'a> Draft<'a> {
    fn new(cluster: &'a TaskStoreCluster, observed: &'a Observed, now: Timestamp) -> Self {
        let recorded = cluster.status.clone().unwrap_or_default();
        let leader = observed.leader(recorded.identity.as_ref(), recorded.membership.as_ref());
        Self {
            cluster,
            observed,
            now,
            leader,
            wanted: Wanted::of(cluster, observed),
            plan: Plan {
                progress: Progress::recorded(cluster),
                ..Plan::default()
            },
            recorded,
        }
    }

    fn act(&mut self, action: Action) {
        self.plan.actions.push(action);
    }

    fn wait(&mut self, waiting: Waiting) {
        let merged = self
            .plan
            .waiting
            .iter_mut()
            .any(|known| known.absorb(&waiting));
        if !merged {
            self.plan.waiting.push(waiting);
        }
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.plan.wake_at = Some(self.plan.wake_at.map_or(at, |known| known.min(at)));
    }

    /// Time alone makes an operation overdue.
    fn wake_when_overdue(&mut self) {
        let deadline = self
            .operation()
            .and_then(|operation| operation.deadline.as_ref())
            .map(|deadline| deadline.0)
            .filter(|deadline| *deadline > self.now);
        if let Some(deadline) = deadline {
            self.wake_at(deadline);
        }
    }

    /// The committed configuration as the leader reports it becomes the recorded one.
    fn note_membership(&mut self) {
        if let Some(leader) = self.leader {
            self.plan.progress.membership = Some(leader.raft.membership.to_status());
        }
    }

    fn replicas(&self) -> usize {
        usize::try_from(self.cluster.spec.replicas).unwrap_or(1)
    }

    fn operation(&self) -> Option<&Operation> {
        self.plan.progress.operation.as_ref()
    }

    fn is_step(&self, step: Step) -> bool {
        self.operation()
            .is_some_and(|operation| operation.step == step)
    }

    /// UID of the one volume that a member has for life, once it was seen.
    fn recorded_volume(&self, member: MemberId) -> Option<&str> {
        self.recorded
            .members
            .iter()
            .find(|known| known.id == member)
            .and_then(|known| known.pvc_uid.as_deref())
    }

    /// Of the next incarnation: above this one, and above every incarnation and every number that is seen anywhere.
    fn next_member(&self, incarnation: u16) -> MemberId {
        let volumes = self.observed.volumes.values().map(|volume| volume.member);
        let recorded = self.recorded.members.iter().map(|known| known.id);
        let config = self.plan.progress.membership.iter();
        let config = config.flat_map(|known| known.voters.iter().chain(&known.learners).copied());
        let seen: Vec<MemberId> = volumes.chain(recorded).chain(config).collect();
        let incarnations = seen.iter().map(|member| member.incarnation());
        let incarnation = incarnations.fold(incarnation, u16::max);
        let number = seen.iter().map(|member| member.number()).max().unwrap_or(0);
        MemberId::new(incarnation.saturating_add(1), number.saturating_add(1))
    }

    /// Why a member of the configuration cannot do its work.
    fn loss(&self, leader: &Leader<'_>, member: MemberId) -> Option<Loss> {
        loss::of(self.observed, leader, member, self.recorded_volume(member))
    }

    /// Not another one of the same name.
    fn is_the_one(&self, volume: &Volume) -> bool {
        self.recorded_volume(volume.member)
            .is_none_or(|uid| uid == volume.uid)
    }

    fn is_operation(&self, kind: OperationKind) -> bool {
        self.operation()
            .is_some_and(|operation| operation.kind == kind)
    }

    fn begin(&mut self, id: String, kind: OperationKind, step: Step, members: Vec<MemberId>) {
        self.plan.progress.operation = Some(Operation {
            id,
            kind,
            step,
            members,
            replaces: None,
            started_at: Time(self.now),
            deadline: self.now.checked_add(OPERATION_OVERDUE_AFTER).ok().map(Time),
        });
    }

    fn step(&mut self, step: Step) {
        if let Some(operation) = self.plan.progress.operation.as_mut() {
            operation.step = step;
        }
    }

    fn finish(&mut self) {
        self.plan.progress.operation = None;
    }
}
