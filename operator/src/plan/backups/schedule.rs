//! What the schedule asks for: a backup with a name that every operator gives it, one at a time, and one for
//! all that were missed.

use crds::names;
use crds::schedule::Schedule;
use jiff::Timestamp;

use super::{Scope, open};
use crate::plan::{Action, Draft};

/// A run that is due; `last` is the moment up to which runs were made.
pub fn due(schedule: &Schedule, last: Timestamp, now: Timestamp) -> Option<Timestamp> {
    schedule.last_between(last, now)
}

pub(super) fn plan(draft: &mut Draft<'_>, scope: &Scope<'_>) {
    let Some(Ok(schedule)) = scope.policy.schedule() else {
        draft.plan.progress.backup.scheduled_up_to = None;
        return;
    };
    let name = draft.cluster.metadata.name.clone().unwrap_or_default();
    let incarnation = scope.identity.incarnation;
    let objects = draft.observed.backups.objects.keys();
    let made = objects.filter_map(|backup| names::scheduled_at(&name, incarnation, backup));
    let recorded = draft.plan.progress.backup.scheduled_up_to;
    // A schedule that is new begins now.
    let last = made.chain(recorded).max().unwrap_or(draft.now);
    draft.plan.progress.backup.scheduled_up_to = Some(last);
    // The end of one that is under way comes as news.
    if scope.policy.suspend || !open(draft).is_empty() {
        return;
    }
    match due(&schedule, last, draft.now) {
        Some(at) => draft.act(Action::CreateBackup {
            name: names::scheduled_backup(&name, incarnation, at),
        }),
        None => {
            if let Some(next) = schedule.next_after(last.max(draft.now)) {
                draft.wake_at(next);
            }
        }
    }
}
