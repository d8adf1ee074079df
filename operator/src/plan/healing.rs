//! Every member of the roster has its certificate, its one volume and a running pod.
//!
//! A pod that ended is deleted by UID and made again with the same volume and identity. A volume is made
//! only for a member that never had one: a missing volume of a member that may have voted is lost, and its
//! id is never given to an empty disk.

use crds::MemberId;
use crds::status::{Identity, Step};
use jiff::SignedDuration;

use super::action::PodEnd;
use super::objects::must_issue;
use super::{Action, Draft, Loss, Seat, Waiting, loss, rollout, roster};
use crate::observe::{Life, Owner, Pod, PodPhase, Start, Trouble};

/// A pod that ended sooner after its creation than this is made again only then, so that a node that
/// refuses it at once does not get one pod after the other.
const POD_PAUSE: SignedDuration = SignedDuration::from_secs(5);

pub fn plan(draft: &mut Draft<'_>, identity: &Identity) {
    let seats = roster(identity, &draft.plan.progress, draft.leader.as_ref());
    let startable: Vec<(MemberId, Seat)> = seats
        .into_iter()
        .filter(|(member, seat)| has_volume(draft, identity, *member, *seat))
        .collect();
    // Alike actions stand together, because those run side by side.
    for (member, _) in &startable {
        certificate(draft, *member);
    }
    for (member, seat) in startable {
        pod(draft, member, Start::Serve, seat);
    }
}

/// Whether the member's volume is there to start on; if not, it is made or missed.
fn has_volume(draft: &mut Draft<'_>, identity: &Identity, member: MemberId, seat: Seat) -> bool {
    if draft.observed.volume_of(member).is_none() {
        if is_first(draft, identity, member, seat) {
            draft.act(Action::CreateVolume { member });
        } else {
            draft.wait(Waiting::VolumeLost { member });
        }
        return false;
    }
    match loss::volume(draft.observed, member, draft.recorded_volume(member)) {
        Some(Loss::VolumeRetired) => {
            draft.wait(Waiting::VolumeRetired { member });
            return false;
        }
        Some(_) => {
            draft.wait(Waiting::VolumeLost { member });
            return false;
        }
        None => {}
    }
    let was_formatted = identity.initialized && seat != Seat::Joining;
    if was_formatted && loss::disk(draft.observed, member) == Some(Loss::Emptied) {
        draft.wait(Waiting::VolumeLost { member });
    }
    true
}

/// Whether a member can never have had a volume. A founder may have voted from the moment that `initialize`
/// was about to be called, whether or not anybody was left to record how that ended.
fn is_first(draft: &Draft<'_>, identity: &Identity, member: MemberId, seat: Seat) -> bool {
    let may_have_voted = identity.initialized || draft.is_step(Step::Initialize);
    draft.recorded_volume(member).is_none() && (!may_have_voted || seat == Seat::Joining)
}

/// Read again before a pod is made, even when known: a Secret that somebody deleted would keep it from
/// starting.
pub fn certificate(draft: &mut Draft<'_>, member: MemberId) {
    let expires = draft
        .observed
        .credentials
        .member_expires
        .get(&member)
        .copied();
    let is_due = must_issue(draft, expires);
    if is_due || draft.observed.pod_of(member).is_none() {
        draft.act(Action::EnsureCertificate { member });
    }
}

/// One pod in the wanted start mode. Pods of all members are made at once, none waits for another.
pub fn pod(draft: &mut Draft<'_>, member: MemberId, start: Start, seat: Seat) {
    let (observed, is_voter) = (draft.observed, seat == Seat::Voter);
    let Some(volume) = observed.volume_of(member) else {
        return;
    };
    let Some(pod) = observed.pod_of(member) else {
        draft.act(Action::CreatePod {
            member,
            volume_uid: volume.uid.clone(),
            start,
            is_voter,
        });
        draft.wait(Waiting::PodsStarting {
            members: vec![member],
            trouble: None,
        });
        return;
    };
    if pod.life == Life::Deleting || pod.owner == Owner::Other {
        draft.wait(Waiting::PodsGone {
            members: vec![member],
        });
        return;
    }
    let is_through = match pod.start {
        Start::Inspect => Some(PodEnd::Inspected),
        Start::Rewrite { .. } | Start::Restore => Some(PodEnd::Rewritten),
        Start::Serve => None,
    };
    if let Some(why) = is_through.filter(|_| start == Start::Serve) {
        draft.act(Action::DeletePod {
            member,
            uid: pod.uid.clone(),
            why,
        });
        return;
    }
    if pod.phase == PodPhase::Ended {
        clear(draft, pod);
        return;
    }
    if rollout::correct(draft, pod, seat) {
        draft.wait(Waiting::PodsStarting {
            members: vec![member],
            trouble: None,
        });
        return;
    }
    if is_voter && !pod.is_voter {
        draft.act(Action::MarkVoter {
            member,
            version: pod.version.clone(),
        });
    }
    match &pod.trouble {
        Some(Trouble::Unschedulable(words)) => {
            draft.wait(Waiting::Unschedulable {
                members: vec![member],
                trouble: words.clone(),
            });
        }
        Some(Trouble::Container(words)) => {
            draft.wait(Waiting::PodsStarting {
                members: vec![member],
                trouble: Some(words.clone()),
            });
        }
        None if pod.phase == PodPhase::Pending => {
            draft.wait(Waiting::PodsStarting {
                members: vec![member],
                trouble: None,
            });
        }
        None => {}
    }
}

/// Takes away a pod that ended and only holds its name.
pub fn clear(draft: &mut Draft<'_>, pod: &Pod) {
    let due = pod.created.checked_add(POD_PAUSE).unwrap_or(draft.now);
    if due > draft.now {
        draft.wake_at(due);
        draft.wait(Waiting::FailedPodPause { member: pod.member });
    } else {
        draft.act(Action::DeletePod {
            member: pod.member,
            uid: pod.uid.clone(),
            why: PodEnd::Ended,
        });
    }
}
