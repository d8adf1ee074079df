//! The row of one queue and what is derived from its tasks.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::available::Available;
use super::command::{QueueStats, TaskState};
use super::id::Name;
use super::row::Texts;
use super::rows::TaskRows;
use super::seqs::SeqSet;

/// Texts of new tasks that a queue shares with the tasks before.
const TEXTS_SHARED_MAX: usize = 8;

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
    pub available: Available,
    /// Every row of the queue by `seq`.
    pub tasks: SeqSet,
    /// Finished rows by (finished_ms, seq).
    pub finished: BTreeSet<(u64, u64)>,
    pub counts: [u64; 6],
    pub payload_bytes: u64,
    /// Of the last creates: most tasks of a queue share a few.
    pub texts: Vec<Arc<Texts>>,
}

impl QueueIndex {
    pub fn new(namespace: u32) -> QueueIndex {
        QueueIndex {
            namespace,
            available: Available::default(),
            tasks: SeqSet::default(),
            finished: BTreeSet::new(),
            counts: [0; 6],
            payload_bytes: 0,
            texts: Vec::new(),
        }
    }

    pub fn stats(&self, rows: &TaskRows, totals: Totals, now_ms: u64) -> QueueStats {
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
                .available
                .oldest_since_ms(rows)
                .map_or(0, |since| now_ms.saturating_sub(since).max(1)),
        }
    }
}

/// These texts as one of the last used ones, else as a copy that becomes one.
pub(super) fn share(last: &mut Vec<Arc<Texts>>, kind: &str, content_type: &str) -> Arc<Texts> {
    let is_it = |texts: &&Arc<Texts>| *texts.kind == *kind && *texts.content_type == *content_type;
    if let Some(texts) = last.iter().find(is_it) {
        return texts.clone();
    }
    let texts = Arc::new(Texts {
        kind: kind.into(),
        content_type: content_type.into(),
    });
    if last.len() == TEXTS_SHARED_MAX {
        last.remove(0);
    }
    last.push(texts.clone());
    texts
}
