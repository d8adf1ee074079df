//! Who should have a pod, from Raft's committed configuration and the operation in flight.

use std::collections::BTreeMap;

use crds::MemberId;
use crds::status::{Identity, OperationKind};

use super::Progress;
use crate::observe::{Leader, Membership};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    /// Counted by the budget; in the configuration, or a founder of the first one.
    Voter,
    Learner,
    /// Reserved by a scale-out or a replacement, in no configuration yet.
    Joining,
}

/// With a leader its configuration counts; without one the last that was recorded, because starting a
/// member that has left by now is harmless (it learns of its removal) and keeping a voter down is not.
pub fn roster(
    identity: &Identity,
    progress: &Progress,
    leader: Option<&Leader<'_>>,
) -> BTreeMap<MemberId, Seat> {
    let mut seats = BTreeMap::new();
    if !identity.initialized {
        seats.extend(
            identity
                .founders
                .iter()
                .map(|founder| (*founder, Seat::Voter)),
        );
        return seats;
    }
    if let Some(operation) = progress.operation.as_ref().filter(|operation| {
        matches!(
            operation.kind,
            OperationKind::ScaleOut | OperationKind::Replace
        )
    }) {
        seats.extend(
            operation
                .members
                .iter()
                .map(|member| (*member, Seat::Joining)),
        );
    }
    if let Some(operation) = progress
        .operation
        .as_ref()
        .filter(|operation| operation.kind == OperationKind::Adopt)
    {
        // Members of a configuration that may not have been committed start as well.
        seats.extend(
            operation
                .members
                .iter()
                .map(|member| (*member, Seat::Learner)),
        );
    }
    let membership = leader
        .map(|leader| leader.raft.membership.clone())
        .or_else(|| progress.membership.as_ref().map(Membership::from_status));
    match membership {
        Some(membership) => {
            seats.extend(
                membership
                    .learners
                    .iter()
                    .map(|member| (*member, Seat::Learner)),
            );
            seats.extend(
                membership
                    .outgoing
                    .iter()
                    .map(|member| (*member, Seat::Voter)),
            );
            seats.extend(
                membership
                    .voters
                    .iter()
                    .map(|member| (*member, Seat::Voter)),
            );
        }
        // Initialized, and nobody has reported the first configuration yet.
        None => seats.extend(
            identity
                .founders
                .iter()
                .map(|founder| (*founder, Seat::Voter)),
        ),
    }
    seats
}
