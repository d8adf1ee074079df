//! A set of task numbers: next to nothing where they follow each other, as the tasks of a queue mostly do.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::iter;

const BITS: u64 = u64::BITS as u64;

/// A bit for each number, in words by number / 64; no word is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SeqSet(BTreeMap<u64, u64>);

impl SeqSet {
    pub fn insert(&mut self, seq: u64) {
        *self.0.entry(seq / BITS).or_default() |= 1 << (seq % BITS);
    }

    pub fn remove(&mut self, seq: u64) {
        if let Entry::Occupied(mut word) = self.0.entry(seq / BITS) {
            *word.get_mut() &= !(1 << (seq % BITS));
            if *word.get() == 0 {
                word.remove();
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In ascending order.
    pub fn from(&self, first: u64) -> impl Iterator<Item = u64> + '_ {
        let below_first = (1 << (first % BITS)) - 1;
        self.0.range(first / BITS..).flat_map(move |(at, word)| {
            let skipped = if *at == first / BITS { below_first } else { 0 };
            let mut left = word & !skipped;
            iter::from_fn(move || {
                let bit = (left != 0).then(|| u64::from(left.trailing_zeros()))?;
                left &= left - 1;
                Some(at * BITS + bit)
            })
        })
    }
}
