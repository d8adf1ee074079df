//! What can be asked of the state.

use bytes::Bytes;

use super::command::{QueueStats, TaskState, TaskView};
use super::id::{Name, TaskId};
use super::row::{Phase, TaskRow};
use super::state::State;
use crate::limits::{ANSWER_BYTES_MAX, LIST_SCAN_ROWS_MAX, PAGE_SIZE_MAX};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    pub tasks: Vec<TaskView>,
    /// Where the next page starts; 0 at the end. A page may be short, even empty, before the end.
    pub next_after_seq: u64,
}

impl State {
    /// Of the last entry applied.
    pub fn revision(&self) -> u64 {
        self.tables.meta.revision
    }

    pub fn feature_level(&self) -> u32 {
        self.tables.meta.feature_level
    }

    pub fn lease_time_ms(&self) -> u64 {
        self.tables.meta.lease_time_ms
    }

    pub fn wall_time_ms(&self) -> u64 {
        self.tables.meta.wall_time_ms
    }

    /// Payload bytes held for all tasks that are not finished.
    pub fn payload_bytes(&self) -> u64 {
        self.index.payload_bytes
    }

    pub fn task_rows(&self) -> u64 {
        self.tables.tasks.len() as u64
    }

    /// How many tasks of the queue a claim could get now.
    pub fn available(&self, namespace: &Name, queue: &Name) -> u64 {
        self.queue_id(namespace, queue).map_or(0, |id| {
            self.index.queues[id as usize].counts[TaskState::Available as usize]
        })
    }

    /// Whether tasks still run under this claim id: its retry gets them back.
    pub fn holds_claim(&self, namespace: &Name, claim_id: &str) -> bool {
        self.index
            .namespace(namespace)
            .is_some_and(|namespace| !self.index.claimed(namespace, claim_id).is_empty())
    }

    pub fn get(&self, namespace: &Name, id: &TaskId) -> Option<TaskView> {
        let namespace = self.index.namespace(namespace)?;
        let row = self.index.task(&self.tables.tasks, namespace, id)?;
        Some(self.view(row, true))
    }

    /// `None` for a queue that never had a task. `now_ms` turns the oldest available task into an age.
    pub fn queue_stats(&self, namespace: &Name, queue: &Name, now_ms: u64) -> Option<QueueStats> {
        let id = self.queue_id(namespace, queue)?;
        let totals = self.tables.queues.get(&id)?.totals;
        Some(self.index.queues[id as usize].stats(&self.tables.tasks, totals, now_ms))
    }

    /// Every queue with its counters, for metrics.
    pub fn queues(&self, now_ms: u64) -> impl Iterator<Item = (Name, Name, QueueStats)> + '_ {
        self.tables.queues.values().filter_map(move |row| {
            let (namespace, queue) = self.queue_names(row.id)?;
            let index = &self.index.queues[row.id as usize];
            let stats = index.stats(&self.tables.tasks, row.totals, now_ms);
            Some((namespace, queue, stats))
        })
    }

    /// Tasks of a queue by `seq`; empty `states` means all of them. Only a `full` page has results, and
    /// leaves room for payloads.
    pub fn list(
        &self,
        namespace: &Name,
        queue: &Name,
        states: &[TaskState],
        after_seq: u64,
        size: usize,
        full: bool,
    ) -> ListPage {
        let mut page = ListPage {
            tasks: Vec::new(),
            next_after_seq: 0,
        };
        let Some(id) = self.queue_id(namespace, queue) else {
            return page;
        };
        let size = size.clamp(1, PAGE_SIZE_MAX);
        let mut last = after_seq;
        let mut bytes = 0;
        let rows = self.index.queues[id as usize]
            .tasks
            .from(after_seq.saturating_add(1));
        for (looked_at, seq) in rows.enumerate() {
            if page.tasks.len() == size || looked_at == LIST_SCAN_ROWS_MAX {
                page.next_after_seq = last;
                return page;
            }
            if let Some(row) = self.tables.tasks.get(seq)
                && (states.is_empty() || states.contains(&row.state()))
            {
                bytes += row.answer_bytes(full);
                if bytes > ANSWER_BYTES_MAX as u64 && !page.tasks.is_empty() {
                    page.next_after_seq = last;
                    return page;
                }
                page.tasks.push(self.view(row, full));
            }
            last = seq;
        }
        page
    }

    fn queue_id(&self, namespace: &Name, queue: &Name) -> Option<u32> {
        self.index.queue(self.index.namespace(namespace)?, queue)
    }

    pub(super) fn queue_names(&self, queue: u32) -> Option<(Name, Name)> {
        let row = self.tables.queues.get(&queue)?;
        Some((
            self.tables.namespaces.get(&row.namespace)?.clone(),
            row.name.clone(),
        ))
    }

    pub(super) fn view(&self, row: &TaskRow, full: bool) -> TaskView {
        let (namespace, queue) = self
            .queue_names(row.queue)
            .expect("a row's queue is made before it and stays");
        let past = row.past();
        let running = matches!(past.phase, Phase::Running(_));
        let result = match &past.phase {
            Phase::Completed(done) if full => Bytes::copy_from_slice(&done.result),
            _ => Bytes::new(),
        };
        TaskView {
            seq: row.seq,
            namespace,
            queue,
            id: row.id.clone(),
            kind: row.texts.kind.to_string(),
            content_type: row.texts.content_type.to_string(),
            priority: row.priority,
            not_before_ms: row.not_before_ms,
            lease_ms: row.lease_ms.into(),
            attempts_max: row.attempts_max.into(),
            state: row.state(),
            attempts: past.failures + u32::from(running),
            abandonments: past.abandonments,
            created_ms: row.created_ms,
            finished_ms: row.finished_ms().unwrap_or(0),
            token: past.token,
            result,
            error: past.error.as_deref().unwrap_or_default().to_string(),
            payload_bytes: u64::from(row.payload_bytes),
            payload_hash: row.payload_hash,
            revision: row.revision,
        }
    }
}
