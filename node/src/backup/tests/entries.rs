//! A log of committed entries, as a shipper finds it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::backup::log::ship::Source;
use crate::storage::codec::EntryHead;
use crate::storage::types::Entry;
use crate::task::command;
use crate::task::tests::START_MS;

/// A log of entries from 1 on, of which the first so many are committed and some at the start may be gone.
pub struct Log {
    pub entries: Vec<Entry>,
    pub committed: AtomicU64,
    pub first: AtomicU64,
    /// Of one segment: small, whatever a real one may hold.
    pub segment_entries: usize,
}

/// Wall time of the entry at this index.
pub fn time_at(index: u64) -> u64 {
    START_MS + index * 1_000
}

/// Three terms, one of Raft's own entries at the start of each.
pub fn log(entries: u64) -> Log {
    let entry = |index: u64| {
        let term = 1 + 3 * index / (entries + 1);
        let is_first = 3 * (index - 1) / (entries + 1) + 1 != term || index == 1;
        let body = match is_first {
            true => Vec::new(),
            false => command::Entry::assemble(index, time_at(index), &[vec![index as u8; 300]]),
        };
        // Kind, term, index and length, as the storage codec has them.
        let mut head = vec![if is_first { 1 } else { 2 }];
        head.extend(term.to_le_bytes());
        head.extend(index.to_le_bytes());
        head.extend((body.len() as u32).to_le_bytes());
        let head = EntryHead::decode(&head[..]).expect("a head");
        head.entry(body.into()).expect("an entry")
    };
    Log {
        entries: (1..=entries).map(entry).collect(),
        committed: AtomicU64::new(entries),
        first: AtomicU64::new(1),
        segment_entries: 7,
    }
}

impl Source for Log {
    async fn committed(&self, from: u64, bytes_max: usize) -> std::io::Result<Option<Vec<Entry>>> {
        if from < self.first.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let committed = self.committed.load(Ordering::Relaxed);
        let entries_max = self.segment_entries.min(bytes_max / 300);
        let entries = self.entries.iter();
        let wanted = entries.filter(|entry| (from..=committed).contains(&entry.log_id.index));
        Ok(Some(wanted.take(entries_max).cloned().collect()))
    }
}
