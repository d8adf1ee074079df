//! How new members come in, up to the joint change that makes them voters. A scale-out and a replacement
//! share these steps, and each has its own last one.
//!
//! ```text
//! Reserve ▶ CreateMembers ▶ AddLearners ▶ CatchUp ▶ counted by a closed budget
//! ```
//!
//! All of it can be taken back: learners are let go, and volumes of numbers that were used up are retired.

use crds::MemberId;
use crds::status::{Operation, Step};

use super::membership::guard;
use super::{Action, Draft, Waiting, bootstrap, budget};
use crate::observe::{Leader, Life};

/// What is left to do with the new members of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A step was taken, or waits.
    UnderWay,
    /// All are caught up, and the closed budget counts them.
    Complete,
}

/// One step further with the `count` new members of an operation, or one back when it is unwanted.
pub fn advance(
    draft: &mut Draft<'_>,
    leader: &Leader<'_>,
    operation: &Operation,
    count: usize,
    is_unwanted: bool,
) -> Arrival {
    let membership = &leader.raft.membership;
    if operation.members.is_empty() {
        draft.step(Step::Reserve);
        draft.act(Action::ReserveMembers {
            leader: leader.id,
            count: u32::try_from(count).unwrap_or(0),
        });
        return Arrival::UnderWay;
    }
    let outside: Vec<MemberId> = operation
        .members
        .iter()
        .copied()
        .filter(|member| !membership.contains(*member))
        .collect();
    // What was ordered is seen through: its guard tells a configuration that moved from one that did not.
    let is_ordered = operation.step == Step::AddLearners;
    if is_unwanted && (outside.is_empty() || !is_ordered) {
        // Recorded with the configuration that has them: no older word of a leader counts from then on.
        draft.step(Step::CatchUp);
        let members: Vec<MemberId> = membership.learners.iter().copied().collect();
        draft.act(Action::RemoveLearners {
            leader: leader.id,
            members,
            guard: guard(leader),
        });
        return Arrival::UnderWay;
    }
    if !outside.is_empty() {
        if !is_ordered {
            draft.step(Step::CreateMembers);
        }
        if is_unwanted || bootstrap::stamp(draft, &outside) {
            draft.step(Step::AddLearners);
            draft.act(Action::AddLearners {
                leader: leader.id,
                members: outside,
                guard: guard(leader),
            });
        }
        return Arrival::UnderWay;
    }
    let behind: Vec<MemberId> = operation
        .members
        .iter()
        .copied()
        .filter(|member| !leader.is_caught_up(*member))
        .collect();
    if !behind.is_empty() {
        draft.step(Step::CatchUp);
        draft.wait(Waiting::CatchUp { members: behind });
        return Arrival::UnderWay;
    }
    draft.step(Step::Promote);
    if are_counted(draft, operation) && budget::is_closed(draft) {
        Arrival::Complete
    } else {
        Arrival::UnderWay
    }
}

/// Whether the budget counts every new member; those that it does not are labelled.
fn are_counted(draft: &mut Draft<'_>, operation: &Operation) -> bool {
    let mut all = true;
    for member in &operation.members {
        let pod = draft
            .observed
            .pod_of(*member)
            .filter(|pod| pod.life == Life::Present);
        match pod {
            Some(pod) if pod.is_voter => {}
            Some(pod) => {
                all = false;
                draft.act(Action::MarkVoter {
                    member: *member,
                    version: pod.version.clone(),
                });
            }
            // It was caught up a moment ago; it comes back before it votes.
            None => all = false,
        }
    }
    all
}

/// Whether none of the new members has come into the configuration, so that nothing has to be undone there.
/// Once that step is recorded they may be learners of a configuration that nobody has reported yet.
pub fn never_joined(leader: &Leader<'_>, operation: &Operation) -> bool {
    let learners = &leader.raft.membership.learners;
    let has_learners = operation
        .members
        .iter()
        .any(|member| learners.contains(member));
    !has_learners && operation.step != Step::AddLearners
}

/// Whether one of the new members can never become a voter: it has left again, which never comes back under
/// its id; or it is itself lost for as long as a voter must be.
pub fn has_failed(draft: &mut Draft<'_>, leader: &Leader<'_>, operation: &Operation) -> bool {
    let had_joined = !matches!(
        operation.step,
        Step::Reserve | Step::CreateMembers | Step::AddLearners
    );
    let is_outside = |member: &MemberId| !leader.raft.membership.contains(*member);
    if had_joined && operation.members.iter().any(is_outside) {
        return true;
    }
    let mut is_lost = false;
    for member in &operation.members {
        is_lost |= draft.is_lost_for_good(leader, *member) || is_stuck(draft, leader, *member);
    }
    is_lost
}

/// Bound to a node from which nothing was heard until the operation was overdue. One that the scheduler or
/// the kubelet has words about is no better off on another volume.
fn is_stuck(draft: &Draft<'_>, leader: &Leader<'_>, member: MemberId) -> bool {
    let is_overdue = draft
        .operation()
        .and_then(|operation| operation.deadline.as_ref())
        .is_some_and(|deadline| deadline.0 <= draft.now);
    let is_bound = draft
        .observed
        .pod_of(member)
        .is_some_and(|pod| pod.node.is_some() && pod.trouble.is_none());
    let is_unheard = draft.observed.report_of(member).is_none();
    is_overdue && is_bound && is_unheard && !leader.raft.membership.contains(member)
}
