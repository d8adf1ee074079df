//! Settle and extend: only the holder of the current lease token decides about a task (I7), and its
//! decision takes effect once (I8).

use super::command::{Extend, Lease, Rejection, Settle, SettleAction, Settled, TaskState};
use super::row::{Completed, LastSettle, Phase, SettleKind, TaskRow};
use super::state::{At, PayloadEffect, State};
use crate::limits::NOT_BEFORE_AHEAD_MS_MAX;

const BACK_OFF_MS_FIRST: u64 = 1_000;
const BACK_OFF_MS_MAX: u64 = 3_600_000;

impl State {
    pub(super) fn settle(
        &mut self,
        at: At,
        settle: Settle,
        effects: &mut Vec<PayloadEffect>,
    ) -> Result<Settled, Rejection> {
        let Settle { lease, action } = settle;
        let row = self.leased(&lease)?;
        let seq = row.seq;
        if !holds(at, row, &lease) {
            return settled_before(row, &lease, &action)
                .ok_or(Rejection::LeaseLost { id: lease.id });
        }
        let wall_time_ms = self.tables.meta.wall_time_ms;
        let queue = row.queue;
        let failed = matches!(action, SettleAction::Fail { .. });
        let mut state = TaskState::Running;
        self.update(at, seq, |row| {
            let kind = settle_row(row, action, wall_time_ms);
            state = row.state();
            row.past_mut().last_settle = Some(LastSettle {
                token: lease.token.0,
                kind,
                state,
                revision: at.revision(),
            });
        });
        self.totals(queue, |totals| {
            totals.failed += u64::from(failed);
            totals.completed += u64::from(state == TaskState::Completed);
            totals.discarded += u64::from(state == TaskState::Discarded);
        });
        if matches!(state, TaskState::Completed | TaskState::Discarded) {
            effects.push(PayloadEffect::Drop { seq });
        }
        Ok(Settled {
            state,
            revision: at.revision(),
        })
    }

    /// The lease now held, in milliseconds from this entry.
    pub(super) fn extend(&mut self, at: At, extend: &Extend) -> Result<u64, Rejection> {
        let row = self.leased(&extend.lease)?;
        if !holds(at, row, &extend.lease) {
            return Err(Rejection::LeaseLost {
                id: extend.lease.id.clone(),
            });
        }
        let seq = row.seq;
        let lease_ms = if extend.lease_ms == 0 {
            u64::from(row.lease_ms)
        } else {
            extend.lease_ms
        };
        let deadline_ms = self.tables.meta.lease_time_ms.saturating_add(lease_ms);
        self.update(at, seq, |row| {
            if let Phase::Running(running) = &mut row.past_mut().phase {
                running.deadline_ms = deadline_ms;
            }
        });
        Ok(lease_ms)
    }

    fn leased(&self, lease: &Lease) -> Result<&TaskRow, Rejection> {
        let namespace = self.index.namespace(&lease.namespace);
        let rows = &self.tables.tasks;
        let row = namespace.and_then(|namespace| self.index.task(rows, namespace, &lease.id));
        row.ok_or_else(|| Rejection::TaskNotFound {
            id: lease.id.clone(),
        })
    }
}

/// A token of this very entry cannot have reached its holder yet: whoever names it has guessed, and a
/// second lease within the entry would carry the same one.
fn holds(at: At, row: &TaskRow, lease: &Lease) -> bool {
    let past = row.past();
    matches!(past.phase, Phase::Running(_))
        && past.token == lease.token.0
        && lease.token != at.token()
}

fn settled_before(row: &TaskRow, lease: &Lease, action: &SettleAction) -> Option<Settled> {
    let last = row.past().last_settle?;
    (last.token == lease.token.0 && last.kind == kind(action)).then_some(Settled {
        state: last.state,
        revision: last.revision,
    })
}

fn kind(action: &SettleAction) -> SettleKind {
    match action {
        SettleAction::Complete { .. } => SettleKind::Complete,
        SettleAction::Fail { .. } => SettleKind::Fail,
        SettleAction::Release => SettleKind::Release,
    }
}

fn settle_row(row: &mut TaskRow, action: SettleAction, wall_time_ms: u64) -> SettleKind {
    let kind = kind(&action);
    let (seq, attempts_max) = (row.seq, u32::from(row.attempts_max));
    let past = row.past_mut();
    match action {
        SettleAction::Complete { result } => {
            past.error = None;
            past.phase = Phase::Completed(Completed {
                finished_ms: wall_time_ms,
                result: Vec::from(result).into(),
            });
        }
        SettleAction::Fail {
            error,
            retry_after_ms,
            discard,
        } => {
            past.failures += 1;
            past.error = (!error.is_empty()).then(|| error.into());
            past.phase = if discard || past.failures >= attempts_max {
                Phase::Discarded {
                    finished_ms: wall_time_ms,
                }
            } else {
                let wait_ms = retry_after_ms.unwrap_or_else(|| back_off_ms(past.failures, seq));
                match wait_ms.min(NOT_BEFORE_AHEAD_MS_MAX) {
                    0 => Phase::Available,
                    wait_ms => Phase::Retryable {
                        due_ms: wall_time_ms.saturating_add(wait_ms),
                    },
                }
            };
        }
        SettleAction::Release => past.phase = Phase::Available,
    }
    kind
}

/// One second, doubled with every failure, an hour at most, and up to a tenth more that differs by task,
/// so that tasks which failed together do not come back together.
pub(super) fn back_off_ms(failures: u32, seq: u64) -> u64 {
    let doublings = failures.saturating_sub(1).min(12);
    let back_off_ms = (BACK_OFF_MS_FIRST << doublings).min(BACK_OFF_MS_MAX);
    let mixed = (seq ^ (u64::from(failures) << 48)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    back_off_ms + mixed % (back_off_ms / 10 + 1)
}
