//! The disruption budget, computed from Raft and never from the spec: one voter may be evicted while all
//! are alive and nothing runs, and none otherwise.
//!
//! `maxUnavailable` would take the expected count from the spec: after an edit from 5 to 3 it grants three
//! evictions while Raft still has five voters.
//!
//! A closed budget is only ever closed further, and opens when its own status counts no more healthy pods
//! than there are voters. The pod of a removed member keeps its label to its end: its deletion takes it out
//! of the healthy count and makes the budget be computed anew. Taking the label off first would do neither,
//! because a pod without it belongs to no budget, and an old count would grant evictions of the voters.

use crds::MemberId;
use crds::status::Identity;

use super::{Action, Draft, Seat, Waiting, roster};
use crate::observe::{Drift, Owner, PodPhase};

pub fn plan(draft: &mut Draft<'_>, identity: &Identity) {
    let wanted = wanted(draft, identity);
    let observed = draft.observed.budget.as_ref();
    match (wanted, observed) {
        (None, None) => {}
        (None, Some(budget)) => draft.act(Action::DeleteBudget {
            uid: budget.object.uid.clone(),
        }),
        (Some(min_available), None) => draft.act(Action::CreateBudget { min_available }),
        (Some(_), Some(budget)) if budget.object.owner == Owner::Other => {
            draft.wait(Waiting::EarlierObjects {
                names: vec!["disruption budget".into()],
            });
        }
        (Some(min_available), Some(budget)) => {
            let is_as_wanted = budget.min_available == min_available
                && budget.object.drift == Drift::None
                && budget.object.owner == Owner::Ours;
            if !is_as_wanted {
                let version = budget.object.version.clone();
                draft.act(Action::SetBudget {
                    min_available,
                    version,
                });
            }
        }
    }
}

/// The integer `minAvailable`, or none for a single voter, which has no quorum to protect.
fn wanted(draft: &mut Draft<'_>, identity: &Identity) -> Option<u32> {
    let seats = roster(identity, &draft.plan.progress, draft.leader.as_ref());
    let voters: Vec<MemberId> = seats
        .iter()
        .filter(|(_, seat)| **seat == Seat::Voter)
        .map(|(member, _)| *member)
        .collect();
    if seats.len().max(draft.replicas()) <= 1 {
        return None;
    }
    let as_count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let known = draft.observed.budget.as_ref();
    let counted = draft.observed.pods_counted();
    let closed = as_count(counted.max(seats.len()).max(draft.replicas()))
        .max(known.map_or(0, |known| known.min_available));
    if draft.operation().is_some() || !identity.initialized {
        return Some(closed);
    }
    let Some(leader) = draft
        .leader
        .filter(|leader| !leader.raft.membership.is_joint())
    else {
        return Some(closed);
    };
    let down: Vec<MemberId> = voters
        .iter()
        .copied()
        .filter(|voter| !leader.is_alive(*voter) || !is_running(draft, *voter))
        .collect();
    if !down.is_empty() {
        draft.wait(Waiting::VotersDown { members: down });
        return Some(closed);
    }
    let open = as_count(voters.len().saturating_sub(1));
    match known {
        Some(known)
            if open > 0 && (known.min_available <= open || known.has_settled(voters.len())) =>
        {
            Some(open)
        }
        Some(_) if open > 0 => {
            draft.wait(Waiting::Budget);
            Some(closed)
        }
        _ => Some(closed),
    }
}

/// A pod on its way out counts as down before Raft notices. One whose member is fenced is never Ready, so that
/// the budget grants no eviction beside it, and votes.
fn is_running(draft: &Draft<'_>, member: MemberId) -> bool {
    draft.observed.pod_of(member).is_some_and(|pod| {
        pod.life == crate::observe::Life::Present
            && pod.phase == PodPhase::Running
            && (pod.ready || draft.observed.was_fenced(member))
            && pod.is_voter
    })
}

/// Whether no eviction can be granted any more and none is under way; if not, why we wait.
pub fn is_closed(draft: &mut Draft<'_>) -> bool {
    let counted = draft.observed.pods_counted();
    match draft.observed.budget.as_ref() {
        Some(budget) if budget.is_closed_for_certain(counted) => true,
        Some(budget) if budget.disrupted > 0 => {
            draft.wait(Waiting::Evictions);
            false
        }
        _ => {
            draft.wait(Waiting::Budget);
            false
        }
    }
}
