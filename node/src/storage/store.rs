//! The applied state of this member, shared between openraft's apply and everyone who reads.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use openraft::alias::SnapshotMetaOf;
use openraft::storage::SnapshotMeta;
use tokio::sync::{Notify, watch};

use super::codec;
use super::payloads::Payloads;
use super::snapshot::{
    self, Frozen, Header, Position, SnapshotHandle, SnapshotIdentity, Snapshots,
};
use super::types::{LogId, Membership, StoredMembership, TypeConfig};
use crate::task::command::{self, Outcome};
use crate::task::id::Name;
use crate::task::state::{At, Bounds, State};
use crate::task::time::Deadlines;

pub struct Store {
    held: RwLock<Held>,
    snapshots: Snapshots,
    bounds: Bounds,
    progress: watch::Sender<Progress>,
    gained: Mutex<BTreeSet<(Name, Name)>>,
    gained_some: Notify,
    /// One snapshot is cut at a time.
    cutting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Held {
    state: State,
    payloads: Payloads,
    applied: Option<LogId>,
    membership: StoredMembership,
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

impl Store {
    /// A folder of its own, and the state of the snapshot at `from`. Blocks while it loads.
    pub fn open(
        dir: &Path,
        identity: SnapshotIdentity,
        from: Option<&Path>,
        bounds: Bounds,
    ) -> io::Result<Arc<Store>> {
        let surveyed = snapshot::survey(dir, &identity)?;
        let snapshots = Snapshots::open(dir, identity, surveyed)?;
        let from = from.map(|path| snapshots.handle(path)).transpose()?;
        Store::with(snapshots, from.as_ref(), bounds)
    }

    /// An empty state, or that of the snapshot which the start table has chosen. Blocks while it loads.
    pub fn with(
        snapshots: Snapshots,
        from: Option<&SnapshotHandle>,
        bounds: Bounds,
    ) -> io::Result<Arc<Store>> {
        let held = match from {
            Some(handle) => Held::load(handle, bounds)?,
            None => Held {
                state: State::with_bounds(bounds),
                ..Held::default()
            },
        };
        let progress = watch::Sender::new(held.progress());
        Ok(Arc::new(Store {
            held: RwLock::new(held),
            snapshots,
            bounds,
            progress,
            gained: Mutex::default(),
            gained_some: Notify::new(),
            cutting: tokio::sync::Mutex::default(),
        }))
    }

    /// State and payloads of one moment. Apply waits meanwhile: keep it short.
    pub fn read<T>(&self, read: impl FnOnce(&State, &Payloads) -> T) -> T {
        let held = self.held();
        read(&held.state, &held.payloads)
    }

    pub fn applied_state(&self) -> (Option<LogId>, StoredMembership) {
        let held = self.held();
        (held.applied, held.membership.clone())
    }

    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Waits for queues (namespace, queue) that got an available task since the last call. One listener.
    pub async fn next_gained(&self) -> BTreeSet<(Name, Name)> {
        loop {
            let some = self.gained_some.notified();
            let gained =
                std::mem::take(&mut *self.gained.lock().unwrap_or_else(PoisonError::into_inner));
            if !gained.is_empty() {
                return gained;
            }
            some.await;
        }
    }

    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Cuts a snapshot of this moment off the async threads. `flushed(log_id)` returns once the local log
    /// is durable up to that entry: a snapshot never holds one that the log could still lose. `None` when
    /// there is nothing new. An error leaves everything as it was.
    pub async fn cut_snapshot(
        self: &Arc<Store>,
        flushed: impl AsyncFnOnce(LogId) -> io::Result<()>,
    ) -> io::Result<Option<SnapshotHandle>> {
        let Some(frozen) = self.freeze() else {
            return Ok(None);
        };
        let Position { term, index } = frozen.position;
        // Before the lock: the flush may need the engine, which an install keeps waiting for the lock.
        flushed(codec::log_id(term, index)).await?;
        let _one_at_a_time = self.cutting.lock().await;
        if self
            .snapshots
            .newest()
            .is_some_and(|newest| newest.position() >= frozen.position)
        {
            return Ok(None);
        }
        let store = self.clone();
        let cut = blocking(move || {
            let written = store.snapshots.write(&frozen)?;
            store.snapshots.publish(written)
        });
        cut.await.map(Some)
    }

    /// Replaces everything by a verified snapshot of the leader.
    pub(super) async fn install(
        self: &Arc<Store>,
        meta: SnapshotMetaOf<TypeConfig>,
        handle: SnapshotHandle,
    ) -> io::Result<()> {
        let _one_at_a_time = self.cutting.lock().await;
        let store = self.clone();
        blocking(move || {
            let handle = store.snapshots.adopt(&handle)?;
            if meta_of(&handle.header)? != meta {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the snapshot is not the announced one",
                ));
            }
            let held = Held::load(&handle, store.bounds)?;
            store.snapshots.mark_installing(&handle)?;
            store.snapshots.publish(handle)?;
            let progress = held.progress();
            let before = {
                let mut current = store.held.write().expect("apply does not panic");
                std::mem::replace(&mut *current, held)
            };
            store.progress.send_replace(progress);
            drop(before);
            Ok(())
        })
        .await
    }

    pub(super) fn apply(&self, steps: Vec<Step>) -> io::Result<Vec<Vec<Outcome>>> {
        let incarnation = self.snapshots.identity().incarnation;
        let mut held = self.held.write().expect("apply does not panic");
        let outcomes = steps
            .into_iter()
            .map(|step| held.step(incarnation, step))
            .collect::<io::Result<Vec<_>>>()?;
        let gained = held.state.take_gained();
        let progress = held.progress();
        drop(held);
        self.progress.send_replace(progress);
        if !gained.is_empty() {
            self.gained
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(gained);
            self.gained_some.notify_one();
        }
        Ok(outcomes)
    }

    fn freeze(&self) -> Option<Frozen> {
        let held = self.held();
        let applied = held.applied?;
        let mut membership = Vec::new();
        codec::put_stored_membership(&held.membership, &mut membership);
        Some(Frozen {
            position: position(applied),
            membership,
            tables: held.state.tables().clone(),
            payloads: held.payloads.clone(),
        })
    }

    fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().expect("apply does not panic")
    }
}

impl Held {
    fn load(handle: &SnapshotHandle, bounds: Bounds) -> io::Result<Held> {
        let meta = meta_of(&handle.header)?;
        let mut loaded = snapshot::load(handle, bounds)?;
        loaded
            .state
            .note_members(meta.last_membership.nodes().map(|(id, _)| *id));
        Ok(Held {
            state: loaded.state,
            payloads: loaded.payloads,
            applied: meta.last_log_id,
            membership: meta.last_membership,
        })
    }

    fn step(&mut self, incarnation: u16, step: Step) -> io::Result<Vec<Outcome>> {
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
                self.payloads.apply(effects);
            }
        }
        self.applied = Some(step.log_id);
        Ok(outcomes)
    }

    fn progress(&self) -> Progress {
        Progress {
            applied: self.applied,
            deadlines: self.state.next_deadlines(),
        }
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

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
