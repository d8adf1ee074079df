//! Claim: the log's order decides who gets which task, so two claims never get the same one.

use std::sync::Arc;

use super::command::{Claim, Claimed};
use super::id::Token;
use super::row::{Holder, Phase, Running, TaskRow};
use super::state::{At, State};
use crate::limits::{ANSWER_BYTES_MAX, BATCH_ITEMS_MAX};

impl State {
    /// Queues in the order named, tasks in the order of their queue. The retry of a claim gets the tasks
    /// that still run under its id, and nothing new.
    pub(super) fn claim(&mut self, at: At, claim: &Claim) -> Vec<Claimed> {
        let Some(namespace) = self.index.namespace(&claim.namespace) else {
            return Vec::new();
        };
        let held = self.index.claimed(namespace, &claim.claim_id);
        if !held.is_empty() {
            return held
                .into_iter()
                .filter_map(|seq| self.claimed(seq))
                .collect();
        }
        let chosen = self.choose(namespace, claim);
        let holder = Arc::new(Holder {
            claim_id: claim.claim_id.as_str().into(),
            worker: claim.worker.as_str().into(),
        });
        let now = self.tables.meta.lease_time_ms;
        for (place, seq) in chosen.iter().enumerate() {
            self.update(at, *seq, |row| {
                let lease_ms = if claim.lease_ms == 0 {
                    u64::from(row.lease_ms)
                } else {
                    claim.lease_ms
                };
                let past = row.past_mut();
                past.token = at.token().0;
                past.phase = Phase::Running(Running {
                    deadline_ms: now.saturating_add(lease_ms),
                    holder: holder.clone(),
                    place: place as u32,
                });
            });
        }
        chosen
            .into_iter()
            .filter_map(|seq| self.claimed(seq))
            .collect()
    }

    fn choose(&self, namespace: u32, claim: &Claim) -> Vec<u64> {
        let tasks_max = (claim.tasks_max.max(1) as usize).min(BATCH_ITEMS_MAX);
        let (mut bytes, mut answer_bytes) = (0, 0);
        let mut chosen: Vec<u64> = Vec::new();
        let mut seen: Vec<u32> = Vec::new();
        for name in &claim.queues {
            let Some(queue) = self.index.queue(namespace, name) else {
                continue;
            };
            if seen.contains(&queue) {
                continue;
            }
            seen.push(queue);
            let available = &self.index.queues[queue as usize].available;
            for row in available.iter(&self.tables.tasks) {
                if chosen.len() == tasks_max {
                    return chosen;
                }
                bytes += u64::from(row.payload_bytes);
                answer_bytes += row.answer_bytes(true);
                let over = bytes > claim.bytes_max || answer_bytes > ANSWER_BYTES_MAX as u64;
                if over && !chosen.is_empty() {
                    return chosen;
                }
                chosen.push(row.seq);
            }
        }
        chosen
    }

    fn claimed(&self, seq: u64) -> Option<Claimed> {
        let row: &TaskRow = self.tables.tasks.get(seq)?;
        let past = row.past();
        let Phase::Running(running) = &past.phase else {
            return None;
        };
        // What is left of it: whoever claims again counts from its new request.
        let lease_ms = running
            .deadline_ms
            .saturating_sub(self.tables.meta.lease_time_ms);
        Some(Claimed {
            task: self.view(row, false),
            token: Token(past.token),
            lease_ms,
        })
    }
}
