//! The row of one task: what is kept, hashed and written to snapshots. Its payload's bytes live elsewhere.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::command::TaskState;
use super::id::TaskId;
use crate::limits::ANSWER_ROW_BYTES;

/// Persisted as `written::Written`. There are millions of them: each byte here counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRow {
    /// Given at the create, never re-used; also the key of the payload.
    pub seq: u64,
    pub revision: u64,
    pub created_ms: u64,
    /// As the create named it; 0: at once.
    pub not_before_ms: u64,
    pub payload_hash: [u8; 16],
    /// Hash of everything persisted, kept so that a change hashes a row once. Bytes, because a `u128`
    /// would be aligned.
    pub hash: [u8; 16],
    pub id: TaskId,
    pub texts: Arc<Texts>,
    /// What happened since the create; nothing before the first claim.
    pub(super) past: Option<Box<Past>>,
    pub lease_ms: u32,
    pub queue: u32,
    pub payload_bytes: u32,
    pub attempts_max: u16,
    pub priority: u8,
    /// Without a past: whether it waits for `not_before`.
    pub(super) scheduled: bool,
}

/// Shared by the tasks of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    pub kind: Box<str>,
    pub content_type: Box<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    pub phase: Phase,
    /// Attempts that ended in a fail.
    pub failures: u32,
    /// Leases that ran out.
    pub abandonments: u32,
    /// Of the current or last lease.
    pub token: u64,
    /// Makes the last settle idempotent, also after a failure that will be retried.
    pub last_settle: Option<LastSettle>,
    pub error: Option<Box<str>>,
}

/// Persisted as postcard: variants are only ever appended, also below.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    Scheduled,
    Available,
    Running(Running),
    Retryable { due_ms: u64 },
    Completed(Completed),
    Discarded { finished_ms: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// In lease time.
    pub deadline_ms: u64,
    pub holder: Arc<Holder>,
    /// Place in the claim's answer.
    pub place: u32,
}

/// Shared by the tasks of one claim.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub claim_id: Arc<str>,
    pub worker: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completed {
    pub finished_ms: u64,
    #[serde(with = "super::written::whole")]
    pub result: Box<[u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastSettle {
    pub token: u64,
    pub kind: SettleKind,
    pub state: TaskState,
    pub revision: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettleKind {
    Complete,
    Fail,
    Release,
}

const FRESH_SCHEDULED: &Past = &Past::fresh(Phase::Scheduled);
const FRESH_AVAILABLE: &Past = &Past::fresh(Phase::Available);

impl Past {
    const fn fresh(phase: Phase) -> Past {
        Past {
            phase,
            failures: 0,
            abandonments: 0,
            token: 0,
            last_settle: None,
            error: None,
        }
    }
}

impl TaskRow {
    pub fn past(&self) -> &Past {
        match &self.past {
            Some(past) => past,
            None if self.scheduled => FRESH_SCHEDULED,
            None => FRESH_AVAILABLE,
        }
    }

    pub fn past_mut(&mut self) -> &mut Past {
        let fresh = match self.scheduled {
            true => Phase::Scheduled,
            false => Phase::Available,
        };
        self.past
            .get_or_insert_with(|| Box::new(Past::fresh(fresh)))
    }

    /// A past that says no more than its absence is not kept.
    pub fn set_past(&mut self, past: Past) {
        self.scheduled = past.phase == Phase::Scheduled;
        self.past = None;
        if *self.past() != past {
            self.past = Some(Box::new(past));
        }
    }

    /// A waiting task becomes available.
    pub fn release(&mut self) {
        match &mut self.past {
            Some(past) => past.phase = Phase::Available,
            None => self.scheduled = false,
        }
    }

    pub fn state(&self) -> TaskState {
        match self.past().phase {
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
        match &self.past().phase {
            Phase::Completed(done) => Some(done.finished_ms),
            Phase::Discarded { finished_ms } => Some(*finished_ms),
            _ => None,
        }
    }

    /// Wall time at which a waiting task becomes available.
    pub fn due_ms(&self) -> Option<u64> {
        match &self.past().phase {
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
        let result = match &self.past().phase {
            Phase::Completed(done) => done.result.len(),
            _ => 0,
        };
        let error = self.past().error.as_ref();
        let texts = self.texts.kind.len()
            + self.texts.content_type.len()
            + error.map_or(0, |text| text.len());
        let bytes = match full {
            true => self.payload_bytes as usize + result,
            false => 0,
        };
        (ANSWER_ROW_BYTES + texts + bytes) as u64
    }

    /// Bytes of result and error text, which stay in memory with the row.
    pub fn kept_bytes(&self) -> u64 {
        let past = self.past();
        let result = match &past.phase {
            Phase::Completed(done) => done.result.len(),
            _ => 0,
        };
        (result + past.error.as_ref().map_or(0, |text| text.len())) as u64
    }
}

/// Priority 0 first, then the oldest `not_before`, then the order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    pub priority: u8,
    pub since_ms: u64,
    pub seq: u64,
}
