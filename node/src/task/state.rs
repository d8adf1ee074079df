//! The state and the only way to change it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::command::{Command, Entry, Outcome};
use super::hash;
use super::id::{Name, Token};
use super::index::Index;
use super::row::TaskRow;
use super::tables::Tables;
use crate::limits;

/// The highest feature level whose rules this build knows.
pub const FEATURE_LEVEL_KNOWN: u32 = 1;

/// Where an entry stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    pub index: u64,
    pub incarnation: u16,
}

impl At {
    /// Token of the leases given by this entry.
    pub fn token(self) -> Token {
        Token::new(self.incarnation, self.index)
    }

    /// Revision of the rows changed by this entry: like a token it grows across a disaster restore.
    pub fn revision(self) -> u64 {
        self.token().0
    }
}

/// What happens to payload bytes. `apply` never reads one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayloadEffect {
    Keep { seq: u64, payload: Bytes },
    Drop { seq: u64 },
}

/// Going on would make this member differ from the others: the process ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    #[error(
        "feature level {level} is not known to this build, which knows up to {FEATURE_LEVEL_KNOWN}"
    )]
    UnknownLevel { level: u32 },
}

/// The caps that apply itself enforces; the same on every member.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub task_rows_max: u64,
    pub queues_max: usize,
    pub payloads_bytes_max: u64,
    pub results_bytes_max: u64,
    pub finished_rows_max: u64,
    pub finished_age_ms_max: u64,
    pub tick_items_max: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            task_rows_max: limits::TASK_ROWS_MAX,
            queues_max: limits::QUEUES_MAX,
            payloads_bytes_max: limits::PAYLOADS_BYTES_MAX,
            results_bytes_max: limits::RESULTS_BYTES_MAX,
            finished_rows_max: limits::FINISHED_ROWS_MAX,
            finished_age_ms_max: limits::FINISHED_AGE_MS_MAX,
            tick_items_max: limits::TICK_ITEMS_MAX,
        }
    }
}

/// Rows that came, changed or went, in no order; a task may be named more than once.
#[derive(Debug, Default)]
pub struct Changed {
    pub tasks: Vec<u64>,
    pub queues: BTreeSet<u32>,
}

#[derive(Default)]
pub struct State {
    pub(super) tables: Tables,
    pub(super) index: Index,
    pub(super) bounds: Bounds,
    /// Finished rows of these queues are more than the bound.
    pub(super) overfull: BTreeSet<u32>,
    pub(super) changed: Changed,
    scratch: Vec<u8>,
}

impl State {
    pub fn with_bounds(bounds: Bounds) -> State {
        State {
            bounds,
            ..State::default()
        }
    }

    pub fn apply(
        &mut self,
        at: At,
        entry: Entry,
        effects: &mut Vec<PayloadEffect>,
    ) -> Result<Vec<Outcome>, Fatal> {
        self.tables.meta.revision = at.revision();
        self.advance(at, entry.lease_time_ms, entry.wall_time_ms, effects);
        let mut outcomes = Vec::with_capacity(entry.commands.len());
        for command in entry.commands {
            outcomes.push(match command {
                Command::Tick => Outcome::Done,
                Command::Create(create) => Outcome::Created(self.create(at, create, effects)),
                Command::Claim(claim) => Outcome::Claimed(self.claim(at, &claim)),
                Command::Settle(settles) => Outcome::Settled(
                    settles
                        .into_iter()
                        .map(|settle| self.settle(at, settle, effects))
                        .collect(),
                ),
                Command::Extend(extend) => Outcome::Extended(self.extend(at, &extend)),
                Command::ReserveMembers(reserve) => {
                    Outcome::Reserved(self.reserve_members(reserve))
                }
                Command::SetLevel(level) => self.set_level(level)?,
            });
        }
        Ok(outcomes)
    }

    /// A consistent copy that later changes do not touch, at the cost of a few pointers.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Hash over all rows: equal states on two members have equal hashes.
    pub fn hash(&self) -> u128 {
        self.tables.hash()
    }

    /// Queues that got an available task since the last call.
    pub fn take_gained(&mut self) -> Vec<(Name, Name)> {
        let gained = std::mem::take(&mut self.index.gained);
        gained
            .into_iter()
            .filter_map(|queue| self.queue_names(queue))
            .collect()
    }

    /// Rows that changed since the last call. Namespaces are only ever added.
    pub fn take_changed(&mut self) -> Changed {
        std::mem::take(&mut self.changed)
    }

    /// A level below the current one changes nothing: levels only rise.
    fn set_level(&mut self, level: u32) -> Result<Outcome, Fatal> {
        if level > FEATURE_LEVEL_KNOWN {
            return Err(Fatal::UnknownLevel { level });
        }
        self.tables.meta.feature_level = self.tables.meta.feature_level.max(level);
        Ok(Outcome::Done)
    }

    pub(super) fn insert(&mut self, mut row: TaskRow) {
        let hash = hash::of(hash::Table::Task, &row, &mut self.scratch);
        row.hash = hash.to_le_bytes();
        self.tables.tasks_hash = self.tables.tasks_hash.wrapping_add(hash);
        self.index.add(&row);
        self.changed.tasks.push(row.seq);
        self.tables.tasks.insert(row);
    }

    /// The one place where a row changes: tables, index and hash move together.
    pub(super) fn update(&mut self, at: At, seq: u64, change: impl FnOnce(&mut TaskRow)) {
        let Some(shared) = self.tables.tasks.get_mut(seq) else {
            return;
        };
        let row = Arc::make_mut(shared);
        self.index.unplace(row);
        let before = u128::from_le_bytes(row.hash);
        change(row);
        row.revision = at.revision();
        let hash = hash::of(hash::Table::Task, row, &mut self.scratch);
        row.hash = hash.to_le_bytes();
        self.index.place(row);
        self.changed.tasks.push(seq);
        let queue = row.queue;
        self.tables.tasks_hash = self
            .tables
            .tasks_hash
            .wrapping_sub(before)
            .wrapping_add(hash);
        self.note_overfull(queue);
    }

    pub(super) fn delete(&mut self, seq: u64) {
        let Some(row) = self.tables.tasks.remove(seq) else {
            return;
        };
        let hash = u128::from_le_bytes(row.hash);
        self.tables.tasks_hash = self.tables.tasks_hash.wrapping_sub(hash);
        self.index.remove(&row);
        self.changed.tasks.push(seq);
        self.note_overfull(row.queue);
    }

    pub(super) fn note_overfull(&mut self, queue: u32) {
        if self.index.queues[queue as usize].finished.len() as u64 > self.bounds.finished_rows_max {
            self.overfull.insert(queue);
        } else if !self.overfull.is_empty() {
            self.overfull.remove(&queue);
        }
    }

    pub(super) fn totals(&mut self, queue: u32, count: impl FnOnce(&mut super::queue::Totals)) {
        if let Some(row) = self.tables.queues.get_mut(&queue) {
            count(&mut Arc::make_mut(row).totals);
            self.changed.queues.insert(queue);
        }
    }
}
