//! What a store holds under one lock: rows and the applied log id change together (I3).

use std::io;
use std::sync::Arc;

use super::{Decoded, Progress, Step, meta_of, position};
use crate::limits::{IMAGE_BATCH_BYTES, IMAGE_BATCH_CHANGES};
use crate::storage::codec;
use crate::storage::image::base::Base;
use crate::storage::image::batch::Batch;
use crate::storage::image::dirty::{Dirty, Fresh};
use crate::storage::snapshot::{self, Frozen, Header, SnapshotHandle};
use crate::storage::types::{LogId, StoredMembership};
use crate::task::command::Outcome;
use crate::task::state::{At, Bounds, State};

pub struct Held {
    pub state: State,
    pub applied: Option<LogId>,
    pub membership: StoredMembership,
    /// What the image lacks.
    pub dirty: Dirty,
    /// New payloads of the batch that is being written.
    pub writing: Arc<Fresh>,
    /// What that batch counted as dirty.
    writing_bytes: u64,
    /// While the image is rebuilt from it.
    pub base: Option<Arc<Base>>,
}

impl Held {
    pub fn new(state: State) -> Held {
        Held {
            state,
            applied: None,
            membership: StoredMembership::default(),
            dirty: Dirty::default(),
            writing: Arc::default(),
            writing_bytes: 0,
            base: None,
        }
    }

    /// A loaded state, with the rest of what it stands for.
    pub fn of(mut state: State, header: &Header) -> io::Result<Held> {
        let meta = meta_of(header)?;
        state.note_members(meta.last_membership.nodes().map(|(id, _)| *id));
        Ok(Held {
            applied: meta.last_log_id,
            membership: meta.last_membership,
            ..Held::new(state)
        })
    }

    pub fn load(handle: &SnapshotHandle, bounds: Bounds) -> io::Result<Held> {
        let loaded = snapshot::load(handle, bounds)?;
        let base = Base {
            snapshot: handle.clone(),
            places: loaded.places,
        };
        Ok(Held {
            base: Some(Arc::new(base)),
            ..Held::of(loaded.state, &handle.header)?
        })
    }

    pub fn step(&mut self, incarnation: u16, step: Step) -> io::Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        match step.content {
            Decoded::Blank => {}
            Decoded::Membership(membership) => {
                self.state
                    .note_members(membership.nodes().map(|(id, _)| *id));
                self.membership = StoredMembership::new(Some(step.log_id), membership);
            }
            Decoded::Commands(entry) => {
                let at = At {
                    index: step.log_id.index(),
                    incarnation,
                };
                let mut effects = Vec::new();
                outcomes = self
                    .state
                    .apply(at, entry, &mut effects)
                    .map_err(io::Error::other)?;
                self.dirty.note(self.state.take_changed(), effects);
            }
        }
        self.applied = Some(step.log_id);
        Ok(outcomes)
    }

    pub fn progress(&self) -> Progress {
        Progress {
            applied: self.applied,
            deadlines: self.state.next_deadlines(),
        }
    }

    pub fn is_batch_due(&self) -> bool {
        self.dirty.bytes() >= IMAGE_BATCH_BYTES || self.dirty.changes() >= IMAGE_BATCH_CHANGES
    }

    /// Kept in memory until the image has it.
    pub fn unwritten_bytes(&self) -> u64 {
        self.dirty.bytes() + self.writing_bytes
    }

    /// The batch is in the image.
    pub fn written(&mut self) {
        self.writing = Arc::default();
        self.writing_bytes = 0;
    }

    /// Everything dirty, with the state it belongs to. `None` before the first entry.
    pub fn freeze(&mut self) -> Option<Batch> {
        let applied = self.applied?;
        let mut membership = Vec::new();
        codec::put_stored_membership(&self.membership, &mut membership);
        self.writing_bytes = self.dirty.bytes();
        let taken = self.dirty.take();
        self.writing = taken.fresh.clone();
        Some(Batch {
            frozen: Frozen {
                position: position(applied),
                membership,
                tables: self.state.tables().clone(),
            },
            taken,
        })
    }
}
