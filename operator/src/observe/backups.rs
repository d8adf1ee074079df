//! What is known of a cluster's backups: its TaskStoreBackups, and what members said to orders about a bucket.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::backup::{BackupPhase, TaskStoreBackupStatus};
use crds::destination::Lineage;
use crds::status::{LogId, whole_seconds};
use crds::{MemberId, TaskStoreBackup, TaskStoreRestore};
use jiff::Timestamp;
use kube::ResourceExt;
use taskstore_api::v1;

use super::Life;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backups {
    /// Those of the namespace that name this cluster, by name.
    pub objects: BTreeMap<String, Backup>,
    /// Names of backups that a restore reads.
    pub in_use: BTreeSet<String>,
    pub orders: Orders,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Backup {
    pub name: String,
    pub uid: String,
    pub version: String,
    pub created: Timestamp,
    pub life: Life,
    pub status: TaskStoreBackupStatus,
}

/// What this process has ordered, one of each kind at a time. Losing it costs the same orders again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Orders {
    pub check: Option<Order<Verdict>>,
    pub backup: Option<Order<Writing>>,
    pub prune: Option<Order<Pruned>>,
    pub shipping: Option<Order<Shipped>>,
}

/// An order to one member, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Order<T> {
    /// What exactly was ordered: of anything else it says nothing.
    pub about: String,
    pub member: MemberId,
    pub given: Timestamp,
    /// How many of this before it have failed in a row.
    pub failures: u32,
    pub heard: Heard<T>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Heard<T> {
    Nothing,
    News(T),
    /// It has ended without an answer.
    Failed(Failure),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub words: String,
    /// No other try will do better, at this destination as it is.
    pub is_final: bool,
    pub at: Timestamp,
}

/// What a member found at a destination.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The right that is missing, and the store's words; none when it is good.
    pub lacks: Option<(String, String)>,
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Writing {
    /// Running or Verifying.
    UnderWay {
        phase: BackupPhase,
        /// In steps of ten.
        percent: u8,
    },
    Done(Facts),
}

/// What a backup's manifest says.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub lineage: Lineage,
    pub log_id: LogId,
    pub taken_at: Timestamp,
    pub member: MemberId,
    pub bytes: u64,
    pub tasks: u64,
    pub state_hash: String,
    pub checksum: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pruned {
    pub deleted: BTreeSet<String>,
    /// All that are in the bucket.
    pub kept: BTreeSet<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shipped {
    /// The store's time at the last entry in the bucket, told at most once a minute.
    pub to: Option<Timestamp>,
    /// Why nothing is shipped now; empty: it is.
    pub problem: String,
}

impl Backup {
    pub fn is_open(&self) -> bool {
        self.life == Life::Present && !self.status.phase.is_final()
    }
}

impl<T> Order<T> {
    pub fn news(&self) -> Option<&T> {
        match &self.heard {
            Heard::News(news) => Some(news),
            Heard::Nothing | Heard::Failed(_) => None,
        }
    }

    pub fn failure(&self) -> Option<&Failure> {
        match &self.heard {
            Heard::Failed(failure) => Some(failure),
            Heard::Nothing | Heard::News(_) => None,
        }
    }
}

impl Backups {
    /// Of all backups and restores of its namespace.
    pub fn of(
        cluster: &str,
        backups: &[Arc<TaskStoreBackup>],
        restores: &[Arc<TaskStoreRestore>],
    ) -> Self {
        let theirs = backups.iter().filter(|one| one.spec.cluster == cluster);
        let objects = theirs.filter_map(|one| backup(one));
        Self {
            objects: objects.map(|one| (one.name.clone(), one)).collect(),
            in_use: restores.iter().filter_map(|one| reads(one)).collect(),
            orders: Orders::default(),
        }
    }
}

pub fn backup(object: &TaskStoreBackup) -> Option<Backup> {
    let meta = &object.metadata;
    Some(Backup {
        name: object.name_any(),
        uid: meta.uid.clone()?,
        version: meta.resource_version.clone()?,
        created: meta.creation_timestamp.as_ref()?.0,
        life: match meta.deletion_timestamp {
            Some(_) => Life::Deleting,
            None => Life::Present,
        },
        status: object.status.clone().unwrap_or_default(),
    })
}

/// The backup that a restore in flight reads, once it knows which.
fn reads(restore: &TaskStoreRestore) -> Option<String> {
    let status = restore.status.clone().unwrap_or_default();
    if status.phase.is_final() {
        return None;
    }
    let found = status.source.and_then(|source| source.backup);
    found.or(restore.spec.source.backup.clone())
}

impl Writing {
    pub fn read(progress: &v1::BackupProgress) -> Self {
        let phase = match progress.phase() {
            v1::BackupPhase::Verifying => BackupPhase::Verifying,
            v1::BackupPhase::Unspecified | v1::BackupPhase::Uploading => BackupPhase::Running,
            v1::BackupPhase::Done => {
                return Self::Done(Facts::read(&progress.facts.clone().unwrap_or_default()));
            }
        };
        let tenths = (progress.bytes_done.min(progress.bytes_total) * 10)
            .checked_div(progress.bytes_total)
            .unwrap_or(0);
        Self::UnderWay {
            phase,
            percent: u8::try_from(tenths * 10).unwrap_or(100),
        }
    }
}

impl Facts {
    fn read(facts: &v1::BackupFacts) -> Self {
        let log_id = facts.log_id.unwrap_or_default();
        Self {
            lineage: Lineage {
                cluster_id: facts.cluster_id.clone(),
                incarnation: u16::try_from(facts.incarnation).unwrap_or(u16::MAX),
            },
            log_id: LogId {
                term: log_id.term,
                index: log_id.index,
            },
            taken_at: moment(facts.created_at_ms).unwrap_or(Timestamp::UNIX_EPOCH),
            member: MemberId(facts.member_id),
            bytes: facts.bytes,
            tasks: facts.tasks,
            state_hash: facts.state_hash.clone(),
            checksum: facts.r#ref.clone().unwrap_or_default().checksum,
        }
    }
}

/// By a clock that counts milliseconds, as it will be written.
pub fn moment(ms: u64) -> Option<Timestamp> {
    Some(whole_seconds(i64::try_from(ms).ok()?).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_in_steps_of_ten() {
        let rows = [
            (0, 0, 0),
            (0, 100, 0),
            (99, 1_000, 0),
            (100, 1_000, 10),
            (999, 1_000, 90),
        ];
        for (bytes_done, bytes_total, expected) in rows {
            let progress = v1::BackupProgress {
                phase: v1::BackupPhase::Uploading.into(),
                bytes_done,
                bytes_total,
                facts: None,
            };
            let told = Writing::UnderWay {
                phase: BackupPhase::Running,
                percent: expected,
            };
            assert_eq!(
                Writing::read(&progress),
                told,
                "{bytes_done} of {bytes_total}"
            );
        }
    }
}
