//! One backup of a cluster at a time, from its object to its facts: a member is asked, followed, and another one
//! asked under the same name when it fails. What no other try can help fails it, in the store's words.

use crds::backup::{BackupPhase, TaskStoreBackupStatus};
use crds::status::LogId;
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::destination::{Standing, chosen};
use super::{Scope, able, failed, failures, nobody, note, open, retry_at, waiting};
use crate::observe::backups::{Backup, Facts, Heard, Order, Writing};
use crate::plan::action::short;
use crate::plan::{Action, Draft};

/// As far as the clocks of nodes and API servers may be. What a member finds under the name of a backup, and is
/// older than that, is not what was asked for.
const CLOCKS_APART: SignedDuration = SignedDuration::from_hours(1);

pub fn plan(draft: &mut Draft<'_>, scope: &Scope<'_>, standing: &Standing) {
    let mut open = open(draft).into_iter();
    let Some(first) = open.next() else { return };
    for later in open {
        let words = format!("waits for the backup {}", first.name);
        note(draft, &later, waiting(&later, words));
    }
    let observed = draft.observed;
    let order = observed.backups.orders.backup.as_ref();
    match order.filter(|order| order.about == first.uid) {
        Some(order) => follow(draft, scope, &first, order),
        None => begin(draft, scope, &first, standing),
    }
}

fn begin(draft: &mut Draft<'_>, scope: &Scope<'_>, backup: &Backup, standing: &Standing) {
    match standing {
        Standing::Accepted => ask(draft, scope, backup, 0),
        Standing::Unchecked(words) | Standing::Unavailable(words) => {
            let words = format!("the destination is not yet accepted: {words}");
            note(draft, backup, waiting(backup, words));
        }
        // What was found before this backup was asked for may have been put right for it.
        Standing::Refused { words, at } if *at > backup.created => {
            note(draft, backup, failed(backup, words));
        }
        Standing::Refused { .. } => {
            let words = "waits for a member to look at the destination again";
            note(draft, backup, waiting(backup, words));
        }
    }
}

fn follow(draft: &mut Draft<'_>, scope: &Scope<'_>, backup: &Backup, order: &Order<Writing>) {
    match &order.heard {
        Heard::Nothing => {}
        Heard::News(Writing::UnderWay { phase, percent }) => {
            let status = under_way(draft, scope, backup, order, *phase, *percent);
            note(draft, backup, status);
        }
        Heard::News(Writing::Done(facts)) if facts.taken_at + CLOCKS_APART < backup.created => {
            let words = format!(
                "the bucket holds a backup of this name already, taken at {:.0}; make another one under another name",
                facts.taken_at
            );
            note(draft, backup, failed(backup, words));
        }
        Heard::News(Writing::Done(facts)) => {
            let status = completed(draft, scope, backup, facts);
            note(draft, backup, status);
        }
        Heard::Failed(failure) if failure.is_final => {
            // The right may have been taken away: it is looked at again before the next one.
            draft.plan.progress.backup.accepted = None;
            note(draft, backup, failed(backup, &failure.words));
        }
        Heard::Failed(failure) => {
            let failures = failures(order, failure);
            let next = retry_at(failure, failures);
            if next <= draft.now {
                return ask(draft, scope, backup, failures);
            }
            draft.wake_at(next);
            let words = format!(
                "{}: {}; it is tried again",
                short(order.member),
                failure.words
            );
            note(draft, backup, waiting(backup, words));
        }
    }
}

fn ask(draft: &mut Draft<'_>, scope: &Scope<'_>, backup: &Backup, failures: u32) {
    let able = able(draft, scope);
    let Some(member) = chosen(&able, failures) else {
        let words = nobody(draft);
        return note(draft, backup, waiting(backup, words));
    };
    draft.act(Action::OrderBackup {
        name: backup.name.clone(),
        uid: backup.uid.clone(),
        member,
        previous: previous(draft, scope),
        failures,
    });
}

/// Name and checksum of the newest one in the same folder.
fn previous(draft: &Draft<'_>, scope: &Scope<'_>) -> Option<(String, String)> {
    let objects = draft.observed.backups.objects.values();
    let here = objects.filter(|backup| scope.is_here(backup));
    let newest = here.max_by_key(|backup| backup.status.log_id.map(|id: LogId| id.index))?;
    Some((newest.name.clone(), newest.status.checksum.clone()?))
}

fn under_way(
    draft: &Draft<'_>,
    scope: &Scope<'_>,
    backup: &Backup,
    order: &Order<Writing>,
    phase: BackupPhase,
    percent: u8,
) -> TaskStoreBackupStatus {
    let before = &backup.status;
    TaskStoreBackupStatus {
        phase,
        message: None,
        destination: Some(scope.policy.destination.clone()),
        member: Some(order.member),
        progress_percent: Some(percent),
        started_at: before.started_at.clone().or(Some(Time(draft.now))),
        ..before.clone()
    }
}

fn completed(
    draft: &Draft<'_>,
    scope: &Scope<'_>,
    backup: &Backup,
    facts: &Facts,
) -> TaskStoreBackupStatus {
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let before = &backup.status;
    TaskStoreBackupStatus {
        phase: BackupPhase::Completed,
        message: None,
        destination: Some(scope.policy.destination.clone()),
        lineage: Some(facts.lineage.clone()),
        member: Some(facts.member),
        log_id: Some(facts.log_id),
        taken_at: Some(Time(facts.taken_at)),
        bytes: Some(count(facts.bytes)),
        progress_percent: None,
        tasks: Some(count(facts.tasks)),
        state_hash: Some(facts.state_hash.clone()),
        checksum: Some(facts.checksum.clone()),
        started_at: before.started_at.clone().or(Some(Time(draft.now))),
        completed_at: Some(Time(draft.now)),
    }
}
