//! Backups: the destination is looked at, one backup at a time is written, the schedule asks for more, what need
//! not be kept goes, and one member ships the log behind them.
//!
//! ```text
//!  destination ─accepted─▶ conduct ─▶ schedule ─▶ retention ─▶ shipping ─▶ drill
//!  a member looks at it    the oldest   due runs     after each   one follower  a pod of its own
//! ```
//!
//! All of it is orders to members, which touch the bucket; nothing here takes anything from the store. The same
//! backup may be ordered again under its name, of any member: whoever comes second finds it there.

mod conduct;
mod destination;
mod drill;
mod retention;
pub mod schedule;
mod shipping;

use crds::backup::{BackupPhase, TaskStoreBackupStatus};
use crds::backup_policy::BackupPolicy;
use crds::conditions::shortened;
use crds::destination::{Destination, Lineage};
use crds::status::{Drill, Identity};
use crds::{MemberId, Reason};
use jiff::{SignedDuration, Timestamp};

pub use destination::Standing;
pub use drill::Verified;

use super::{Action, Draft};
use crate::observe::backups::{Backup, Failure, Order};
use crate::observe::{Life, Start};

/// An object may come a little before what it names.
pub const GRACE: SignedDuration = SignedDuration::from_mins(1);
const RETRY_MIN: SignedDuration = SignedDuration::from_secs(5);
const RETRY_MAX: SignedDuration = SignedDuration::from_mins(5);
/// An order that went well for so long is no repetition of those that failed before it.
const IN_A_ROW: SignedDuration = SignedDuration::from_mins(10);

/// What the condition BackupReady says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    pub standing: Standing,
    /// Why the log is not shipped although it is to be.
    pub unshipped: Option<String>,
    pub verified: Verified,
}

impl Readiness {
    pub fn reason(&self) -> Reason {
        match (&self.standing, &self.unshipped) {
            (Standing::Accepted, None) => Reason::DestinationAccepted,
            (Standing::Accepted, Some(_)) => Reason::LogNotShipped,
            (Standing::Unchecked(_), _) => Reason::DestinationUnchecked,
            (Standing::Refused { .. }, _) => Reason::DestinationRefused,
            (Standing::Unavailable(_), _) => Reason::DestinationUnavailable,
        }
    }
}

pub(super) fn plan(draft: &mut Draft<'_>, identity: &Identity) {
    let Some(policy) = &draft.cluster.spec.backup else {
        return unwanted(draft);
    };
    let scope = Scope {
        policy,
        identity,
        about: about(&policy.destination),
    };
    let standing = destination::plan(draft, &scope);
    conduct::plan(draft, &scope, &standing);
    let is_accepted = standing == Standing::Accepted;
    if is_accepted {
        schedule::plan(draft, &scope);
        retention::plan(draft, &scope);
    }
    let unshipped = shipping::plan(draft, &scope, is_accepted);
    drill::plan(draft, &scope, is_accepted);
    let verified = drill::verified(draft, &scope);
    draft.plan.backup_ready = Some(Readiness {
        standing,
        unshipped,
        verified,
    });
}

/// What every part reads.
struct Scope<'a> {
    policy: &'a BackupPolicy,
    identity: &'a Identity,
    /// The destination in short.
    about: String,
}

impl Scope<'_> {
    /// The folder that this cluster writes to.
    fn lineage(&self) -> Lineage {
        Lineage {
            cluster_id: self.identity.cluster_id.clone(),
            incarnation: self.identity.incarnation,
        }
    }

    /// Whether a backup is in the bucket and the folder that this cluster writes to.
    fn is_here(&self, backup: &Backup) -> bool {
        let status = &backup.status;
        let lineage = status.lineage.as_ref();
        status.phase == BackupPhase::Completed
            && status.destination.as_ref() == Some(&self.policy.destination)
            && lineage == Some(&self.lineage())
    }
}

/// The same for the same destination.
pub fn about(destination: &Destination) -> String {
    let text = serde_json::to_vec(destination).expect("a destination is always valid JSON");
    blake3::hash(&text).to_hex().as_str()[..16].to_owned()
}

/// Nothing is backed up any more; what was begun is ended.
fn unwanted(draft: &mut Draft<'_>) {
    shipping::stop(draft);
    drill::unwanted(draft);
    if draft.plan.progress.backup.shipper.is_none() {
        draft.plan.progress.backup = Progress::default();
    }
    let words = "the cluster's spec.backup names no destination";
    for backup in open(draft) {
        let until = backup.created + GRACE;
        match until <= draft.now {
            true => note(draft, &backup, failed(&backup, words)),
            false => {
                draft.wake_at(until);
                note(draft, &backup, waiting(&backup, words));
            }
        }
    }
}

/// What status must say before anything is ordered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    pub accepted: Option<String>,
    pub scheduled_up_to: Option<Timestamp>,
    pub shipper: Option<MemberId>,
    /// The last drill.
    pub drill: Option<Drill>,
    /// When the last one that passed ended.
    pub verified: Option<Timestamp>,
}

/// Those that are neither completed nor failed, oldest first.
fn open(draft: &Draft<'_>) -> Vec<Backup> {
    let objects = draft.observed.backups.objects.values();
    let mut open: Vec<Backup> = objects.filter(|one| one.is_open()).cloned().collect();
    open.sort_by(|one, other| (one.created, &one.name).cmp(&(other.created, &other.name)));
    open
}

fn note(draft: &mut Draft<'_>, backup: &Backup, mut status: TaskStoreBackupStatus) {
    status.message = status.message.map(shortened);
    if status != backup.status {
        draft.act(Action::NoteBackup {
            name: backup.name.clone(),
            version: backup.version.clone(),
            status: Box::new(status),
        });
    }
}

fn waiting(backup: &Backup, words: impl Into<String>) -> TaskStoreBackupStatus {
    TaskStoreBackupStatus {
        phase: BackupPhase::Pending,
        message: Some(words.into()),
        progress_percent: None,
        ..backup.status.clone()
    }
}

pub fn failed(backup: &Backup, words: impl Into<String>) -> TaskStoreBackupStatus {
    TaskStoreBackupStatus {
        phase: BackupPhase::Failed,
        ..waiting(backup, words)
    }
}

/// Members that can be asked about the bucket, best first: they are caught up and have what the spec names; the
/// leader has enough to do.
fn able(draft: &Draft<'_>, scope: &Scope<'_>) -> Vec<MemberId> {
    let Some(leader) = draft.leader else {
        return Vec::new();
    };
    let voters = leader.raft.membership.voters.iter().copied();
    let mut able: Vec<MemberId> = voters
        .filter(|voter| leader.is_caught_up(*voter) && has_credentials(draft, scope, *voter))
        .collect();
    able.sort_by_key(|member| *member == leader.id);
    able
}

fn has_credentials(draft: &Draft<'_>, scope: &Scope<'_>, member: MemberId) -> bool {
    let wanted = scope.policy.destination.credentials.as_ref();
    draft.observed.pod_of(member).is_some_and(|pod| {
        pod.life == Life::Present
            && pod.runs()
            && pod.start == Start::Serve
            && pod.backup_secret.as_ref() == wanted.map(|secret| &secret.name)
    })
}

fn nobody(draft: &Draft<'_>) -> &'static str {
    match draft.leader {
        None => "waits for a leader",
        Some(_) => "waits for a member that is caught up and was started with the credentials",
    }
}

/// How many in a row have failed with this one.
fn failures<T>(order: &Order<T>, failure: &Failure) -> u32 {
    match failure.at.duration_since(order.given) > IN_A_ROW {
        true => 1,
        false => order.failures.saturating_add(1),
    }
}

/// When the next try is due, after so many that failed in a row.
fn retry_at(failure: &Failure, failures: u32) -> Timestamp {
    let doubled = RETRY_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    failure.at + doubled.min(RETRY_MAX)
}
