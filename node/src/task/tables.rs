//! Everything the log has decided, in persistent maps: a copy costs a few pointers and stays as it was
//! while the state goes on. A snapshot is written from such a copy.

use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::hash::RowsHash;
use super::id::Name;
use super::queue::QueueRow;
use super::rows::TaskRows;

#[derive(Debug, Clone, Default)]
pub struct Tables {
    pub meta: Meta,
    pub namespaces: OrdMap<u32, Name>,
    pub queues: OrdMap<u32, Arc<QueueRow>>,
    pub tasks: TaskRows,
    /// Sum of the hashes of all task rows, in whatever order they came.
    pub(super) tasks_hash: u128,
}

/// What is there once. Persisted as postcard: fields are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    pub lease_time_ms: u64,
    pub wall_time_ms: u64,
    pub feature_level: u32,
    /// Of the last entry applied; incarnation in the high bits.
    pub revision: u64,
    pub last_seq: u64,
    /// The highest member number ever given.
    pub members_reserved_to: u64,
    /// The last reservations, so that a retried one gets the same numbers.
    pub reservations: Vec<Reservation>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    pub operation_id: String,
    pub members: Vec<u64>,
}

impl Default for Meta {
    fn default() -> Meta {
        Meta {
            lease_time_ms: 0,
            wall_time_ms: 0,
            feature_level: 1,
            revision: 0,
            last_seq: 0,
            members_reserved_to: 0,
            reservations: Vec::new(),
        }
    }
}

impl Tables {
    /// Whether the store still holds the payload of this task.
    pub fn has_payload(&self, seq: u64) -> bool {
        let row = self.tasks.get(seq);
        row.is_some_and(|row| row.finished_ms().is_none())
    }

    /// Hash of everything here. Task rows are summed as they change; queues, names and the rest are
    /// added now, so it costs the number of queues.
    pub fn hash(&self) -> u128 {
        let mut rows = RowsHash::default();
        rows.meta(&self.meta);
        for (id, name) in self.namespaces.iter() {
            rows.namespace(*id, name);
        }
        for queue in self.queues.values() {
            rows.queue(queue);
        }
        self.tasks_hash.wrapping_add(rows.sum())
    }

    /// The same from scratch, trusting no hash kept.
    pub fn rehash(&self) -> u128 {
        let mut rows = RowsHash::default();
        for row in self.tasks.values() {
            rows.task(row);
        }
        let of_tasks = rows.sum();
        self.hash()
            .wrapping_sub(self.tasks_hash)
            .wrapping_add(of_tasks)
    }
}
