//! A cluster that begins with what a bucket holds, as a TaskStoreRestore has ordered it.
//!
//! ```text
//! Fill ─▶ Start     one volume is filled, offline, and belongs to the only voter; then a scale-out like any other
//! ```
//!
//! The incarnation is above that of the store that was backed up, so tokens and revisions go on above its own.
//! The member that fills its volume touches it last of all: as long as it reports a blank disk, nothing has
//! begun. A cluster whose TaskStoreRestore is gone waits; it never begins empty instead.

use crds::MemberId;
use crds::status::{Identity, Membership, OperationKind, Step};
use jiff::SignedDuration;

use super::action::PodEnd;
use super::{Action, Draft, Seat, Waiting, healing};
use crate::observe::{Filled, Life, Phase, Report, Restore, RestoreOrder, Start, VolumeState};

/// Nothing tells us that the TaskStoreRestore has changed.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(5);

/// Decides who the cluster is.
pub fn begin(draft: &mut Draft<'_>) {
    let Some(order) = ordered(draft) else {
        return;
    };
    let first = draft.next_member(order.source.lineage.incarnation);
    let cluster_id = draft.cluster.metadata.uid.clone().unwrap_or_default();
    record(draft, cluster_id, first);
}

/// The same again after status was lost: its volume says who it was to be. One that an earlier cluster of this name
/// has left behind says nothing.
pub fn resume(draft: &mut Draft<'_>, cluster_id: String, first: MemberId) {
    let is_own = draft.cluster.metadata.uid.as_ref() == Some(&cluster_id);
    let is_above = match &draft.observed.restore {
        Some(Restore::Ordered(order)) => first.incarnation() > order.source.lineage.incarnation,
        _ => true,
    };
    match is_own && is_above {
        true => record(draft, cluster_id, first),
        false => begin(draft),
    }
}

fn record(draft: &mut Draft<'_>, cluster_id: String, first: MemberId) {
    let incarnation = first.incarnation();
    let founders = vec![first];
    draft.begin(
        format!("restore-{incarnation}"),
        OperationKind::Restore,
        Step::Fill,
        founders.clone(),
    );
    draft.plan.progress.membership = Some(Membership {
        voters: founders.clone(),
        ..Membership::default()
    });
    draft.plan.progress.identity = Some(Identity {
        cluster_id,
        incarnation,
        founders,
        initialized: true,
    });
}

fn ordered<'a>(draft: &mut Draft<'a>) -> Option<&'a RestoreOrder> {
    let observed = draft.observed;
    if let Some(Restore::Ordered(order)) = &observed.restore {
        return Some(order);
    }
    let has_ended = observed.restore == Some(Restore::Ended);
    draft.wait(Waiting::RestoreOrder {
        name: draft.cluster.spec.restored_by.clone().unwrap_or_default(),
        has_ended,
    });
    if let Ok(at) = draft.now.checked_add(LOOK_AGAIN)
        && !has_ended
    {
        draft.wake_at(at);
    }
    None
}

/// True while nothing else may be planned.
pub fn plan(draft: &mut Draft<'_>, identity: &Identity) -> bool {
    if !draft.is_operation(OperationKind::Restore) || !draft.is_step(Step::Fill) {
        return false;
    }
    if let Some(first) = identity.founders.first() {
        fill(draft, *first);
    }
    true
}

fn fill(draft: &mut Draft<'_>, first: MemberId) {
    let observed = draft.observed;
    let Some(volume) = observed.volume_of(first) else {
        match draft.recorded_volume(first) {
            None => draft.act(Action::CreateVolume { member: first }),
            Some(_) => draft.wait(Waiting::VolumeLost { member: first }),
        }
        return;
    };
    if !draft.is_the_one(volume) || volume.state == VolumeState::Retired {
        draft.wait(Waiting::VolumeLost { member: first });
        return;
    }
    // A pod that is there has its order.
    if observed.pod_of(first).is_none() && ordered(draft).is_none() {
        return;
    }
    healing::certificate(draft, first);
    healing::pod(draft, first, Start::Restore, Seat::Voter);
    let Some(report) = observed.report_of(first) else {
        return;
    };
    if report.phase == Phase::Damaged {
        draft.wait(Waiting::Damaged {
            member: first,
            what: report.damage.clone(),
        });
        return;
    }
    if !report.begins_alone(first) {
        if observed.restore == Some(Restore::Ended) {
            // Or the next start of its container might find what this one did not.
            give_up(draft, first);
            return;
        }
        draft.wait(Waiting::Restore {
            member: first,
            filled: report.filled.clone(),
        });
        return;
    }
    note(draft, report);
    match volume.state {
        VolumeState::Unformatted => draft.act(Action::MarkFormatted {
            member: first,
            version: volume.version.clone(),
        }),
        _ => draft.step(Step::Start),
    }
}

fn give_up(draft: &mut Draft<'_>, first: MemberId) {
    let pod = draft.observed.pod_of(first);
    if let Some(pod) = pod.filter(|pod| pod.life == Life::Present) {
        draft.act(Action::DeletePod {
            member: first,
            uid: pod.uid.clone(),
            why: PodEnd::GivenUp,
        });
    }
    ordered(draft);
}

fn note(draft: &mut Draft<'_>, report: &Report) {
    if let Some(Filled::Done(restored)) = &report.filled {
        draft.plan.progress.restored = Some((**restored).clone());
    }
}
