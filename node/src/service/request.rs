//! What can be asked of the store and what it answers, as values. The same values travel between members
//! when a follower forwards to the leader, as postcard: fields and variants are only ever appended.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::task::command::{Claim, Command, Outcome, QueueStats, Rejection, TaskState, TaskView};
use crate::task::id::{Name, TaskId};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Create, Settle or Extend. Validated by whoever built it; the leader stamps time.
    Write(Command),
    Claim {
        claim: Claim,
        wait_ms: u64,
    },
    Get {
        namespace: Name,
        id: TaskId,
        with_payload: bool,
    },
    List(List),
    QueueStats {
        namespace: Name,
        queue: Name,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct List {
    pub namespace: Name,
    pub queue: Name,
    /// Empty: every state.
    pub states: Vec<TaskState>,
    pub page_size: u32,
    /// Tasks with a greater `seq`; 0 from the start.
    pub after_seq: u64,
    pub with_payload: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Response {
    Outcome(Outcome),
    Claimed(Vec<ClaimedTask>),
    Task(TaskWithPayload),
    Page(Page),
    QueueStats(QueueStats),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClaimedTask {
    pub task: TaskWithPayload,
    pub token: u64,
    pub lease_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskWithPayload {
    pub task: TaskView,
    /// Empty when it was not asked for, or once the task is finished.
    pub payload: Bytes,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page {
    pub tasks: Vec<TaskWithPayload>,
    /// Pass as `after_seq` for the next page; 0 at the end.
    pub next_after_seq: u64,
    pub revision: u64,
}

/// Why a request was not served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    #[error("rejected: {0:?}")]
    Rejected(Rejection),
    /// Nothing was appended; safe to send again, here or elsewhere.
    #[error("unavailable: {reason}")]
    Unavailable {
        cause: UnavailableCause,
        reason: String,
        retry_after_ms: u64,
    },
    /// A bound on work in flight was met; nothing was appended.
    #[error("over the bound: {bound}")]
    Overloaded { bound: String, retry_after_ms: u64 },
    /// A voter's disk is nearly full: creates are refused, settles are not.
    #[error("the disk of a voter is nearly full")]
    DiskHighWater,
    /// Certainty was lost after an append: send the same ids again.
    #[error("the outcome is unknown: {reason}")]
    OutcomeUnknown { reason: String },
    /// The request, or its answer, is larger than what members pass on; nothing was appended.
    #[error("too large: {bound}")]
    TooLarge { bound: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnavailableCause {
    NoLeader,
    NotReady,
}
