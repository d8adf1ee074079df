//! Members delete in the bucket what need not be kept; then the objects of what is no more there go. Never the
//! other way round: an object is what people find a backup by.

use std::collections::BTreeSet;

use crds::backup::BackupPhase;
use crds::names;

use super::destination::chosen;
use super::{Scope, able, failures, open, retry_at};
use crate::observe::Life;
use crate::observe::backups::{Backup, Heard, Pruned};
use crate::plan::{Action, Draft};

/// Runs of a schedule that failed are kept for people to read, the newest few.
const FAILED_KEPT: usize = 3;

/// After each backup, with another retention, and once in the life of an operator.
pub fn plan(draft: &mut Draft<'_>, scope: &Scope<'_>) {
    let observed = draft.observed;
    let here = observed.backups.objects.values();
    let here: Vec<&Backup> = here.filter(|backup| scope.is_here(backup)).collect();
    let newest = here.iter().max_by_key(|backup| backup.status.log_id);
    let Some(newest) = newest.filter(|_| open(draft).is_empty()) else {
        return;
    };
    let keep = &scope.policy.keep;
    let about = format!(
        "{} {} {:?} {}",
        newest.uid, keep.count, keep.days, scope.about
    );
    let order = observed.backups.orders.prune.as_ref();
    let Some(order) = order.filter(|order| order.about == about) else {
        return ask(draft, scope, about, 0);
    };
    match &order.heard {
        Heard::Nothing => {}
        Heard::News(pruned) => {
            let known = here.into_iter().filter(|backup| {
                let completed = backup.status.completed_at.as_ref();
                completed.is_some_and(|at| at.0 <= order.given)
            });
            forget(draft, known, pruned);
            forget_failed(draft, scope);
        }
        Heard::Failed(failure) => {
            let failures = failures(order, failure);
            let next = retry_at(failure, failures);
            match next <= draft.now {
                true => ask(draft, scope, about, failures),
                false => draft.wake_at(next),
            }
        }
    }
}

fn ask(draft: &mut Draft<'_>, scope: &Scope<'_>, about: String, failures: u32) {
    if draft.observed.drill.is_some() {
        // It reads what might go. Its end wakes us.
        return;
    }
    let able = able(draft, scope);
    if let Some(member) = chosen(&able, failures) {
        draft.act(Action::PruneBackups {
            member,
            about,
            in_use: draft.observed.backups.in_use.clone(),
            failures,
        });
    }
}

/// A list of what is kept that is empty says that somebody has emptied the bucket: people should see that.
fn forget<'a>(draft: &mut Draft<'_>, known: impl Iterator<Item = &'a Backup>, pruned: &Pruned) {
    let is_gone = |name: &String| {
        let kept: &BTreeSet<String> = &pruned.kept;
        pruned.deleted.contains(name) || !kept.is_empty() && !kept.contains(name)
    };
    for backup in known.filter(|backup| backup.life == Life::Present && is_gone(&backup.name)) {
        draft.act(Action::DeleteBackup {
            name: backup.name.clone(),
            uid: backup.uid.clone(),
        });
    }
}

fn forget_failed(draft: &mut Draft<'_>, scope: &Scope<'_>) {
    let cluster = draft.cluster.metadata.name.clone().unwrap_or_default();
    let incarnation = scope.identity.incarnation;
    let observed = draft.observed;
    let mut failed: Vec<_> = observed
        .backups
        .objects
        .values()
        .filter(|backup| backup.status.phase == BackupPhase::Failed && backup.life == Life::Present)
        .filter_map(|backup| {
            let at = names::scheduled_at(&cluster, incarnation, &backup.name)?;
            Some((at, backup))
        })
        .collect();
    failed.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    for (_, backup) in failed.into_iter().skip(FAILED_KEPT) {
        draft.act(Action::DeleteBackup {
            name: backup.name.clone(),
            uid: backup.uid.clone(),
        });
    }
}
