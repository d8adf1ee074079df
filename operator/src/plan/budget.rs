//! The disruption budget, computed from Raft and never from the spec: one voter may be evicted while all
//! are alive and nothing runs, and none otherwise.
//!
//! `maxUnavailable` would take the expected count from the spec: after an edit from 5 to 3 it grants three
//! evictions while Raft still has five voters.

use crds::MemberId;
use crds::status::Identity;

use super::{Action, Draft, Seat, Waiting, roster};
use crate::observe::{Owner, PodPhase};

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
            if budget.min_available != min_available {
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
    let closed = as_count(counted(draft).max(seats.len()).max(draft.replicas()));
    if draft.operation().is_some() || !identity.initialized {
        return Some(closed);
    }
    let Some(leader) = draft.leader else {
        return Some(closed);
    };
    let down: Vec<MemberId> = voters
        .iter()
        .copied()
        .filter(|voter| !leader.is_alive(*voter) || !is_running(draft, *voter))
        .collect();
    if down.is_empty() && voters.len() > 1 {
        Some(as_count(voters.len() - 1))
    } else {
        if !down.is_empty() {
            draft.wait(Waiting::VotersDown { members: down });
        }
        Some(closed)
    }
}

/// A pod on its way out counts as down before Raft notices.
fn is_running(draft: &Draft<'_>, member: MemberId) -> bool {
    draft.observed.pod_of(member).is_some_and(|pod| {
        pod.life == crate::observe::Life::Present
            && pod.phase == PodPhase::Running
            && pod.ready
            && pod.is_voter
    })
}

fn counted(draft: &Draft<'_>) -> usize {
    draft
        .observed
        .pods
        .values()
        .filter(|pod| pod.is_voter)
        .count()
}

/// Whether no eviction can be granted any more and none is under way; if not, why we wait.
pub fn is_closed(draft: &mut Draft<'_>) -> bool {
    let counted = counted(draft);
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
