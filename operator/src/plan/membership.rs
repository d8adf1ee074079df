//! Changes of the members: learners first, then one joint change; who is removed leaves the configuration
//! first, then its volume is retired, then its pod goes.
//!
//! ```text
//! ScaleOut  Reserve ▶ CreateMembers ▶ AddLearners ▶ CatchUp ▶ Promote    the first four: joining
//! ScaleIn   CloseBudget ▶ HandOver ▶ Remove ▶ Retire
//! Replace   the steps of both around one joint change                    replacement
//! ```
//!
//! Membership truth is the leader's committed configuration; pods never edit it. Every operation can be
//! taken back until its joint change is issued. The wanted size comes before the health of its members: a
//! scale-in takes the lost first, and then there is nothing to replace.

use std::collections::BTreeSet;

use crds::MemberId;
use crds::status::{Identity, Operation, OperationKind, Step};

use super::action::Guard;
use super::joining::{self, Arrival};
use super::{Action, Draft, Waiting, budget, replacement, safety};
use crate::observe::{Leader, Life, VolumeState};

/// Starts, takes back or ends an operation, so that the roster of this pass is the one that is recorded.
pub fn plan(draft: &mut Draft<'_>, identity: &Identity) {
    let Some(leader) = steady_leader(draft, identity) else {
        return;
    };
    match draft.operation().cloned() {
        None => begin(draft, &leader),
        Some(operation) if operation.kind == OperationKind::ScaleOut => {
            review_out(draft, &leader, &operation)
        }
        Some(operation) if operation.kind == OperationKind::ScaleIn => {
            review_in(draft, &leader, &operation)
        }
        Some(operation) if operation.kind == OperationKind::Replace => {
            replacement::review(draft, &leader, &operation)
        }
        Some(_) => {}
    }
}

/// The next step of the operation in flight, after healing has asked for the pods it needs.
pub fn change(draft: &mut Draft<'_>, identity: &Identity) {
    let Some(leader) = steady_leader(draft, identity) else {
        if identity.initialized && draft.leader.is_none() {
            draft.wait(Waiting::Leader);
            replacement::explain_alone(draft);
        }
        return;
    };
    if leader.raft.membership.is_joint() {
        finish_joint(draft, &leader);
        return;
    }
    match draft.operation().cloned() {
        Some(operation) if operation.kind == OperationKind::ScaleOut => {
            scale_out(draft, &leader, &operation)
        }
        Some(operation) if operation.kind == OperationKind::ScaleIn => {
            scale_in(draft, &leader, &operation)
        }
        Some(operation) if operation.kind == OperationKind::Replace => {
            replacement::change(draft, &leader, &operation)
        }
        Some(_) => {}
        None => {
            drop_leftover_learners(draft, &leader);
            replacement::explain(draft, &leader);
        }
    }
}

fn steady_leader<'a>(draft: &Draft<'a>, identity: &Identity) -> Option<Leader<'a>> {
    draft.leader.filter(|_| identity.initialized)
}

pub fn guard(leader: &Leader<'_>) -> Guard {
    Guard {
        term: leader.raft.term,
        log_id: leader.raft.membership.log_id,
    }
}

fn begin(draft: &mut Draft<'_>, leader: &Leader<'_>) {
    let membership = &leader.raft.membership;
    if membership.is_joint() || !membership.learners.is_empty() {
        return;
    }
    let (wanted, have) = (draft.replicas(), membership.voters.len());
    if wanted > have {
        let id = unique(draft, scale_out_prefix(draft, leader));
        draft.begin(id, OperationKind::ScaleOut, Step::Reserve, Vec::new());
    } else if wanted < have {
        let is_lost = |member| draft.loss(leader, member).is_some();
        let victims = safety::victims(leader, draft.observed, have - wanted, is_lost);
        let remaining = without(&membership.voters, &victims);
        match safety::removal(leader, &remaining) {
            safety::Removal::Safe => {
                let id = unique(draft, format!("in-{have}-{wanted}-"));
                draft.begin(id, OperationKind::ScaleIn, Step::CloseBudget, victims);
            }
            safety::Removal::Unsafe { alive, needed } => {
                draft.wait(Waiting::QuorumForRemoval { alive, needed });
            }
        }
    } else {
        replacement::begin(draft, leader);
    }
}

fn review_out(draft: &mut Draft<'_>, leader: &Leader<'_>, operation: &Operation) {
    let membership = &leader.raft.membership;
    if membership.is_joint() {
        return;
    }
    let is_promoted = !operation.members.is_empty()
        && operation
            .members
            .iter()
            .all(|member| membership.voters.contains(member));
    if is_promoted
        || (is_unwanted(draft, leader, operation) && joining::never_joined(leader, operation))
    {
        // Volumes of members that never joined are retired as leftovers.
        draft.finish();
    }
}

/// Fewer members are wanted than it adds; or, before it reserved any, another number; or one of them failed.
fn is_unwanted(draft: &mut Draft<'_>, leader: &Leader<'_>, operation: &Operation) -> bool {
    if operation.members.is_empty() {
        return !operation.id.starts_with(&scale_out_prefix(draft, leader));
    }
    let voters = leader.raft.membership.voters.len();
    draft.replicas() < voters + operation.members.len()
        || joining::has_failed(draft, leader, operation)
}

/// From where to where, so that a reservation is always for the count that its id was made for.
fn scale_out_prefix(draft: &Draft<'_>, leader: &Leader<'_>) -> String {
    format!(
        "out-{}-{}-",
        leader.raft.membership.voters.len(),
        draft.replicas()
    )
}

/// Never the same twice: a scale-out that was taken back has used up its numbers.
pub fn unique(draft: &Draft<'_>, prefix: String) -> String {
    let generation = draft.cluster.metadata.generation.unwrap_or(0);
    format!("{prefix}{generation}-{}", draft.now.as_millisecond())
}

fn review_in(draft: &mut Draft<'_>, leader: &Leader<'_>, operation: &Operation) {
    let voters = &leader.raft.membership.voters;
    if leader.raft.membership.is_joint() {
        return;
    }
    let is_untouched = operation
        .members
        .iter()
        .all(|victim| voters.contains(victim));
    // One that was to remain has been lost since: others are chosen, the lost among them.
    let remaining = without(voters, &operation.members);
    let is_outdated = safety::removal(leader, &remaining) != safety::Removal::Safe;
    let is_unwanted = is_outdated || draft.replicas() + operation.members.len() != voters.len();
    let is_removed = operation
        .members
        .iter()
        .all(|victim| !voters.contains(victim));
    let is_over = is_removed
        && operation
            .members
            .iter()
            .all(|victim| is_gone(draft, *victim));
    if (is_untouched && is_unwanted) || is_over {
        draft.finish();
    }
}

/// Its volume can never start again, and its pod is gone or on its way.
pub fn is_gone(draft: &Draft<'_>, member: MemberId) -> bool {
    let is_retired = draft
        .observed
        .volume_of(member)
        .is_none_or(|volume| volume.state == VolumeState::Retired || volume.life == Life::Deleting);
    let has_no_pod = draft
        .observed
        .pod_of(member)
        .is_none_or(|pod| pod.life == Life::Deleting);
    is_retired && has_no_pod
}

fn scale_out(draft: &mut Draft<'_>, leader: &Leader<'_>, operation: &Operation) {
    let have = leader.raft.membership.voters.len();
    let count = draft.replicas().saturating_sub(have);
    let is_unwanted = is_unwanted(draft, leader, operation);
    if joining::advance(draft, leader, operation, count, is_unwanted) == Arrival::Complete {
        let mut voters = leader.raft.membership.voters.clone();
        voters.extend(&operation.members);
        draft.act(Action::SetVoters {
            leader: leader.id,
            voters,
            guard: guard(leader),
        });
    }
}

fn scale_in(draft: &mut Draft<'_>, leader: &Leader<'_>, operation: &Operation) {
    let voters = &leader.raft.membership.voters;
    let staying: Vec<MemberId> = operation
        .members
        .iter()
        .copied()
        .filter(|victim| voters.contains(victim))
        .collect();
    if staying.is_empty() {
        // Retirement does the rest.
        draft.step(Step::Retire);
        return;
    }
    let remaining = without(voters, &staying);
    if let safety::Removal::Unsafe { alive, needed } = safety::removal(leader, &remaining) {
        draft.wait(Waiting::QuorumForRemoval { alive, needed });
        return;
    }
    if !budget::is_closed(draft) {
        draft.step(Step::CloseBudget);
        return;
    }
    if staying.contains(&leader.id) {
        hand_over(draft, leader, &remaining);
        return;
    }
    draft.step(Step::Remove);
    draft.act(Action::SetVoters {
        leader: leader.id,
        voters: remaining,
        guard: guard(leader),
    });
}

/// A leader hands over to another of these voters before it goes.
pub fn hand_over(draft: &mut Draft<'_>, leader: &Leader<'_>, remaining: &BTreeSet<MemberId>) {
    draft.step(Step::HandOver);
    match safety::successor(leader, remaining, draft.observed) {
        Some(to) => {
            draft.wait(Waiting::HandOver {
                from: leader.id,
                to,
            });
            draft.act(Action::TransferLeader {
                leader: leader.id,
                to,
                term: leader.raft.term,
            });
        }
        None => draft.wait(Waiting::NoSuccessor { leader: leader.id }),
    }
}

/// Two configurations in force, because a leader was lost between the two steps of a change: the same
/// change is asked for again, which Raft finishes.
fn finish_joint(draft: &mut Draft<'_>, leader: &Leader<'_>) {
    draft.wait(Waiting::JointConfiguration);
    if budget::is_closed(draft) {
        draft.act(Action::SetVoters {
            leader: leader.id,
            voters: leader.raft.membership.voters.clone(),
            guard: guard(leader),
        });
    }
}

/// Learners that no operation claims, because status was lost: they are let go and begun again.
fn drop_leftover_learners(draft: &mut Draft<'_>, leader: &Leader<'_>) {
    let members: Vec<MemberId> = leader.raft.membership.learners.iter().copied().collect();
    if !members.is_empty() {
        draft.act(Action::RemoveLearners {
            leader: leader.id,
            members,
            guard: guard(leader),
        });
    }
}

pub fn without(voters: &BTreeSet<MemberId>, victims: &[MemberId]) -> BTreeSet<MemberId> {
    voters
        .iter()
        .copied()
        .filter(|voter| !victims.contains(voter))
        .collect()
}
