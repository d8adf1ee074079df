//! The rows of tasks by number, in a persistent map of short pages. The map's nodes are half empty when keys
//! only grow; with pages that costs an eighth.

use std::array;
use std::sync::Arc;

use imbl::OrdMap;

use super::row::TaskRow;

const PAGE_ROWS: usize = 8;

type Page = [Option<Arc<TaskRow>>; PAGE_ROWS];

#[derive(Debug, Clone, Default)]
pub struct TaskRows {
    /// By seq / 8; no page is empty.
    pages: OrdMap<u64, Arc<Page>>,
    len: usize,
}

fn place(seq: u64) -> (u64, usize) {
    let page_rows = PAGE_ROWS as u64;
    (seq / page_rows, (seq % page_rows) as usize)
}

impl TaskRows {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// In ascending order of `seq`.
    pub fn values(&self) -> impl Iterator<Item = &Arc<TaskRow>> {
        self.pages.values().flat_map(|page| page.iter().flatten())
    }

    /// Those from this number on, in ascending order of `seq`.
    pub fn from(&self, seq: u64) -> impl Iterator<Item = &Arc<TaskRow>> {
        let (page, at) = place(seq);
        let pages = self.pages.range(page..);
        pages.flat_map(move |(number, rows)| {
            let skipped = if *number == page { at } else { 0 };
            rows[skipped..].iter().flatten()
        })
    }

    pub fn last(&self) -> Option<&Arc<TaskRow>> {
        let (_, page) = self.pages.get_max()?;
        page.iter().flatten().next_back()
    }

    pub fn get(&self, seq: u64) -> Option<&Arc<TaskRow>> {
        let (page, at) = place(seq);
        self.pages.get(&page)?[at].as_ref()
    }

    pub(super) fn get_mut(&mut self, seq: u64) -> Option<&mut Arc<TaskRow>> {
        let (page, at) = place(seq);
        Arc::make_mut(self.pages.get_mut(&page)?)[at].as_mut()
    }

    /// Its number is a new one.
    pub(super) fn insert(&mut self, row: TaskRow) {
        let (page, at) = place(row.seq);
        let mut row = Some(Arc::new(row));
        self.len += 1;
        match self.pages.get_mut(&page) {
            Some(page) => Arc::make_mut(page)[at] = row,
            None => {
                let rows = array::from_fn(|other| row.take_if(|_| other == at));
                self.pages.insert(page, Arc::new(rows));
            }
        }
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<Arc<TaskRow>> {
        let (number, at) = place(seq);
        let page = Arc::make_mut(self.pages.get_mut(&number)?);
        let row = page[at].take()?;
        self.len -= 1;
        if page.iter().all(Option::is_none) {
            self.pages.remove(&number);
        }
        Some(row)
    }
}
