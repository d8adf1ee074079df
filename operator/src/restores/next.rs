//! What a TaskStoreRestore says and does next, from what is found. Pure.
//!
//! ```text
//! Pending ─▶ source recorded ─▶ cluster made ─▶ Restoring ─▶ Starting ─▶ Completed
//!    └──────────────┴─────────────────┴────────────┴────────────┴──────▶ Failed
//! ```
//!
//! The source is recorded before the cluster is made, and the cluster by its UID before anything else is said of
//! it, so that each step is taken up by the next operator. The cluster does the rest by itself.

use crds::backup::BackupPhase;
use crds::conditions::{get, is_true, shortened};
use crds::names::label;
use crds::restore::{BucketSource, RestorePhase};
use crds::{
    ConditionType, Reason, TaskStoreBackup, TaskStoreCluster, TaskStoreRestore,
    TaskStoreRestoreStatus,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

/// What is there now.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Of the name that the spec gives.
    pub cluster: Option<TaskStoreCluster>,
    /// The one that the spec names, if it names one.
    pub backup: Option<TaskStoreBackup>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    pub status: TaskStoreRestoreStatus,
    /// The cluster is to be made; what status says does not depend on it.
    pub makes_cluster: bool,
    /// Nothing tells us when this changes.
    pub looks_again: bool,
}

pub fn next(restore: &TaskStoreRestore, found: &Found, now: Timestamp) -> Next {
    let mut next = Next {
        status: restore.status.clone().unwrap_or_default(),
        makes_cluster: false,
        looks_again: false,
    };
    if next.status.phase.is_final() {
        return next;
    }
    let own = found
        .cluster
        .as_ref()
        .filter(|cluster| is_made_by(restore, cluster));
    match (&next.status.source, &next.status.cluster_uid, own) {
        (_, None, None) if found.cluster.is_some() => {
            let name = &restore.spec.cluster.name;
            fail(
                &mut next.status,
                now,
                format!("a TaskStoreCluster {name} is there already"),
            );
        }
        (None, ..) => resolve(restore, found, now, &mut next),
        (Some(_), None, None) => next.makes_cluster = true,
        (Some(_), None, Some(cluster)) => {
            next.status.cluster_uid = cluster.uid();
            next.status.started_at = Some(Time(now));
            next.status.phase = RestorePhase::Restoring;
        }
        (Some(_), Some(uid), Some(cluster)) if cluster.uid().as_ref() == Some(uid) => {
            follow(cluster, now, &mut next.status);
        }
        (Some(_), Some(_), _) => {
            let words = "the cluster was deleted before it served";
            fail(&mut next.status, now, words.into());
        }
    }
    next
}

/// Another restore of the same name made its own.
fn is_made_by(restore: &TaskStoreRestore, cluster: &TaskStoreCluster) -> bool {
    let maker = cluster.labels().get(label::RESTORE_UID);
    maker.is_some() && maker == restore.metadata.uid.as_ref()
}

fn resolve(restore: &TaskStoreRestore, found: &Found, now: Timestamp, next: &mut Next) {
    let source = &restore.spec.source;
    if let Some(bucket) = &source.bucket {
        next.status.source = Some(bucket.clone());
        return;
    }
    let name = source.backup.clone().unwrap_or_default();
    let status = found
        .backup
        .as_ref()
        .and_then(|backup| backup.status.as_ref());
    let complete = status.filter(|status| status.phase == BackupPhase::Completed);
    let place =
        complete.and_then(|status| Some((status.destination.clone()?, status.lineage.clone()?)));
    match place {
        Some((destination, lineage)) => {
            next.status.source = Some(BucketSource {
                destination,
                lineage,
                backup: Some(name),
            });
            next.status.message = None;
        }
        None if status.is_some_and(|status| status.phase == BackupPhase::Failed) => {
            fail(
                &mut next.status,
                now,
                format!("the TaskStoreBackup {name} has failed"),
            );
        }
        None => {
            let what = match found.backup {
                Some(_) => "complete",
                None => "there",
            };
            next.status.message = Some(format!(
                "waiting for the TaskStoreBackup {name} to be {what}"
            ));
            next.looks_again = true;
        }
    }
}

/// In the cluster's own words.
fn follow(cluster: &TaskStoreCluster, now: Timestamp, status: &mut TaskStoreRestoreStatus) {
    let Some(theirs) = &cluster.status else {
        return;
    };
    status.restored.clone_from(&theirs.restored);
    let progress = get(&theirs.conditions, ConditionType::Progressing);
    let message = progress
        .map(|condition| condition.message.as_str())
        .unwrap_or_default();
    let is = |reason: Reason| progress.is_some_and(|condition| condition.reason == reason.as_str());
    if status.restored.is_none() && (is(Reason::RestoreRefused) || is(Reason::InvalidSpec)) {
        fail(status, now, message.to_owned());
        return;
    }
    status.message = Some(shortened(message.to_owned())).filter(|message| !message.is_empty());
    status.phase = match (
        &status.restored,
        is_true(&theirs.conditions, ConditionType::Ready),
    ) {
        (None, false) => RestorePhase::Restoring,
        (Some(_), false) => RestorePhase::Starting,
        // Without what it began with, status was lost on the way.
        (_, true) => {
            status.message = None;
            status.completed_at = Some(Time(now));
            RestorePhase::Completed
        }
    };
}

/// Final: another try is another TaskStoreRestore.
pub fn fail(status: &mut TaskStoreRestoreStatus, now: Timestamp, words: String) {
    status.phase = RestorePhase::Failed;
    status.message = Some(shortened(words));
    status.completed_at = Some(Time(now));
}
