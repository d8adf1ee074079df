//! Restores what lies in the bucket, into nothing, and notes what came of it: once after the first backup, then as
//! often as the spec says. Nothing else says that a backup is good.

use crds::conditions::shortened;
use crds::duration;
use crds::status::{Drill, DrillOutcome};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Scope, open};
use crate::observe::{DrillPod, Life};
use crate::plan::{Action, Draft};

/// After one that did not pass, unless the next one is due sooner: somebody may have put it right.
const AGAIN: SignedDuration = SignedDuration::from_hours(1);
/// A pod that has not started for so long is taken away.
const START_PATIENCE: SignedDuration = SignedDuration::from_mins(10);

/// How it stands with the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    Never,
    Passed(Box<Drill>),
    Failed(String),
    /// It says nothing about the backups; when the last one passed.
    Interrupted(String, Option<Timestamp>),
    Overdue(Timestamp),
}

pub fn plan(draft: &mut Draft<'_>, scope: &Scope<'_>, is_accepted: bool) {
    let about = about(scope);
    let progress = &mut draft.plan.progress.backup;
    // What was said of another bucket, or of an earlier incarnation's folder, is no word on this one.
    if progress
        .drill
        .as_ref()
        .is_some_and(|last| last.about != about)
    {
        (progress.drill, progress.verified) = (None, None);
    }
    let observed = draft.observed;
    match &observed.drill {
        Some(pod) => conclude(draft, pod, &about),
        None if is_accepted => begin(draft, scope, about),
        None => {}
    }
}

fn about(scope: &Scope<'_>) -> String {
    let lineage = scope.lineage();
    format!(
        "{} {}/{}",
        scope.about, lineage.cluster_id, lineage.incarnation
    )
}

/// What it says is recorded before its pod goes.
fn conclude(draft: &mut Draft<'_>, pod: &DrillPod, about: &str) {
    if pod.life == Life::Deleting {
        return;
    }
    if pod.about != about {
        return delete(draft, pod);
    }
    let Some(mut drill) = pod.end.clone().or_else(|| never_started(draft, pod)) else {
        return;
    };
    drill.message = drill.message.map(shortened);
    let progress = &mut draft.plan.progress.backup;
    if progress.drill.as_ref() == Some(&drill) {
        return delete(draft, pod);
    }
    if drill.outcome == DrillOutcome::Passed {
        progress.verified = Some(drill.ended_at.0);
    }
    progress.drill = Some(drill);
}

fn never_started(draft: &mut Draft<'_>, pod: &DrillPod) -> Option<Drill> {
    let words = pod.pending.as_ref()?;
    let patience = pod
        .created
        .checked_add(START_PATIENCE)
        .unwrap_or(Timestamp::MAX);
    if patience > draft.now {
        draft.wake_at(patience);
        return None;
    }
    Some(Drill {
        ended_at: Time(patience),
        about: pod.about.clone(),
        outcome: DrillOutcome::Interrupted,
        message: Some(format!("its pod did not start: {words}")),
        restorable: None,
        compared: None,
        gap: None,
    })
}

fn delete(draft: &mut Draft<'_>, pod: &DrillPod) {
    draft.act(Action::DeleteDrill {
        uid: pod.uid.clone(),
    });
}

fn begin(draft: &mut Draft<'_>, scope: &Scope<'_>, about: String) {
    let mut objects = draft.observed.backups.objects.values();
    if !objects.any(|backup| scope.is_here(backup)) || !open(draft).is_empty() {
        return;
    }
    let last = draft.plan.progress.backup.drill.clone();
    let due = last.map_or(draft.now, |last| {
        let pause = match last.outcome {
            DrillOutcome::Passed => every(scope),
            DrillOutcome::Failed | DrillOutcome::Interrupted => every(scope).min(AGAIN),
        };
        last.ended_at.0.checked_add(pause).unwrap_or(Timestamp::MAX)
    });
    match due <= draft.now {
        true => draft.act(Action::CreateDrill {
            about,
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
    let message = last.message.clone().unwrap_or_default();
    if last.outcome == DrillOutcome::Failed {
        return Verified::Failed(message);
    }
    let Some(passed) = passed else {
        return Verified::Interrupted(message, None);
    };
    let overdue = passed
        .checked_add(every(scope) * 2)
        .unwrap_or(Timestamp::MAX);
    if overdue <= draft.now {
        return Verified::Overdue(passed);
    }
    draft.wake_at(overdue);
    match last.outcome {
        DrillOutcome::Passed => Verified::Passed(Box::new(last)),
        DrillOutcome::Failed | DrillOutcome::Interrupted => {
            Verified::Interrupted(message, Some(passed))
        }
    }
}

/// Nothing is backed up any more.
pub fn unwanted(draft: &mut Draft<'_>) {
    let observed = draft.observed;
    if let Some(pod) = observed
        .drill
        .as_ref()
        .filter(|pod| pod.life == Life::Present)
    {
        delete(draft, pod);
    }
}
