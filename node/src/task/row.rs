//! The row of one task: what is kept, hashed and written to snapshots. Its payload's bytes live elsewhere.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::command::{Settled, TaskState};
use super::id::TaskId;
use crate::limits::ANSWER_ROW_BYTES;

/// Persisted as postcard: fields and variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRow {
    /// Given at the create, never re-used; also the key of the payload.
    pub seq: u64,
    pub queue: u32,
    pub id: TaskId,
    pub kind: Arc<str>,
    pub content_type: Arc<str>,
    pub priority: u8,
    /// As the create named it; 0: at once.
    pub not_before_ms: u64,
    pub lease_ms: u64,
    pub attempts_max: u32,
    pub payload_bytes: u32,
    pub payload_hash: [u8; 16],
    pub created_ms: u64,
    pub phase: Phase,
    /// Attempts that ended in a fail.
    pub failures: u32,
    /// Leases that ran out.
    pub abandonments: u32,
    /// Of the current or last lease; 0 before the first.
    pub token: u64,
    pub revision: u64,
    /// Makes the last settle idempotent, also after a failure that will be retried.
    pub last_settle: Option<Box<LastSettle>>,
    pub error: Option<Box<str>>,
    /// Hash of everything above, kept so that a change hashes a row once.
    #[serde(skip)]
    pub hash: u128,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    Scheduled,
    Available,
    Running(Box<Running>),
    Retryable { due_ms: u64 },
    Completed(Box<Completed>),
    Discarded { finished_ms: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// In lease time.
    pub deadline_ms: u64,
    pub claim_id: Arc<str>,
    pub worker: Arc<str>,
    /// Place in the claim's answer.
    pub place: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completed {
    pub finished_ms: u64,
    pub result: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastSettle {
    pub token: u64,
    pub kind: SettleKind,
    pub settled: Settled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettleKind {
    Complete,
    Fail,
    Release,
}

impl TaskRow {
    pub fn state(&self) -> TaskState {
        match self.phase {
            Phase::Scheduled => TaskState::Scheduled,
            Phase::Available => TaskState::Available,
            Phase::Running(_) => TaskState::Running,
            Phase::Retryable { .. } => TaskState::Retryable,
            Phase::Completed(_) => TaskState::Completed,
            Phase::Discarded { .. } => TaskState::Discarded,
        }
    }

    /// Wall time at which the task was settled for good; its payload is gone since then.
    pub fn finished_ms(&self) -> Option<u64> {
        match &self.phase {
            Phase::Completed(done) => Some(done.finished_ms),
            Phase::Discarded { finished_ms } => Some(*finished_ms),
            _ => None,
        }
    }

    /// Wall time at which a waiting task becomes available.
    pub fn due_ms(&self) -> Option<u64> {
        match &self.phase {
            Phase::Scheduled => Some(self.not_before_ms),
            Phase::Retryable { due_ms } => Some(*due_ms),
            _ => None,
        }
    }

    /// Place among the available tasks of its queue; the same for all of a task's life.
    pub fn order(&self) -> Order {
        let since_ms = if self.not_before_ms == 0 {
            self.created_ms
        } else {
            self.not_before_ms
        };
        Order {
            priority: self.priority,
            since_ms,
            seq: self.seq,
        }
    }

    /// What the task takes in an answer, at most; only a `full` one has payload and result.
    pub fn answer_bytes(&self, full: bool) -> u64 {
        let result = match &self.phase {
            Phase::Completed(done) => done.result.len(),
            _ => 0,
        };
        let texts = self.kind.len()
            + self.content_type.len()
            + self.error.as_ref().map_or(0, |text| text.len());
        let bytes = match full {
            true => self.payload_bytes as usize + result,
            false => 0,
        };
        (ANSWER_ROW_BYTES + texts + bytes) as u64
    }

    /// Bytes of result and error text, which stay in memory with the row.
    pub fn kept_bytes(&self) -> u64 {
        let result = match &self.phase {
            Phase::Completed(done) => done.result.len(),
            _ => 0,
        };
        (result + self.error.as_ref().map_or(0, |text| text.len())) as u64
    }
}

/// Priority 0 first, then the oldest `not_before`, then the order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    pub priority: u8,
    pub since_ms: u64,
    pub seq: u64,
}
