//! What the state holds that the image does not yet: changed rows by their keys, and the bytes of new
//! payloads. A row that changes often is written once; a payload that comes and goes in between never is.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use crate::task::state::{Changed, PayloadEffect};

/// What a change is taken to cost in memory, beside a payload's bytes.
const CHANGE_BYTES: u64 = 64;
/// Keys named twice are thrown out when so many have piled up.
const TASKS_COMPACT: usize = 1 << 20;

#[derive(Debug, Default)]
pub struct Dirty {
    /// May name a task more than once.
    tasks: Vec<u64>,
    queues: BTreeSet<u32>,
    fresh: Fresh,
    /// Payloads that the image may hold and nobody needs.
    dropped: Vec<u64>,
    fresh_bytes: u64,
}

/// Payloads by the number of their task.
pub type Fresh = HashMap<u64, Bytes>;

/// What was dirty at one moment.
#[derive(Debug, Default)]
pub struct Taken {
    /// May name a task more than once.
    pub tasks: Vec<u64>,
    pub queues: BTreeSet<u32>,
    pub fresh: Arc<Fresh>,
    pub dropped: Vec<u64>,
}

impl Dirty {
    pub fn note(&mut self, changed: Changed, effects: impl IntoIterator<Item = PayloadEffect>) {
        self.tasks.extend(changed.tasks);
        self.queues.extend(changed.queues);
        for effect in effects {
            match effect {
                PayloadEffect::Keep { seq, payload } => {
                    self.fresh_bytes += payload.len() as u64 + CHANGE_BYTES;
                    self.fresh.insert(seq, payload);
                }
                PayloadEffect::Drop { seq } => match self.fresh.remove(&seq) {
                    Some(payload) => self.fresh_bytes -= payload.len() as u64 + CHANGE_BYTES,
                    None => self.dropped.push(seq),
                },
            }
        }
        if self.tasks.len() >= TASKS_COMPACT && self.tasks.len() == self.tasks.capacity() {
            self.tasks.sort_unstable();
            self.tasks.dedup();
        }
    }

    pub fn payload(&self, seq: u64) -> Option<Bytes> {
        self.fresh.get(&seq).cloned()
    }

    pub fn bytes(&self) -> u64 {
        self.fresh_bytes + (self.tasks.len() + self.dropped.len()) as u64 * CHANGE_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.queues.is_empty() && self.dropped.is_empty()
    }

    pub fn changes(&self) -> usize {
        self.tasks.len()
    }

    pub fn take(&mut self) -> Taken {
        let taken = std::mem::take(self);
        Taken {
            tasks: taken.tasks,
            queues: taken.queues,
            fresh: Arc::new(taken.fresh),
            dropped: taken.dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(seq: u64) -> PayloadEffect {
        PayloadEffect::Keep {
            seq,
            payload: Bytes::from_static(b"x"),
        }
    }

    fn changed(tasks: &[u64]) -> Changed {
        Changed {
            tasks: tasks.to_vec(),
            queues: BTreeSet::from([0]),
        }
    }

    #[test]
    fn what_came_and_went_in_between_leaves_no_payload() {
        let mut dirty = Dirty::default();
        dirty.note(changed(&[7, 8]), [keep(7), keep(8)]);
        dirty.note(changed(&[7]), [PayloadEffect::Drop { seq: 7 }]);
        dirty.note(changed(&[3]), [PayloadEffect::Drop { seq: 3 }]);
        assert_eq!(dirty.payload(8), Some(Bytes::from_static(b"x")));
        let taken = dirty.take();
        assert_eq!(taken.tasks, [7, 8, 7, 3]);
        assert_eq!(taken.fresh.keys().collect::<Vec<_>>(), [&8]);
        assert_eq!(taken.dropped, [3], "the image may hold that one");
        assert_eq!((dirty.bytes(), dirty.changes()), (0, 0));
    }

    #[test]
    fn bytes_follow_the_payloads_and_the_changes() {
        let mut dirty = Dirty::default();
        dirty.note(changed(&[1, 2]), [keep(1), keep(2)]);
        assert_eq!(dirty.bytes(), 4 * CHANGE_BYTES + 2);
        dirty.note(changed(&[]), [PayloadEffect::Drop { seq: 1 }]);
        assert_eq!(dirty.bytes(), 3 * CHANGE_BYTES + 1);
    }
}
