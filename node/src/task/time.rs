//! The two clocks of the state and what they move: leases that ran out, tasks that are due, finished rows
//! that are old. All of it happens at the start of an entry, so many items at most per entry.

use super::row::{Phase, TaskRow};
use super::state::{At, PayloadEffect, State};
use crate::limits::ABANDONMENTS_MAX;

/// The earliest moment of each clock at which an entry would move something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deadlines {
    pub lease_time_ms: Option<u64>,
    pub wall_time_ms: Option<u64>,
}

impl State {
    pub(super) fn advance(
        &mut self,
        at: At,
        lease_time_ms: u64,
        wall_time_ms: u64,
        effects: &mut Vec<PayloadEffect>,
    ) {
        let meta = &mut self.tables.meta;
        meta.lease_time_ms = meta.lease_time_ms.max(lease_time_ms);
        meta.wall_time_ms = meta.wall_time_ms.max(wall_time_ms);
        self.expire_leases(at, effects);
        self.release_due(at);
        self.forget_finished();
    }

    pub fn next_deadlines(&self) -> Deadlines {
        let due = self.index.due.first().map(|(ms, _)| *ms);
        let old = self
            .index
            .finished
            .first()
            .map(|(ms, _)| ms.saturating_add(self.bounds.finished_age_ms_max));
        let overfull = if self.overfull.is_empty() {
            None
        } else {
            Some(0)
        };
        Deadlines {
            lease_time_ms: self.index.leases.first().map(|(ms, _)| *ms),
            wall_time_ms: [due, old, overfull].into_iter().flatten().min(),
        }
    }

    fn expire_leases(&mut self, at: At, effects: &mut Vec<PayloadEffect>) {
        let now = self.tables.meta.lease_time_ms;
        for _ in 0..self.bounds.tick_items_max {
            match self.index.leases.first() {
                Some((deadline, seq)) if *deadline <= now => {
                    let seq = *seq;
                    self.abandon(at, seq, effects);
                }
                _ => return,
            }
        }
    }

    fn abandon(&mut self, at: At, seq: u64, effects: &mut Vec<PayloadEffect>) {
        let finished_ms = self.tables.meta.wall_time_ms;
        let (mut queue, mut discarded) = (0, false);
        self.update(at, seq, |row| {
            queue = row.queue;
            let past = row.past_mut();
            past.abandonments += 1;
            discarded = past.abandonments >= ABANDONMENTS_MAX;
            past.phase = if discarded {
                Phase::Discarded { finished_ms }
            } else {
                Phase::Available
            };
            if discarded {
                past.error = Some(format!("abandoned: {ABANDONMENTS_MAX} leases ran out").into());
            }
        });
        self.totals(queue, |totals| {
            totals.abandoned += 1;
            totals.discarded += u64::from(discarded);
        });
        if discarded {
            effects.push(PayloadEffect::Drop { seq });
        }
    }

    fn release_due(&mut self, at: At) {
        let now = self.tables.meta.wall_time_ms;
        for _ in 0..self.bounds.tick_items_max {
            match self.index.due.first() {
                Some((due, seq)) if *due <= now => {
                    let seq = *seq;
                    self.update(at, seq, TaskRow::release);
                }
                _ => return,
            }
        }
    }

    /// Old rows first, then those beyond the count of their queue, oldest first.
    fn forget_finished(&mut self) {
        let now = self.tables.meta.wall_time_ms;
        for _ in 0..self.bounds.tick_items_max {
            let old = match self.index.finished.first() {
                Some((ms, seq)) if ms.saturating_add(self.bounds.finished_age_ms_max) <= now => {
                    Some(*seq)
                }
                _ => None,
            };
            let beyond_count = || {
                let queue = *self.overfull.first()?;
                self.index.queues[queue as usize]
                    .finished
                    .first()
                    .map(|(_, seq)| *seq)
            };
            match old.or_else(beyond_count) {
                Some(seq) => self.delete(seq),
                None => return,
            }
        }
    }
}
