//! The messages between members, version 1, and their conversion from and to openraft's types.
//!
//! No openraft type is ever serialized: these structs are. postcard is positional, so fields and variants
//! are only appended, and only together with a higher protocol version; golden bytes in the tests hold
//! them still.

use std::collections::{BTreeMap, BTreeSet};

use openraft::EntryPayload;
use openraft::raft::{TransferLeaderError, TransferLeaderRequest, VoteRequest, VoteResponse};
use openraft::vote::RaftLeaderId;
use openraft::vote::leader_id_std::LeaderId;
use serde::{Deserialize, Serialize};

use crate::storage::types::{self, MemberName, StoredMembership, TypeConfig};

pub const VERSION_MIN: u16 = 1;
pub const VERSION_MAX: u16 = 1;

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// Heartbeats, votes, pre-votes and hand-overs.
    Control,
    /// The append stream.
    Append,
    Snapshot,
    /// Forwarded client requests.
    Forward,
}

/// The first frame of the dialer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version_min: u16,
    pub version_max: u16,
    pub cluster_id: String,
    pub incarnation: u32,
    pub from: u64,
    pub from_name: String,
    pub to: u64,
    pub lane: Lane,
}

/// The acceptor's answer: the version spoken from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub version: u16,
    pub cluster_id: String,
    pub incarnation: u32,
    pub from: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refuse {
    pub cause: RefuseCause,
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefuseCause {
    Version,
    ClusterId,
    Incarnation,
    /// The dialer wanted another member, or names itself as one it cannot be.
    MemberId,
    /// The certificate is not that of the member it claims to be.
    Certificate,
    Busy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogId {
    pub term: u64,
    pub index: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    pub term: u64,
    pub voted_for: u64,
    pub committed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// One voter set, or the outgoing and the incoming one.
    pub configs: Vec<Vec<u64>>,
    /// Voters and learners.
    pub members: Vec<(u64, String)>,
}

/// In front of the entries of an append frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendHead {
    /// Answers name it; those of an older stream are dropped.
    pub session: u64,
    pub vote: Vote,
    pub prev: Option<LogId>,
    pub leader_commit: Option<LogId>,
    pub entries: u32,
}

/// In front of one entry; `bytes` of content follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryHead {
    pub log_id: LogId,
    pub kind: EntryKind,
    pub bytes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    Blank,
    /// The bytes are the entry as the leader encoded it.
    Normal,
    /// The bytes are a `Membership`.
    Membership,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendAnswer {
    pub session: u64,
    pub outcome: AppendOutcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppendOutcome {
    /// Flushed up to here.
    Matched(Option<LogId>),
    Conflict(LogId),
    HigherVote(Vote),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub vote: Vote,
    pub prev: Option<LogId>,
    pub leader_commit: Option<LogId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    pub outcome: AppendOutcome,
    pub facts: Facts,
}

/// What a member tells its leader about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub ready: bool,
    pub disk_high_water: bool,
    pub feature_level_max: u32,
    pub version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteAsk {
    pub vote: Vote,
    pub last: Option<LogId>,
    pub leadership_transfer: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteAnswer {
    pub vote: Vote,
    pub granted: bool,
    pub last: Option<LogId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferAsk {
    pub from_leader: Vote,
    pub to: u64,
    pub last: Option<LogId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferAnswer {
    Accepted,
    VoteChanged {
        expected: Vote,
        actual: Vote,
    },
    LogNotFlushed {
        expected: Option<LogId>,
        actual: Option<LogId>,
    },
}

/// In front of a forwarded request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardHead {
    /// Time left, counted from when the request was sent.
    pub deadline_ms: u64,
    /// 1: the receiver answers it or refuses it, and never forwards it again.
    pub hop: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotBegin {
    pub vote: Vote,
    pub last: Option<LogId>,
    pub membership_log_id: Option<LogId>,
    pub membership: Membership,
    /// Equal ids mean equal bytes.
    pub id: String,
    pub bytes: u64,
}

/// The receiver holds the bytes before `offset`: the sender's next chunk starts there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotAt {
    pub offset: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotDone {
    pub vote: Vote,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFailed {
    pub reason: String,
}

/// A message that is well formed and still says something impossible.
#[derive(Debug, thiserror::Error)]
#[error("impossible membership: {0}")]
pub struct Impossible(String);

impl From<&types::LogId> for LogId {
    fn from(id: &types::LogId) -> LogId {
        LogId {
            term: id.leader_id.term,
            index: id.index,
        }
    }
}

impl From<LogId> for types::LogId {
    fn from(id: LogId) -> types::LogId {
        types::LogId {
            leader_id: LeaderId::new(id.term, 0).to_committed(),
            index: id.index,
        }
    }
}

pub fn log_id_out(id: Option<&types::LogId>) -> Option<LogId> {
    id.map(LogId::from)
}

pub fn log_id_in(id: Option<LogId>) -> Option<types::LogId> {
    id.map(types::LogId::from)
}

impl From<&types::Vote> for Vote {
    fn from(vote: &types::Vote) -> Vote {
        Vote {
            term: vote.leader_id.term,
            voted_for: vote.leader_id.voted_for,
            committed: vote.committed,
        }
    }
}

impl From<Vote> for types::Vote {
    fn from(vote: Vote) -> types::Vote {
        types::Vote {
            leader_id: LeaderId {
                term: vote.term,
                voted_for: vote.voted_for,
            },
            committed: vote.committed,
        }
    }
}

impl From<&types::Membership> for Membership {
    fn from(membership: &types::Membership) -> Membership {
        Membership {
            configs: membership
                .get_joint_config()
                .iter()
                .map(|set| set.iter().copied().collect())
                .collect(),
            members: membership
                .nodes()
                .map(|(id, name)| (*id, name.0.clone()))
                .collect(),
        }
    }
}

impl TryFrom<Membership> for types::Membership {
    type Error = Impossible;

    fn try_from(membership: Membership) -> Result<types::Membership, Impossible> {
        let configs: Vec<BTreeSet<u64>> = membership
            .configs
            .into_iter()
            .map(BTreeSet::from_iter)
            .collect();
        let members: BTreeMap<u64, MemberName> = membership
            .members
            .into_iter()
            .map(|(id, name)| (id, MemberName(name)))
            .collect();
        types::Membership::new(configs, members).map_err(|e| Impossible(e.to_string()))
    }
}

pub fn stored_membership(
    log_id: Option<LogId>,
    membership: Membership,
) -> Result<StoredMembership, Impossible> {
    Ok(StoredMembership::new(
        log_id_in(log_id),
        membership.try_into()?,
    ))
}

impl EntryKind {
    pub fn of(payload: &EntryPayload<types::EntryBytes, u64, MemberName>) -> EntryKind {
        match payload {
            EntryPayload::Blank => EntryKind::Blank,
            EntryPayload::Normal(_) => EntryKind::Normal,
            EntryPayload::Membership(_) => EntryKind::Membership,
        }
    }
}

impl From<&VoteRequest<TypeConfig>> for VoteAsk {
    fn from(ask: &VoteRequest<TypeConfig>) -> VoteAsk {
        VoteAsk {
            vote: (&ask.vote).into(),
            last: log_id_out(ask.last_log_id.as_ref()),
            leadership_transfer: ask.leadership_transfer,
        }
    }
}

impl From<VoteAsk> for VoteRequest<TypeConfig> {
    fn from(ask: VoteAsk) -> VoteRequest<TypeConfig> {
        VoteRequest {
            vote: ask.vote.into(),
            last_log_id: log_id_in(ask.last),
            leadership_transfer: ask.leadership_transfer,
        }
    }
}

impl From<&VoteResponse<TypeConfig>> for VoteAnswer {
    fn from(answer: &VoteResponse<TypeConfig>) -> VoteAnswer {
        VoteAnswer {
            vote: (&answer.vote).into(),
            granted: answer.vote_granted,
            last: log_id_out(answer.last_log_id.as_ref()),
        }
    }
}

impl From<VoteAnswer> for VoteResponse<TypeConfig> {
    fn from(answer: VoteAnswer) -> VoteResponse<TypeConfig> {
        VoteResponse {
            vote: answer.vote.into(),
            vote_granted: answer.granted,
            last_log_id: log_id_in(answer.last),
        }
    }
}

impl From<&TransferLeaderRequest<TypeConfig>> for TransferAsk {
    fn from(ask: &TransferLeaderRequest<TypeConfig>) -> TransferAsk {
        TransferAsk {
            from_leader: ask.from_leader().into(),
            to: *ask.to_node_id(),
            last: log_id_out(ask.last_log_id()),
        }
    }
}

impl From<TransferAsk> for TransferLeaderRequest<TypeConfig> {
    fn from(ask: TransferAsk) -> TransferLeaderRequest<TypeConfig> {
        TransferLeaderRequest::new(ask.from_leader.into(), ask.to, log_id_in(ask.last))
    }
}

impl From<&Result<(), TransferLeaderError<TypeConfig>>> for TransferAnswer {
    fn from(answer: &Result<(), TransferLeaderError<TypeConfig>>) -> TransferAnswer {
        match answer {
            Ok(()) => TransferAnswer::Accepted,
            Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                TransferAnswer::VoteChanged {
                    expected: expected.into(),
                    actual: actual.into(),
                }
            }
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                TransferAnswer::LogNotFlushed {
                    expected: log_id_out(expected.as_ref()),
                    actual: log_id_out(actual.as_ref()),
                }
            }
        }
    }
}

impl From<TransferAnswer> for Result<(), TransferLeaderError<TypeConfig>> {
    fn from(answer: TransferAnswer) -> Result<(), TransferLeaderError<TypeConfig>> {
        match answer {
            TransferAnswer::Accepted => Ok(()),
            TransferAnswer::VoteChanged { expected, actual } => {
                Err(TransferLeaderError::VoteChanged {
                    expected: expected.into(),
                    actual: actual.into(),
                })
            }
            TransferAnswer::LogNotFlushed { expected, actual } => {
                Err(TransferLeaderError::LogNotFlushed {
                    expected: log_id_in(expected),
                    actual: log_id_in(actual),
                })
            }
        }
    }
}
