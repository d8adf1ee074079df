//! Finds tasks by id without a second copy of the id: a slot holds a part of its hash and the task's number,
//! and the row tells whether it is the one.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::id::TaskId;

/// Growing one hash map of millions moves them all at once; of many small ones, one at a time.
const SHARDS: usize = 256;

/// The hash's 16 low bits above 48 bits of `seq`, more than tasks that can ever be created. Enough of the
/// hash to move a slot to a larger table without a look at its row.
#[derive(Clone, Copy)]
struct Slot(u64);

impl Slot {
    fn new(hash: u64, seq: u64) -> Slot {
        debug_assert!(seq < 1 << 48);
        Slot(hash << 48 | seq)
    }

    fn seq(self) -> u64 {
        self.0 & ((1 << 48) - 1)
    }

    /// The table looks at the low and the high bits.
    fn spread(self) -> u64 {
        (self.0 >> 48) * 0x0001_0001_0001_0001
    }

    fn has_hash_of(self, other: Slot) -> bool {
        self.0 >> 48 == other.0 >> 48
    }
}

/// Never iterated, so nothing depends on the order of hashes, which differs from member to member.
pub(super) struct Ids<S = RandomState> {
    shards: Vec<HashTable<Slot>>,
    hasher: S,
}

impl<S: BuildHasher + Default> Default for Ids<S> {
    fn default() -> Ids<S> {
        Ids {
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            hasher: S::default(),
        }
    }
}

impl<S: BuildHasher> Ids<S> {
    /// Of the tasks that may have the id, the one that `is_it` says has it.
    pub fn find<T>(
        &self,
        namespace: u32,
        id: &TaskId,
        is_it: impl Fn(u64) -> Option<T>,
    ) -> Option<T> {
        let (shard, wanted) = self.slot(namespace, id, 0);
        let mut found = None;
        self.shards[shard].find(wanted.spread(), |slot| {
            if slot.has_hash_of(wanted) {
                found = is_it(slot.seq());
            }
            found.is_some()
        });
        found
    }

    /// The id is not there yet.
    pub fn insert(&mut self, namespace: u32, id: &TaskId, seq: u64) {
        let (shard, slot) = self.slot(namespace, id, seq);
        self.shards[shard].insert_unique(slot.spread(), slot, |slot| slot.spread());
    }

    pub fn remove(&mut self, namespace: u32, id: &TaskId, seq: u64) {
        let (shard, slot) = self.slot(namespace, id, seq);
        if let Ok(found) = self.shards[shard].find_entry(slot.spread(), |other| other.0 == slot.0) {
            found.remove();
        }
    }

    fn slot(&self, namespace: u32, id: &TaskId, seq: u64) -> (usize, Slot) {
        let hash = self.hasher.hash_one((namespace, id));
        ((hash >> 32) as usize % SHARDS, Slot::new(hash, seq))
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.shards.iter().map(HashTable::len).sum()
    }
}
