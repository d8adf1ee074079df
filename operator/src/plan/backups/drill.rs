//! Restores what lies in the bucket, into nothing, and notes what came of it: once after the first backup, then as
//! often as the spec says. Nothing else says that a backup is good.

use crds::duration;
use crds::status::{Drill, Restored};
use jiff::{SignedDuration, Timestamp};

use super::{Scope, open};
use crate::observe::{DrillPod, Life};
use crate::plan::{Action, Draft};

/// After one that failed, unless the next one is due sooner: somebody may have put it right.
const FAILED_AGAIN: SignedDuration = SignedDuration::from_hours(1);
/// As the CRD bounds it.
const PROBLEM_CHARS_MAX: usize = 1024;

/// How it stands with the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    Never,
    Passed(Box<Drill>),
    Failed(String),
    Overdue(Timestamp),
}

pub fn plan(draft: &mut Draft<'_>, scope: &Scope<'_>, is_accepted: bool) {
    let observed = draft.observed;
    match &observed.drill {
        Some(pod) => conclude(draft, scope, pod),
        None if is_accepted => begin(draft, scope),
        None => {}
    }
}

/// What it says is recorded before its pod goes.
fn conclude(draft: &mut Draft<'_>, scope: &Scope<'_>, pod: &DrillPod) {
    if pod.life == Life::Deleting {
        return;
    }
    if pod.about == scope.about
        && let Some(end) = &pod.end
    {
        let drill = noted(end, scope);
        if draft.plan.progress.backup.drill.as_ref() != Some(&drill) {
            if drill.problem.is_none() {
                draft.plan.progress.backup.verified = Some(drill.ended_at.0);
            }
            draft.plan.progress.backup.drill = Some(drill);
            return;
        }
    }
    if pod.end.is_some() || pod.about != scope.about {
        draft.act(Action::DeleteDrill {
            uid: pod.uid.clone(),
        });
    }
}

fn noted(end: &Drill, scope: &Scope<'_>) -> Drill {
    let mut drill = end.clone();
    if let Some(problem) = &mut drill.problem
        && let Some((cut, _)) = problem.char_indices().nth(PROBLEM_CHARS_MAX)
    {
        problem.truncate(cut);
    }
    drill.restorable = drill.restorable.map(|restorable| Restored {
        parent: scope.lineage(),
        ..restorable
    });
    drill
}

fn begin(draft: &mut Draft<'_>, scope: &Scope<'_>) {
    let mut objects = draft.observed.backups.objects.values();
    if !objects.any(|backup| scope.is_here(backup)) || !open(draft).is_empty() {
        return;
    }
    let last = draft.plan.progress.backup.drill.clone();
    let due = last.map_or(draft.now, |last| {
        let pause = match last.problem {
            Some(_) => every(scope).min(FAILED_AGAIN),
            None => every(scope),
        };
        last.ended_at.0.checked_add(pause).unwrap_or(Timestamp::MAX)
    });
    match due <= draft.now {
        true => draft.act(Action::CreateDrill {
            about: scope.about.clone(),
            lineage: scope.lineage(),
        }),
        false => draft.wake_at(due),
    }
}

fn every(scope: &Scope<'_>) -> SignedDuration {
    let seconds = duration::seconds(&scope.policy.drill_every).unwrap_or(0);
    SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX))
}

pub fn verified(draft: &mut Draft<'_>, scope: &Scope<'_>) -> Verified {
    let progress = &draft.plan.progress.backup;
    let (last, passed) = (progress.drill.clone(), progress.verified);
    let Some(last) = last else {
        return Verified::Never;
    };
    if let Some(problem) = last.problem {
        return Verified::Failed(problem);
    }
    let Some(passed) = passed else {
        return Verified::Never;
    };
    let overdue = passed
        .checked_add(every(scope) * 2)
        .unwrap_or(Timestamp::MAX);
    if overdue <= draft.now {
        return Verified::Overdue(passed);
    }
    draft.wake_at(overdue);
    Verified::Passed(Box::new(last))
}

/// Nothing is backed up any more.
pub fn unwanted(draft: &mut Draft<'_>) {
    let drill = draft.observed.drill.as_ref();
    if let Some(pod) = drill.filter(|pod| pod.life == Life::Present) {
        draft.act(Action::DeleteDrill {
            uid: pod.uid.clone(),
        });
    }
}
