//! Orders and look-ups over the rows. All of it follows from the tables, is rebuilt when a snapshot is
//! loaded, and is never iterated in hash order.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::id::{Name, TaskId};
use super::ids::Ids;
use super::queue::QueueIndex;
use super::row::{Phase, TaskRow};
use super::rows::TaskRows;

#[derive(Default)]
pub(super) struct Index {
    namespaces: HashMap<Name, u32>,
    queue_ids: HashMap<(u32, Name), u32>,
    /// By queue id; ids are dense and never re-used.
    pub queues: Vec<QueueIndex>,
    ids: Ids,
    /// Scheduled and retryable tasks by (wall time, seq).
    pub due: BTreeSet<(u64, u64)>,
    /// Running tasks by (deadline in lease time, seq).
    pub leases: BTreeSet<(u64, u64)>,
    /// The oldest finished row of each queue that has one, by (finished_ms, seq).
    pub finished: BTreeSet<(u64, u64)>,
    /// Running tasks by (namespace, claim id, place in the answer, seq).
    claims: BTreeSet<(u32, Arc<str>, u32, u64)>,
    /// Queues that got an available task since they were last asked for.
    pub gained: BTreeSet<u32>,
    /// Held payloads, and kept results with error texts.
    pub payload_bytes: u64,
    pub kept_bytes: u64,
}

impl Index {
    pub fn namespace(&self, name: &Name) -> Option<u32> {
        self.namespaces.get(name).copied()
    }

    pub fn add_namespace(&mut self, id: u32, name: Name) {
        self.namespaces.insert(name, id);
    }

    pub fn queue(&self, namespace: u32, name: &Name) -> Option<u32> {
        self.queue_ids.get(&(namespace, name.clone())).copied()
    }

    pub fn add_queue(&mut self, id: u32, namespace: u32, name: Name) {
        debug_assert_eq!(id as usize, self.queues.len());
        self.queue_ids.insert((namespace, name), id);
        self.queues.push(QueueIndex::new(namespace));
    }

    pub fn task<'a>(&self, rows: &'a TaskRows, namespace: u32, id: &TaskId) -> Option<&'a TaskRow> {
        let of_namespace = |row: &TaskRow| self.queues[row.queue as usize].namespace == namespace;
        self.ids.find(namespace, id, |seq| {
            let row = rows.get(seq)?;
            (row.id == *id && of_namespace(row)).then_some(&**row)
        })
    }

    /// A row that is new.
    pub fn add(&mut self, row: &TaskRow) {
        let queue = &mut self.queues[row.queue as usize];
        queue.tasks.insert(row.seq);
        self.ids.insert(queue.namespace, &row.id, row.seq);
        self.place(row);
    }

    /// A row that goes for good.
    pub fn remove(&mut self, row: &TaskRow) {
        self.unplace(row);
        let queue = &mut self.queues[row.queue as usize];
        queue.tasks.remove(row.seq);
        self.ids.remove(queue.namespace, &row.id, row.seq);
    }

    /// After a row changed. Each change is an `unplace`, the change, a `place`.
    pub fn place(&mut self, row: &TaskRow) {
        let seq = row.seq;
        let queue = &mut self.queues[row.queue as usize];
        queue.counts[row.state() as usize] += 1;
        self.kept_bytes += row.kept_bytes();
        match &row.past().phase {
            Phase::Available => {
                queue.available.insert(row);
                self.gained.insert(row.queue);
            }
            Phase::Running(running) => {
                self.leases.insert((running.deadline_ms, seq));
                self.claims.insert((
                    queue.namespace,
                    running.holder.claim_id.clone(),
                    running.place,
                    seq,
                ));
            }
            Phase::Scheduled | Phase::Retryable { .. } => {
                self.due.extend(row.due_ms().map(|due_ms| (due_ms, seq)));
            }
            Phase::Completed(_) | Phase::Discarded { .. } => {
                let finished = row.finished_ms().map(|ms| (ms, seq));
                self.change_finished(row.queue, |rows| rows.extend(finished));
                return;
            }
        }
        queue.payload_bytes += u64::from(row.payload_bytes);
        self.payload_bytes += u64::from(row.payload_bytes);
    }

    pub fn unplace(&mut self, row: &TaskRow) {
        let seq = row.seq;
        let queue = &mut self.queues[row.queue as usize];
        queue.counts[row.state() as usize] -= 1;
        self.kept_bytes -= row.kept_bytes();
        match &row.past().phase {
            Phase::Available => {
                queue.available.remove(row);
            }
            Phase::Running(running) => {
                self.leases.remove(&(running.deadline_ms, seq));
                self.claims.remove(&(
                    queue.namespace,
                    running.holder.claim_id.clone(),
                    running.place,
                    seq,
                ));
            }
            Phase::Scheduled | Phase::Retryable { .. } => {
                self.due.remove(&(row.due_ms().unwrap_or_default(), seq));
            }
            Phase::Completed(_) | Phase::Discarded { .. } => {
                let finished = (row.finished_ms().unwrap_or_default(), seq);
                self.change_finished(row.queue, |rows| _ = rows.remove(&finished));
                return;
            }
        }
        queue.payload_bytes -= u64::from(row.payload_bytes);
        self.payload_bytes -= u64::from(row.payload_bytes);
    }

    /// Running tasks of a claim, in the order of its first answer.
    pub fn claimed(&self, namespace: u32, claim_id: &str) -> Vec<u64> {
        let claim_id: Arc<str> = claim_id.into();
        let first = (namespace, claim_id.clone(), 0, 0);
        let last = (namespace, claim_id, u32::MAX, u64::MAX);
        self.claims
            .range(first..=last)
            .map(|(_, _, _, seq)| *seq)
            .collect()
    }

    fn change_finished(&mut self, queue: u32, change: impl FnOnce(&mut BTreeSet<(u64, u64)>)) {
        let rows = &mut self.queues[queue as usize].finished;
        let before = rows.first().copied();
        change(rows);
        let after = rows.first().copied();
        if before != after {
            before.map(|oldest| self.finished.remove(&oldest));
            self.finished.extend(after);
        }
    }
}

#[cfg(test)]
impl Index {
    /// Everything but the hash maps, to compare with an index that was rebuilt.
    pub fn facts(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let queues: Vec<_> = self
            .queues
            .iter()
            .map(|queue| {
                let lists = (
                    queue.available.clone(),
                    queue.tasks.clone(),
                    queue.finished.clone(),
                );
                (queue.namespace, lists, queue.counts, queue.payload_bytes)
            })
            .collect();
        let lists = (
            self.due.clone(),
            self.leases.clone(),
            self.finished.clone(),
            self.claims.clone(),
        );
        (
            queues,
            self.ids.len(),
            lists,
            self.payload_bytes,
            self.kept_bytes,
        )
    }
}
