//! Create: idempotent by id. Namespace and queue come into being with their first task.

use std::sync::Arc;

use super::command::{Create, Created, NewTask, Rejection};
use super::id::{Name, TaskId};
use super::queue::{QueueRow, Totals, share};
use super::row::{Phase, TaskRow};
use super::state::{At, PayloadEffect, State};
use crate::limits::ID_AGE_MS_MAX;

impl State {
    pub(super) fn create(
        &mut self,
        at: At,
        create: Create,
        effects: &mut Vec<PayloadEffect>,
    ) -> Vec<Result<Created, Rejection>> {
        let Create {
            namespace,
            queue,
            tasks,
        } = create;
        tasks
            .into_iter()
            .map(|task| self.create_one(at, &namespace, &queue, task, effects))
            .collect()
    }

    fn create_one(
        &mut self,
        at: At,
        namespace: &Name,
        queue: &Name,
        task: NewTask,
        effects: &mut Vec<PayloadEffect>,
    ) -> Result<Created, Rejection> {
        let known_namespace = self.index.namespace(namespace);
        let known_queue = known_namespace.and_then(|id| self.index.queue(id, queue));
        let taken = known_namespace.and_then(|id| self.index.task(id, &task.id));
        if let Some(row) = taken.and_then(|seq| self.tables.tasks.get(&seq)) {
            if Some(row.queue) == known_queue && same_task(row, &task) {
                return Ok(Created {
                    id: task.id,
                    revision: row.revision,
                    existed: true,
                });
            }
            return Err(Rejection::Duplicate { id: task.id });
        }
        let wall_time_ms = self.tables.meta.wall_time_ms;
        if minted_ms(&task.id).is_some_and(|ms| ms.saturating_add(ID_AGE_MS_MAX) < wall_time_ms) {
            return Err(Rejection::IdTooOld { id: task.id });
        }
        self.check_room(task.payload.len() as u64, known_queue.is_none())?;

        let queue = known_queue.unwrap_or_else(|| self.add_queue(namespace, queue));
        self.totals(queue, |totals| totals.created += 1);
        self.tables.meta.last_seq += 1;
        let seq = self.tables.meta.last_seq;
        let texts = &mut self.index.queues[queue as usize];
        let row = TaskRow {
            seq,
            queue,
            id: task.id.clone(),
            kind: share(&mut texts.kind, &task.kind),
            content_type: share(&mut texts.content_type, &task.content_type),
            priority: task.priority,
            not_before_ms: task.not_before_ms,
            lease_ms: task.lease_ms,
            attempts_max: task.attempts_max,
            payload_bytes: task.payload.len() as u32,
            payload_hash: task.payload_hash,
            created_ms: wall_time_ms,
            phase: if task.not_before_ms > wall_time_ms {
                Phase::Scheduled
            } else {
                Phase::Available
            },
            failures: 0,
            abandonments: 0,
            token: 0,
            revision: at.revision(),
            last_settle: None,
            error: None,
            hash: 0,
        };
        self.insert(row);
        effects.push(PayloadEffect::Keep {
            seq,
            payload: task.payload,
        });
        Ok(Created {
            id: task.id,
            revision: at.revision(),
            existed: false,
        })
    }

    fn check_room(&self, payload_bytes: u64, new_queue: bool) -> Result<(), Rejection> {
        let bounds = &self.bounds;
        let full = |bound: String| Err(Rejection::Full { bound });
        if self.tables.tasks.len() as u64 >= bounds.task_rows_max {
            return full(format!("{} tasks in the store", bounds.task_rows_max));
        }
        if self.index.payload_bytes + payload_bytes > bounds.payloads_bytes_max {
            return full(format!(
                "{} bytes of payloads in the store",
                bounds.payloads_bytes_max
            ));
        }
        if self.index.kept_bytes >= bounds.results_bytes_max {
            return full(format!(
                "{} bytes of results in the store",
                bounds.results_bytes_max
            ));
        }
        if new_queue && self.index.queues.len() >= bounds.queues_max {
            return full(format!("{} queues in the store", bounds.queues_max));
        }
        Ok(())
    }

    fn add_queue(&mut self, namespace: &Name, name: &Name) -> u32 {
        let namespace = self.index.namespace(namespace).unwrap_or_else(|| {
            let id = self.tables.namespaces.len() as u32;
            self.tables.namespaces.insert(id, namespace.clone());
            self.index.add_namespace(id, namespace.clone());
            id
        });
        let id = self.tables.queues.len() as u32;
        let row = QueueRow {
            id,
            namespace,
            name: name.clone(),
            totals: Totals::default(),
        };
        self.tables.queues.insert(id, Arc::new(row));
        self.changed.queues.insert(id);
        self.index.add_queue(id, namespace, name.clone());
        id
    }
}

fn same_task(row: &TaskRow, task: &NewTask) -> bool {
    *row.kind == *task.kind
        && *row.content_type == *task.content_type
        && row.priority == task.priority
        && row.not_before_ms == task.not_before_ms
        && row.lease_ms == task.lease_ms
        && row.attempts_max == task.attempts_max
        && row.payload_bytes as usize == task.payload.len()
        && row.payload_hash == task.payload_hash
}

/// The time inside a UUIDv7 in its usual text form; `None` for any other id.
fn minted_ms(id: &TaskId) -> Option<u64> {
    let text = id.as_str().as_bytes();
    let hyphens = [8, 13, 18, 23];
    let shaped = text.len() == 36
        && text
            .iter()
            .enumerate()
            .all(|(at, b)| match hyphens.contains(&at) {
                true => *b == b'-',
                false => b.is_ascii_hexdigit(),
            })
        && text[14] == b'7'
        && matches!(text[19].to_ascii_lowercase(), b'8' | b'9' | b'a' | b'b');
    if !shaped {
        return None;
    }
    u64::from_str_radix(&format!("{}{}", &id.as_str()[..8], &id.as_str()[9..13]), 16).ok()
}
