//! Going on after a majority of voters is lost. Nothing of it happens without the user.
//!
//! ```text
//! no leader, no quorum answers ─▶ offer: survivors, loss, nonce     the nonce is of exactly these survivors
//! spec.recovery.acknowledge    ─▶ StopMembers ▶ Rewrite ▶ Start     then a scale-out like any other
//! ```
//!
//! Until the first pod is deleted, a leader, another survivor or another log end voids the nonce. A new
//! incarnation is recorded once every pod of the lost one is gone, or the user has accepted that nobody can
//! confirm it; from then on no member of the lost one gets a pod, and their volumes are retired.

use crds::MemberId;
use crds::status::{Identity, Membership, Operation, OperationKind, Step};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::action::PodEnd;
use super::survivors::{Assessed, OFFER_AFTER, assess, reaches};
use super::{Action, Draft, Seat, Waiting, healing};
use crate::observe::{Life, Phase, Start, VolumeState};

/// True while nothing else may be planned.
pub fn plan(draft: &mut Draft<'_>, identity: &Identity) -> bool {
    let operation = draft.operation().cloned();
    let Some(operation) = operation.filter(|known| known.kind == OperationKind::Recover) else {
        return offer(draft, identity);
    };
    let (Some(new), Some(source)) = (operation.members.first().copied(), operation.replaces) else {
        draft.finish();
        return true;
    };
    match operation.step {
        Step::StopMembers => stop(draft, identity, &operation, new, source),
        Step::Rewrite => rewrite(draft, identity, new, source),
        _ => return false,
    }
    true
}

/// Says what is left, and begins when the user has acknowledged exactly that.
fn offer(draft: &mut Draft<'_>, identity: &Identity) -> bool {
    let offer = match assess(draft, identity) {
        Assessed::Quorate => {
            draft.plan.progress.recovery = None;
            return false;
        }
        // What was said of them stays until they, or a leader, say otherwise.
        Assessed::Unheard => return false,
        Assessed::Lost(offer) => offer,
    };
    draft.plan.progress.recovery = Some(offer.clone());
    let (Some(nonce), Some(source)) = (offer.nonce, offer.source) else {
        wake_for_offer(draft, &offer.since);
        return false;
    };
    let given = draft.cluster.spec.recovery.acknowledge.clone();
    if given.as_ref() != Some(&nonce) {
        draft.wait(Waiting::Acknowledgement {
            source,
            nonce,
            void: given,
        });
        return false;
    }
    let new = draft.next_member(identity.incarnation);
    let id = format!("recover-{}-{nonce}", new.incarnation());
    draft.begin(id, OperationKind::Recover, Step::StopMembers, vec![new]);
    if let Some(operation) = draft.plan.progress.operation.as_mut() {
        operation.replaces = Some(source);
    }
    true
}

fn wake_for_offer(draft: &mut Draft<'_>, since: &Time) {
    if let Ok(at) = since.0.checked_add(OFFER_AFTER)
        && at > draft.now
    {
        draft.wake_at(at);
    }
}

/// Every pod goes, and its end is waited for.
fn stop(
    draft: &mut Draft<'_>,
    identity: &Identity,
    operation: &Operation,
    new: MemberId,
    source: MemberId,
) {
    let observed = draft.observed;
    let offer = draft.recorded.recovery.clone();
    let survivors = offer
        .as_ref()
        .map_or(Vec::new(), |known| known.survivors.clone());
    let nonce = offer.and_then(|known| known.nonce);
    let recovery = &draft.cluster.spec.recovery;
    let is_there = observed.volume_of(source).is_some_and(|volume| {
        draft.is_the_one(volume)
            && volume.life == Life::Present
            && volume.state != VolumeState::Retired
    });
    if draft.leader.is_some() || recovery.acknowledge != nonce || nonce.is_none() || !is_there {
        draft.finish();
        return;
    }
    let runs = |member: MemberId| {
        let pod = observed.pod_of(member);
        pod.is_some_and(|pod| pod.life == Life::Present)
    };
    let is_untouched = survivors.iter().all(|survivor| runs(survivor.id));
    let is_as_shown = match is_untouched {
        true => matches!(assess(draft, identity), Assessed::Lost(now) if now.nonce == nonce),
        // Whoever took a pod away: who still answers was shown, and as it is.
        false => reaches(observed, identity).all(|(member, reach)| {
            let shown = survivors.iter().find(|survivor| survivor.id == member);
            shown.is_some_and(|shown| shown.last_log == reach.last)
        }),
    };
    if !is_as_shown {
        draft.finish();
        return;
    }
    if is_untouched {
        draft.act(Action::ConfirmLoss { survivors });
    }
    if are_gone(draft, new, source) {
        raise(draft, identity, operation, new);
    }
}

/// Pods of the lost incarnation are told to end; true when none is left, but those that the user has accepted.
fn are_gone(draft: &mut Draft<'_>, new: MemberId, source: MemberId) -> bool {
    let accepted = &draft.cluster.spec.recovery.accept_unconfirmed;
    let pods = draft.observed.pods.values();
    let (present, going): (Vec<_>, Vec<_>) = pods
        .filter(|pod| pod.member.incarnation() < new.incarnation())
        .partition(|pod| pod.life == Life::Present);
    let unconfirmed: Vec<MemberId> = going
        .into_iter()
        .map(|pod| pod.member)
        .filter(|member| *member == source || !accepted.contains(member))
        .collect();
    let is_done = present.is_empty() && unconfirmed.is_empty();
    for pod in present {
        draft.act(Action::DeletePod {
            member: pod.member,
            uid: pod.uid.clone(),
            why: PodEnd::MajorityLost,
        });
    }
    if !unconfirmed.is_empty() {
        draft.wait(Waiting::Unconfirmed {
            members: unconfirmed,
            source,
        });
    }
    is_done
}

/// From here on the lost incarnation is history.
fn raise(draft: &mut Draft<'_>, identity: &Identity, operation: &Operation, new: MemberId) {
    draft.plan.progress.identity = Some(Identity {
        cluster_id: identity.cluster_id.clone(),
        incarnation: new.incarnation(),
        founders: operation.members.clone(),
        initialized: true,
    });
    draft.plan.progress.membership = Some(Membership {
        voters: operation.members.clone(),
        ..Membership::default()
    });
    draft.step(Step::Rewrite);
}

/// The survivor's volume becomes that of the only voter. All others are retired once it is: until then another
/// survivor's may be all that is left.
fn rewrite(draft: &mut Draft<'_>, identity: &Identity, new: MemberId, source: MemberId) {
    let observed = draft.observed;
    // An operator that was slow may have made one again.
    if !are_gone(draft, new, source) {
        return;
    }
    if observed.volume_of(new).is_none() {
        match observed.volume_of(source) {
            Some(volume) => draft.act(Action::HandVolume {
                from: source,
                to: new,
                version: volume.version.clone(),
            }),
            None => draft.wait(Waiting::VolumeLost { member: source }),
        }
        return;
    }
    healing::certificate(draft, new);
    healing::pod(draft, new, Start::Rewrite { from: source }, Seat::Voter);
    match observed.report_of(new) {
        Some(report) if report.phase == Phase::Damaged => draft.wait(Waiting::Damaged {
            member: new,
            what: report.damage.clone(),
        }),
        Some(report) if report.begins_alone(new) => {
            if retire_others(draft, identity, new) {
                draft.step(Step::Start);
            }
        }
        _ => draft.wait(Waiting::Rewrite { from: source }),
    }
}

/// True when none is left to retire.
fn retire_others(draft: &mut Draft<'_>, identity: &Identity, new: MemberId) -> bool {
    let others = draft.observed.volumes.values().filter(|volume| {
        volume.member.incarnation() < new.incarnation()
            && volume.cluster_id == identity.cluster_id
            && volume.life == Life::Present
            && volume.state != VolumeState::Retired
    });
    let others: Vec<_> = others.collect();
    for volume in &others {
        draft.act(Action::RetireVolume {
            member: volume.member,
            version: volume.version.clone(),
        });
    }
    others.is_empty()
}
