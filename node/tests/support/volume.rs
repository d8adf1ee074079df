//! A member's volume, opened as a member opens it, on a disk of the test's choice, without Raft.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::EntryPayload;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use taskstore::app::disk::{clears_marker, load};
use taskstore::storage::codec::log_id;
use taskstore::storage::identity::{Content, Home, Identity, Volume};
use taskstore::storage::log::disk::Disk;
use taskstore::storage::log::{FatalHook, Geometry};
use taskstore::storage::log_store::{LogOptions, LogStore};
use taskstore::storage::machine::Machine;
use taskstore::storage::room::make_room;
use taskstore::storage::start::{Base, StartError, StartOptions};
use taskstore::storage::store::{Kept, Store};
use taskstore::storage::types::{Entry, LogId, TypeConfig};

/// Far more than anything here takes; a deadlock takes all of it.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn format(root: &Path, identity: &Identity, geometry: Geometry) {
    let volume = Volume::open(root).unwrap();
    volume.format(identity.clone(), geometry).unwrap();
}

/// What a member does Raft with.
pub struct Opened<D: Disk> {
    pub home: Home,
    pub log: LogStore<D>,
    pub store: Arc<Store>,
    pub base: Base,
    pub torn_frames: u32,
    _volume: Volume,
}

/// None: the volume is blank.
pub async fn open<D: Disk>(
    root: &Path,
    identity: &Identity,
    disk: D,
    log: LogOptions,
    fatal: FatalHook,
) -> Result<Option<Opened<D>>, StartError> {
    let volume = Volume::open(root)?;
    let Content::Stamped(home) = volume.content()? else {
        return Ok(None);
    };
    let options = StartOptions {
        log,
        disk,
        fatal,
        purged: Some(clears_marker(home.snapshots_directory())),
        wrote: None,
    };
    let loaded = load(&home, identity, options).await?;
    Ok(Some(Opened {
        home,
        log: loaded.log,
        store: loaded.store,
        base: loaded.base,
        torn_frames: loaded.torn_frames,
        _volume: volume,
    }))
}

impl<D: Disk> Opened<D> {
    pub async fn append(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        let (done, on_disk) = TypeConfig::oneshot();
        self.log.append(entries, IOFlushed::signal(done)).await?;
        on_disk.await.map_err(io::Error::other)?
    }

    pub fn machine(&self) -> Machine {
        Machine::new(self.store.clone())
    }

    pub async fn apply(&self, entries: Vec<Entry>) {
        let entries = entries.into_iter().map(|entry| Ok((entry, None)));
        let applied = self.machine().apply(futures::stream::iter(entries)).await;
        applied.unwrap();
    }

    pub fn applied(&self) -> Option<LogId> {
        self.store.applied_state().0
    }

    /// As the service cuts.
    pub async fn cut(&self) -> Option<LogId> {
        let cut = self.store.cut_snapshot(|log_id| self.log.flushed(log_id));
        let cut = tokio::time::timeout(PATIENCE, cut).await;
        let position = cut.expect("no wait").unwrap()?.position();
        Some(log_id(position.term, position.index))
    }

    /// Until the image holds the state.
    pub async fn keep_image(&self) {
        let keep = || self.store.write_behind(|log_id| self.log.flushed(log_id));
        while keep().await.unwrap() == Kept::Rebuilding {}
    }

    /// As a member does before Raft starts.
    pub async fn make_room(&mut self) {
        make_room(&mut self.log, &self.store).await.unwrap();
    }

    /// Applies the whole log behind the state; false if they do not join.
    pub async fn replay(&mut self) -> bool {
        let next = self.applied().map_or(0, |applied| applied.index + 1);
        let entries = self.log.try_get_log_entries(next..).await.unwrap();
        let joins = match entries.first() {
            Some(first) => first.log_id.index == next,
            None => self.log.get_log_state().await.unwrap().last_log_id <= self.applied(),
        };
        self.apply(entries).await;
        joins
    }
}

pub fn blanks(term: u64, indexes: std::ops::Range<u64>) -> Vec<Entry> {
    let blank = |index| Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Blank,
    };
    indexes.map(blank).collect()
}
