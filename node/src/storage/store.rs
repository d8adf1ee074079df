//! The applied state of this member, shared between openraft's apply and everyone who reads.
//!
//! Rows are in memory; payloads are where they are cheapest, see `payloads`; the disk's copy of both is
//! kept by `keep`.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use openraft::alias::SnapshotMetaOf;
use openraft::storage::SnapshotMeta;
use tokio::sync::{Notify, watch};

mod held;
mod keep;
mod payloads;

pub(in crate::storage) use self::held::Held;
pub use self::keep::Kept;
use super::codec;
use super::image::batch::Rebuild;
use super::image::writer::{Writer, WriterThread};
use super::image::{Image, Opened};
use super::log::FatalHook;
use super::snapshot::{self, Header, Look, Position, SnapshotHandle, SnapshotIdentity, Snapshots};
use super::types::{LogId, Membership, StoredMembership, TypeConfig};
use crate::limits::IMAGE_DIRTY_BYTES_MAX;
use crate::task::command::{self, Outcome};
use crate::task::id::Name;
use crate::task::state::{Bounds, State};
use crate::task::time::Deadlines;

pub struct Store {
    /// Its thread ends before what it writes goes.
    writer: WriterThread,
    shared: Arc<Shared>,
}

struct Shared {
    held: RwLock<Held>,
    image: Arc<Image>,
    snapshots: Snapshots,
    bounds: Bounds,
    fatal: FatalHook,
    progress: watch::Sender<Progress>,
    gained: Mutex<BTreeSet<(Name, Name)>>,
    gained_some: Notify,
    /// The next batch of the image is large enough.
    due: Notify,
    /// A batch was written: apply may go on.
    room: Notify,
    image_at: watch::Sender<Option<Position>>,
}

/// How far apply has come, and when the leader should propose a tick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    pub applied: Option<LogId>,
    pub deadlines: Deadlines,
}

/// One entry of the log, decoded.
pub struct Step {
    pub log_id: LogId,
    pub content: Decoded,
}

pub enum Decoded {
    Blank,
    Commands(command::Entry),
    Membership(Membership),
}

/// What the state is loaded from, as the start table has it.
pub enum Origin {
    Nothing,
    Snapshot(SnapshotHandle),
    Image(Box<Opened>),
}

impl Store {
    /// The state of the snapshot at `from`, under a folder of its own. Blocks while it loads.
    pub fn open(
        root: &Path,
        identity: SnapshotIdentity,
        from: Option<&Path>,
        bounds: Bounds,
    ) -> io::Result<Arc<Store>> {
        let dir = root.join("snapshots");
        let surveyed = snapshot::survey(&dir, &identity, Look::Whole)?;
        let snapshots = Snapshots::open(&dir, identity, surveyed)?;
        let origin = match from {
            Some(path) => Origin::Snapshot(snapshots.handle(path)?),
            None => Origin::Nothing,
        };
        let fatal = super::log::end_process();
        Store::with(snapshots, &root.join("image"), origin, bounds, fatal)
    }

    /// Blocks while it loads. An image that is not the origin is made anew.
    pub fn with(
        snapshots: Snapshots,
        image_dir: &Path,
        origin: Origin,
        bounds: Bounds,
        fatal: FatalHook,
    ) -> io::Result<Arc<Store>> {
        let (held, writer) = match origin {
            Origin::Image(opened) => {
                let Opened { db, header, state } = *opened;
                let held = Held::of(state, &header)?;
                let image = Arc::new(Image::keep(image_dir, db));
                let tables = held.state.tables().clone();
                (
                    held,
                    Writer::resume(image, fatal.clone(), header.position, tables),
                )
            }
            Origin::Snapshot(_) | Origin::Nothing => {
                let held = match origin {
                    Origin::Snapshot(handle) => Held::load(&handle, bounds)?,
                    _ => Held::new(State::with_bounds(bounds)),
                };
                let rebuild = Rebuild {
                    done_upto: 0,
                    base: held.base.clone(),
                };
                let image = Arc::new(Image::create(image_dir)?);
                (held, Writer::new(image, fatal.clone(), rebuild))
            }
        };
        let (image, written) = (writer.image().clone(), writer.written());
        Ok(Arc::new(Store {
            writer: WriterThread::start(writer)?,
            shared: Arc::new(Shared {
                progress: watch::Sender::new(held.progress()),
                held: RwLock::new(held),
                image,
                snapshots,
                bounds,
                fatal,
                gained: Mutex::default(),
                gained_some: Notify::new(),
                due: Notify::new(),
                room: Notify::new(),
                image_at: watch::Sender::new(written),
            }),
        }))
    }

    /// The state of one moment. Apply waits meanwhile: keep it short.
    pub fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.shared.held().state)
    }

    pub fn applied_state(&self) -> (Option<LogId>, StoredMembership) {
        let held = self.shared.held();
        (held.applied, held.membership.clone())
    }

    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.shared.progress.subscribe()
    }

    /// How far the image has come; none while it is rebuilt.
    pub fn image_position(&self) -> watch::Receiver<Option<Position>> {
        self.shared.image_at.subscribe()
    }

    /// Applied entries that the image lacks: all of them while it is rebuilt.
    pub fn image_lag_entries(&self) -> u64 {
        // In this order: the image is never ahead of what is applied.
        let image = *self.shared.image_at.borrow();
        let applied = self.shared.progress.borrow().applied;
        let applied_index = applied.map_or(0, |applied| applied.index);
        applied_index.saturating_sub(image.map_or(0, |image| image.index))
    }

    /// Not yet in the image, as they count towards the bound on them.
    pub fn image_dirty_bytes(&self) -> u64 {
        self.shared.held().unwritten_bytes()
    }

    /// Waits for queues (namespace, queue) that got an available task since the last call. One listener.
    pub async fn next_gained(&self) -> BTreeSet<(Name, Name)> {
        loop {
            let some = self.shared.gained_some.notified();
            let gained = std::mem::take(&mut *self.shared.gained());
            if !gained.is_empty() {
                return gained;
            }
            some.await;
        }
    }

    #[cfg(test)]
    pub(super) fn image(&self) -> Arc<Image> {
        self.shared.image.clone()
    }

    pub fn snapshots(&self) -> &Snapshots {
        &self.shared.snapshots
    }

    /// Waits while more is dirty than memory allows: the log goes on meanwhile, and what piles up before
    /// apply is refused at the door.
    pub(super) async fn room(&self) {
        loop {
            let room = self.shared.room.notified();
            if self.has_room() {
                return;
            }
            room.await;
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.shared.held().unwritten_bytes() < IMAGE_DIRTY_BYTES_MAX
    }

    /// Whether so much is dirty that it should be written without waiting for more.
    pub(super) fn is_batch_due(&self) -> bool {
        self.shared.held().is_batch_due()
    }

    pub(super) fn apply(&self, steps: Vec<Step>) -> io::Result<Vec<Vec<Outcome>>> {
        let shared = &self.shared;
        let incarnation = shared.snapshots.identity().incarnation;
        let mut held = shared.held_mut();
        let outcomes = steps
            .into_iter()
            .map(|step| held.step(incarnation, step))
            .collect::<io::Result<Vec<_>>>()?;
        let gained = held.state.take_gained();
        let progress = held.progress();
        let is_due = held.is_batch_due();
        drop(held);
        shared.progress.send_replace(progress);
        if is_due {
            shared.due.notify_one();
        }
        if !gained.is_empty() {
            shared.gained().extend(gained);
            shared.gained_some.notify_one();
        }
        Ok(outcomes)
    }
}

impl Shared {
    fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().expect("apply does not panic")
    }

    fn held_mut(&self) -> RwLockWriteGuard<'_, Held> {
        self.held.write().expect("apply does not panic")
    }

    fn gained(&self) -> std::sync::MutexGuard<'_, BTreeSet<(Name, Name)>> {
        self.gained.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn meta_of(header: &Header) -> io::Result<SnapshotMetaOf<TypeConfig>> {
    let Position { term, index } = header.position;
    Ok(SnapshotMeta {
        last_log_id: Some(codec::log_id(term, index)),
        last_membership: codec::get_stored_membership(&mut &header.membership[..])
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?,
    })
}

pub fn position(log_id: LogId) -> Position {
    Position {
        term: log_id.committed_leader_id().term,
        index: log_id.index(),
    }
}
