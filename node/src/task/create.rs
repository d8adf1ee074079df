//! Create: idempotent by id. Namespace and queue come into being with their first task.

use std::sync::Arc;

use uuid::Variant;

use super::command::{Create, Created, NewTask, Rejection};
use super::id::{Name, TaskId};
use super::queue::{QueueRow, Totals, share};
use super::row::TaskRow;
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
        let rows = &self.tables.tasks;
        let taken = known_namespace.and_then(|id| self.index.task(rows, id, &task.id));
        if let Some(row) = taken {
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
        let texts = &mut self.index.queues[queue as usize].texts;
        let row = TaskRow {
            seq,
            revision: at.revision(),
            created_ms: wall_time_ms,
            not_before_ms: task.not_before_ms,
            payload_hash: task.payload_hash,
            hash: [0; 16],
            id: task.id.clone(),
            texts: share(texts, &task.kind, &task.content_type),
            past: None,
            lease_ms: kept_lease_ms(&task),
            queue,
            payload_bytes: task.payload.len() as u32,
            attempts_max: kept_attempts_max(&task),
            priority: task.priority,
            scheduled: task.not_before_ms > wall_time_ms,
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
    *row.texts.kind == *task.kind
        && *row.texts.content_type == *task.content_type
        && row.priority == task.priority
        && row.not_before_ms == task.not_before_ms
        && row.lease_ms == kept_lease_ms(task)
        && row.attempts_max == kept_attempts_max(task)
        && row.payload_bytes as usize == task.payload.len()
        && row.payload_hash == task.payload_hash
}

/// Nobody can ask for more than a day.
fn kept_lease_ms(task: &NewTask) -> u32 {
    task.lease_ms.try_into().unwrap_or(u32::MAX)
}

/// Nobody can ask for more than a thousand.
fn kept_attempts_max(task: &NewTask) -> u16 {
    task.attempts_max.try_into().unwrap_or(u16::MAX)
}

/// The time inside a UUIDv7 in its usual text form; `None` for any other id.
fn minted_ms(id: &TaskId) -> Option<u64> {
    let uuid = id.uuid()?;
    let is_v7 = uuid.get_version_num() == 7 && uuid.get_variant() == Variant::RFC4122;
    is_v7.then(|| uuid.as_u64_pair().0 >> 16)
}
