//! The tasks of a queue that a claim can get, in `Order`.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;

use super::row::{Order, TaskRow};
use super::rows::TaskRows;
use super::seqs::SeqSet;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Available {
    /// By priority, the tasks without a `not_before`. The clock of the state never goes back, so the one
    /// created first has the lowest number.
    at_once: BTreeMap<u8, SeqSet>,
    timed: BTreeSet<Order>,
}

impl Available {
    pub fn insert(&mut self, row: &TaskRow) {
        if row.not_before_ms == 0 {
            let seqs = self.at_once.entry(row.priority).or_default();
            seqs.insert(row.seq);
        } else {
            self.timed.insert(row.order());
        }
    }

    pub fn remove(&mut self, row: &TaskRow) {
        if row.not_before_ms != 0 {
            self.timed.remove(&row.order());
        } else if let Some(seqs) = self.at_once.get_mut(&row.priority) {
            seqs.remove(row.seq);
            if seqs.is_empty() {
                self.at_once.remove(&row.priority);
            }
        }
    }

    pub fn iter<'a>(&'a self, rows: &'a TaskRows) -> impl Iterator<Item = &'a TaskRow> {
        let row = |seq: u64| rows.get(seq).map(|row| &**row);
        let at_once = self.at_once.values().flat_map(|seqs| seqs.from(0));
        let mut at_once = at_once.filter_map(row).peekable();
        let timed = self.timed.iter().map(|order| order.seq);
        let mut timed = timed.filter_map(row).peekable();
        iter::from_fn(move || match (at_once.peek(), timed.peek()) {
            (Some(one), Some(other)) if other.order() < one.order() => timed.next(),
            (Some(_), _) => at_once.next(),
            (None, _) => timed.next(),
        })
    }

    /// The first of each priority that has one, so a handful of look-ups.
    pub fn oldest_since_ms(&self, rows: &TaskRows) -> Option<u64> {
        let firsts = self.at_once.values().filter_map(|seqs| seqs.from(0).next());
        let at_once = firsts.filter_map(|seq| Some(rows.get(seq)?.created_ms));
        let first_timed = |order: &Order| {
            let priority = order.priority.checked_add(1)?;
            let next = Order {
                priority,
                since_ms: 0,
                seq: 0,
            };
            self.timed.range(next..).next().copied()
        };
        let timed = iter::successors(self.timed.first().copied(), first_timed);
        at_once.chain(timed.map(|order| order.since_ms)).min()
    }
}
