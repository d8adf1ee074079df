//! How a cluster's backups stand: what the plan records, and what completed ones and shipping say.

use crds::backup::{BackupPhase, TaskStoreBackupStatus};
use crds::conditions::State;
use crds::status::BackupStatus;
use crds::{Reason, TaskStoreCluster};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::{Said, said};
use crate::observe::Observed;
use crate::plan::Plan;
use crate::plan::backups::{Readiness, Standing, Verified};
use crate::plan::explain::clock;

pub fn next(cluster: &TaskStoreCluster, observed: &Observed, plan: &Plan) -> Option<BackupStatus> {
    let progress = &plan.progress.backup;
    let Some(policy) = &cluster.spec.backup else {
        // Somebody still ships, and is told not to.
        let shipper = progress.shipper?;
        return Some(BackupStatus {
            shipper: Some(shipper),
            ..BackupStatus::default()
        });
    };
    let old = cluster.status.clone().unwrap_or_default().backup;
    // What was at another destination is no help.
    let old = old.filter(|old| progress.accepted.is_none() || old.accepted == progress.accepted);
    let old = old.unwrap_or_default();
    let lineage = |status: &TaskStoreBackupStatus| {
        let known = plan.progress.identity.as_ref();
        known
            .zip(status.lineage.as_ref())
            .is_some_and(|(known, of)| {
                (&known.cluster_id, known.incarnation) == (&of.cluster_id, of.incarnation)
            })
    };
    let completed: Vec<&TaskStoreBackupStatus> = observed
        .backups
        .objects
        .values()
        .map(|backup| &backup.status)
        .filter(|status| status.phase == BackupPhase::Completed && lineage(status))
        .filter(|status| status.destination.as_ref() == Some(&policy.destination))
        .collect();
    let taken = || {
        completed
            .iter()
            .filter_map(|status| status.taken_at.clone())
    };
    let shipping = observed.backups.orders.shipping.as_ref();
    let shipped = shipping.and_then(|order| order.news()?.to).map(Time);
    let success = completed.iter().filter_map(|one| one.completed_at.clone());
    Some(BackupStatus {
        accepted: progress.accepted.clone(),
        scheduled_up_to: progress.scheduled_up_to.map(Time),
        shipper: progress.shipper,
        last_drill: progress.drill.clone(),
        last_verified: progress.verified.map(Time),
        last_success: success.max().or(old.last_success),
        recoverable_from: taken().min().or(old.recoverable_from),
        recoverable_to: taken().chain(shipped).chain(old.recoverable_to).max(),
    })
}

pub fn verified(readiness: &Readiness) -> Said {
    match &readiness.verified {
        Verified::Never => {
            let words = "no drill has restored a backup yet";
            said(State::Unknown, Reason::NotDrilled, words)
        }
        Verified::Interrupted(why, None) => {
            let words =
                format!("no drill has restored a backup yet; the last one came to no end: {why}");
            said(State::Unknown, Reason::NotDrilled, words)
        }
        Verified::Interrupted(why, Some(passed)) => {
            let words = format!(
                "a drill restored all at {}; the last one came to no end: {why}",
                clock(*passed)
            );
            said(State::True, Reason::DrillPassed, words)
        }
        Verified::Passed(drill) => {
            let words = match &drill.restorable {
                Some(restored) => format!(
                    "a drill restored {} and the log behind it up to {}: {} tasks",
                    restored.backup,
                    clock(restored.restored_to.0),
                    restored.tasks
                ),
                None => "a drill restored what is there".into(),
            };
            let gap = drill.gap.as_ref().map_or(String::new(), |gap| {
                format!("; the log does not lead from the backup before to it: {gap} is not there")
            });
            said(State::True, Reason::DrillPassed, words + &gap)
        }
        Verified::Failed(problem) => {
            let words = format!("a drill could not restore what is there: {problem}");
            said(State::False, Reason::DrillFailed, words)
        }
        Verified::Overdue(at) => {
            let words = format!("the last drill that restored all ended at {}", clock(*at));
            said(State::False, Reason::DrillOverdue, words)
        }
    }
}

pub fn ready(cluster: &TaskStoreCluster, readiness: &Readiness) -> Said {
    let policy = cluster.spec.backup.clone().unwrap_or_default();
    let (state, words) = match (&readiness.standing, &readiness.unshipped) {
        (Standing::Accepted, Some(words)) => (State::False, words.clone()),
        (Standing::Accepted, None) => {
            let what = match policy.log_shipping {
                true => "backups and the log",
                false => "backups",
            };
            let words = format!("{what} go to {}", policy.destination.url);
            (State::True, words)
        }
        (Standing::Unchecked(words), _) => (State::Unknown, words.clone()),
        (Standing::Unavailable(words), _) | (Standing::Refused { words, .. }, _) => {
            (State::False, words.clone())
        }
    };
    said(state, readiness.reason(), words)
}
