//! Guarded membership changes: the one verb through which the members of a cluster change.
//!
//! A change is refused unless the membership log id and the term it was decided on still hold, learners
//! included (openraft's own `add_learner` is not guarded). It answers with a committed, uniform
//! configuration, or says that it is still joint; a change repeated on a lingering joint configuration,
//! with that one's log id, finishes it.

use std::collections::{BTreeMap, BTreeSet};

use openraft::errors::{ClientWriteError, RaftError};
use openraft::storage::RaftStateMachine;
use openraft::vote::RaftLeaderId;
use openraft::vote::leader_id_std::LeaderId;
use openraft::{ChangeMembers, Precondition, Raft};

use crate::storage::types::{LogId, MemberName, Membership, StoredMembership, TypeConfig};

type C = TypeConfig;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    AddLearners(BTreeMap<u64, MemberName>),
    /// The complete new voter set, in one joint change. Voters that go are removed as members too.
    SetVoters(BTreeSet<u64>),
    RemoveLearners(BTreeSet<u64>),
}

/// The version of the world a change was decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    pub membership: Option<LogId>,
    pub term: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// Committed and uniform: the change is done.
    Uniform(StoredMembership),
    /// The first half is written; repeat the change with this log id to finish it.
    Joint(StoredMembership),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Nothing was appended.
    #[error("this member does not lead; the leader is {leader:?}")]
    NotLeader { leader: Option<u64> },
    /// Nothing was appended.
    #[error("decided on an older version of the world: {0}")]
    Outdated(String),
    /// Nothing was appended: the change itself makes no sense, or another one is not committed yet.
    #[error("refused: {0}")]
    Refused(String),
    /// Certainty was lost after an append.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
}

/// Changes the membership, on the leader.
pub async fn change<SM: RaftStateMachine<C>>(
    raft: &Raft<C, SM>,
    change: Change,
    guard: Guard,
) -> Result<Changed, ChangeError> {
    let before = effective(raft).await?;
    if done_already(&change, before.membership()) && *before.log_id() == guard.membership {
        return settled(raft, before, guard).await;
    }
    if let Err(reason) = check(&change, before.membership()) {
        // It may have made sense in the world that it was decided on.
        return Err(match *before.log_id() == guard.membership {
            true => ChangeError::Refused(reason),
            false => ChangeError::Outdated(reason),
        });
    }
    let members = match change.clone() {
        Change::AddLearners(learners) => ChangeMembers::AddNodes(learners),
        Change::SetVoters(voters) => ChangeMembers::ReplaceAllVoters(voters),
        Change::RemoveLearners(learners) => ChangeMembers::RemoveNodes(learners),
    };
    match raft
        .change_membership_if(members, false, preconditions(guard))
        .await
    {
        Ok(written) => {
            let membership = written.membership.ok_or_else(|| {
                ChangeError::Unknown("the entry that was written holds no membership".into())
            })?;
            Ok(shape(StoredMembership::new(
                Some(written.log_id),
                membership,
            )))
        }
        Err(error) => failed(raft, error, &change, guard).await,
    }
}

fn preconditions(guard: Guard) -> [Precondition<C>; 2] {
    [
        Precondition::LastMembershipLogId {
            last_membership_log_id: guard.membership,
        },
        Precondition::CommittedLeaderId {
            committed_leader_id: LeaderId::new(guard.term, 0).to_committed(),
        },
    ]
}

async fn effective<SM: RaftStateMachine<C>>(
    raft: &Raft<C, SM>,
) -> Result<StoredMembership, ChangeError> {
    raft.with_raft_state(|state| StoredMembership::clone(state.membership_state.effective()))
        .await
        .map_err(|e| ChangeError::Unknown(e.to_string()))
}

/// The world is already as asked.
fn done_already(change: &Change, membership: &Membership) -> bool {
    if membership.get_joint_config().len() != 1 {
        return false;
    }
    match change {
        Change::AddLearners(learners) => learners
            .iter()
            .all(|(id, name)| membership.get_node(id) == Some(name)),
        Change::SetVoters(voters) => membership.voter_ids().eq(voters.iter().copied()),
        Change::RemoveLearners(ids) => ids.iter().all(|id| membership.get_node(id).is_none()),
    }
}

/// What openraft would take in silence, or refuse in words that help nobody.
fn check(change: &Change, membership: &Membership) -> Result<(), String> {
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    match change {
        Change::AddLearners(learners) => match learners
            .iter()
            .find(|(id, name)| membership.get_node(id).is_some_and(|known| known != *name))
        {
            Some((id, name)) => Err(format!(
                "member {id} is known under another name than {name}"
            )),
            None => Ok(()),
        },
        Change::SetVoters(set) if set.is_empty() => Err("a cluster needs a voter".into()),
        Change::SetVoters(set) => match set.iter().find(|id| membership.get_node(id).is_none()) {
            Some(id) => Err(format!("{id} is no member: add it as a learner first")),
            None => Ok(()),
        },
        Change::RemoveLearners(ids) => match ids.iter().find(|id| voters.contains(id)) {
            Some(id) => Err(format!("{id} is a voter: set the voters without it")),
            None => Ok(()),
        },
    }
}

fn shape(stored: StoredMembership) -> Changed {
    match stored.membership().get_joint_config().len() {
        1 => Changed::Uniform(stored),
        _ => Changed::Joint(stored),
    }
}

/// Answers for a membership that needs no change, once it is committed under this leader.
async fn settled<SM: RaftStateMachine<C>>(
    raft: &Raft<C, SM>,
    membership: StoredMembership,
    guard: Guard,
) -> Result<Changed, ChangeError> {
    let leads = raft.as_leader().map_err(|forward| ChangeError::NotLeader {
        leader: forward.leader_id,
    })?;
    if leads.term() != guard.term {
        return Err(ChangeError::Outdated(format!(
            "the term is {}, not {}",
            leads.term(),
            guard.term
        )));
    }
    raft.ensure_linearizable(openraft::ReadPolicy::ReadIndex)
        .await
        .map_err(|e| ChangeError::Unknown(e.to_string()))?;
    let committed = raft
        .with_raft_state(|state| state.membership_state.committed().log_id().to_owned())
        .await
        .map_err(|e| ChangeError::Unknown(e.to_string()))?;
    if committed >= *membership.log_id() {
        return Ok(shape(membership));
    }
    Err(ChangeError::Refused(
        "the last membership is not committed yet".into(),
    ))
}

async fn failed<SM: RaftStateMachine<C>>(
    raft: &Raft<C, SM>,
    error: RaftError<C, ClientWriteError<C>>,
    change: &Change,
    guard: Guard,
) -> Result<Changed, ChangeError> {
    let error = match error {
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(forward)) => {
            return Err(ChangeError::Unknown(format!(
                "the leader changed: {forward}"
            )));
        }
        RaftError::APIError(error) => error,
        RaftError::Fatal(fatal) => return Err(ChangeError::Unknown(fatal.to_string())),
    };
    // The second half of a joint change fails with the same errors as the first, but the first is written.
    let now = effective(raft).await?;
    if *now.log_id() > guard.membership && is_half_way(change, now.membership()) {
        return Ok(Changed::Joint(now));
    }
    Err(match error {
        ClientWriteError::ForwardToLeader(forward) => ChangeError::NotLeader {
            leader: forward.leader_id,
        },
        ClientWriteError::PreconditionFailed(failed) => ChangeError::Outdated(failed.to_string()),
        ClientWriteError::ChangeMembershipError(error) => ChangeError::Refused(error.to_string()),
        ClientWriteError::LogEntryDiscarded(forward) => ChangeError::Unknown(forward.to_string()),
    })
}

fn is_half_way(change: &Change, membership: &Membership) -> bool {
    match (change, membership.get_joint_config().as_slice()) {
        (Change::SetVoters(voters), [.., _, incoming]) => incoming == voters,
        _ => false,
    }
}
