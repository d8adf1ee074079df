//! The row of one queue and what is derived from its tasks.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::command::{QueueStats, TaskState};
use super::id::Name;
use super::row::Order;

/// Persisted as postcard: fields are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRow {
    pub id: u32,
    pub namespace: u32,
    pub name: Name,
    pub totals: Totals,
}

/// Counters since the queue came into being.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub created: u64,
    pub completed: u64,
    pub failed: u64,
    pub abandoned: u64,
    pub discarded: u64,
}

/// Rebuilt from the rows; neither hashed nor persisted.
pub(super) struct QueueIndex {
    pub namespace: u32,
    pub available: BTreeSet<Order>,
    /// Every row of the queue by `seq`.
    pub tasks: BTreeSet<u64>,
    /// Finished rows by (finished_ms, seq).
    pub finished: BTreeSet<(u64, u64)>,
    pub counts: [u64; 6],
    pub payload_bytes: u64,
    /// The texts of the last create: most tasks of a queue share them.
    pub kind: Arc<str>,
    pub content_type: Arc<str>,
}

impl QueueIndex {
    pub fn new(namespace: u32) -> QueueIndex {
        QueueIndex {
            namespace,
            available: BTreeSet::new(),
            tasks: BTreeSet::new(),
            finished: BTreeSet::new(),
            counts: [0; 6],
            payload_bytes: 0,
            kind: "".into(),
            content_type: "".into(),
        }
    }

    pub fn stats(&self, totals: Totals, now_ms: u64) -> QueueStats {
        let count = |state: TaskState| self.counts[state as usize];
        QueueStats {
            scheduled: count(TaskState::Scheduled),
            available: count(TaskState::Available),
            running: count(TaskState::Running),
            retryable: count(TaskState::Retryable),
            completed: count(TaskState::Completed),
            discarded: count(TaskState::Discarded),
            created_total: totals.created,
            completed_total: totals.completed,
            failed_total: totals.failed,
            abandoned_total: totals.abandoned,
            discarded_total: totals.discarded,
            payload_bytes: self.payload_bytes,
            oldest_available_ms: self
                .oldest_since_ms()
                .map_or(0, |since| now_ms.saturating_sub(since).max(1)),
        }
    }

    /// The first of each priority that has one, so a handful of look-ups.
    fn oldest_since_ms(&self) -> Option<u64> {
        let mut oldest = None;
        let mut next = self.available.first();
        while let Some(order) = next {
            oldest = Some(oldest.map_or(order.since_ms, |ms: u64| ms.min(order.since_ms)));
            let Some(priority) = order.priority.checked_add(1) else {
                break;
            };
            next = self
                .available
                .range(
                    Order {
                        priority,
                        since_ms: 0,
                        seq: 0,
                    }..,
                )
                .next();
        }
        oldest
    }
}

/// `text` itself when it is the one last used, else a copy that becomes the last used.
pub(super) fn share(last: &mut Arc<str>, text: &str) -> Arc<str> {
    if **last != *text {
        *last = text.into();
    }
    last.clone()
}
