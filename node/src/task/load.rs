//! Builds a state from the rows of a snapshot. Rows that cannot belong together are refused: a snapshot
//! is trusted only as a whole.

use std::sync::Arc;

use super::hash;
use super::id::Name;
use super::queue::{QueueRow, share};
use super::row::TaskRow;
use super::state::{Bounds, State};
use super::tables::Meta;

/// What about the rows does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(pub String);

/// Rows arrive in the order of their tables: namespaces, queues, tasks, each by its number.
pub struct Loader {
    state: State,
    scratch: Vec<u8>,
}

impl Loader {
    pub fn new(meta: Meta, bounds: Bounds) -> Loader {
        let mut state = State::with_bounds(bounds);
        state.tables.meta = meta;
        Loader {
            state,
            scratch: Vec::new(),
        }
    }

    pub fn namespace(&mut self, id: u32, name: Name) -> Result<(), Unfit> {
        if id as usize != self.state.tables.namespaces.len()
            || self.state.index.namespace(&name).is_some()
        {
            return Err(Unfit(format!(
                "namespace {id} {name} is out of order or twice"
            )));
        }
        self.state.index.add_namespace(id, name.clone());
        self.state.tables.namespaces.insert(id, name);
        Ok(())
    }

    pub fn queue(&mut self, row: QueueRow) -> Result<(), Unfit> {
        let State { tables, index, .. } = &mut self.state;
        let known = tables.namespaces.contains_key(&row.namespace);
        if row.id as usize != tables.queues.len()
            || !known
            || index.queue(row.namespace, &row.name).is_some()
        {
            return Err(Unfit(format!(
                "queue {} {} is out of order, twice or without namespace",
                row.id, row.name
            )));
        }
        index.add_queue(row.id, row.namespace, row.name.clone());
        tables.queues.insert(row.id, Arc::new(row));
        Ok(())
    }

    pub fn task(&mut self, mut row: TaskRow) -> Result<(), Unfit> {
        let State { tables, index, .. } = &mut self.state;
        // The clock never goes back: the order of available tasks relies on it.
        let last = tables.tasks.last();
        let (last, last_ms) = last.map_or((0, 0), |row| (row.seq, row.created_ms));
        let Some(queue) = index.queues.get_mut(row.queue as usize) else {
            return Err(Unfit(format!(
                "task {} names queue {}, which is not there",
                row.seq, row.queue
            )));
        };
        row.texts = share(&mut queue.texts, &row.texts.kind, &row.texts.content_type);
        let namespace = queue.namespace;
        if row.seq <= last
            || row.seq > tables.meta.last_seq
            || row.created_ms < last_ms
            || index.task(&tables.tasks, namespace, &row.id).is_some()
        {
            return Err(Unfit(format!(
                "task {} {} is out of order or twice",
                row.seq, row.id
            )));
        }
        let hash = hash::of(hash::Table::Task, &row, &mut self.scratch);
        row.hash = hash.to_le_bytes();
        tables.tasks_hash = tables.tasks_hash.wrapping_add(hash);
        index.add(&row);
        tables.tasks.insert(row);
        Ok(())
    }

    /// The state, once its hash is the one it was written with.
    pub fn finish(mut self, hash: u128) -> Result<State, Unfit> {
        let found = self.state.hash();
        if found != hash {
            return Err(Unfit(format!(
                "the rows hash to {found:032x} and were written as {hash:032x}"
            )));
        }
        for queue in 0..self.state.index.queues.len() as u32 {
            self.state.note_overfull(queue);
        }
        Ok(self.state)
    }
}
