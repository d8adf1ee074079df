//! A member's volume, opened as a member opens it, on a disk of the test's choice, without Raft.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::EntryPayload;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use taskstore::app::disk::{base_of, of_snapshots, survey};
use taskstore::storage::codec::log_id;
use taskstore::storage::files::is_damage;
use taskstore::storage::identity::{Content, Home, Identity, Volume};
use taskstore::storage::log::disk::Disk;
use taskstore::storage::log::{FatalHook, Geometry};
use taskstore::storage::log_store::{LogOptions, LogStore};
use taskstore::storage::machine::Machine;
use taskstore::storage::room::make_room;
use taskstore::storage::snapshot::{self, Snapshots};
use taskstore::storage::start::{Base, StartError, StartOptions, start};
use taskstore::storage::store::Store;
use taskstore::storage::types::{Entry, LogId, TypeConfig};
use taskstore::task::state::Bounds;

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

/// The steps of `app::disk`, in its order. None: the volume is blank.
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
    let of_snapshots = of_snapshots(identity);
    let (surveyed, found) = survey(&home, &of_snapshots).await?;
    let dir = home.snapshots_directory();
    let marked = dir.clone();
    let options = StartOptions {
        log,
        disk,
        fatal,
        purged: Some(Arc::new(move |to: LogId| {
            if snapshot::installing(&marked)?.is_some_and(|at| at.index <= to.index) {
                snapshot::clear_installing_in(&marked)?;
            }
            Ok(())
        })),
        wrote: None,
    };
    let started = start(&home, identity, found, options).await?;
    let from = base_of(&surveyed, started.base);
    let snapshots = Snapshots::open(&dir, of_snapshots, surveyed)?;
    let store = Store::with(snapshots, from.as_ref(), Bounds::default()).map_err(of_read)?;
    if started.clear_installing {
        store.snapshots().clear_installing()?;
    }
    Ok(Some(Opened {
        home,
        log: started.log,
        store,
        base: started.base,
        torn_frames: started.torn_frames,
        _volume: volume,
    }))
}

fn of_read(error: io::Error) -> StartError {
    match is_damage(&error) {
        true => StartError::Damaged(format!("reading the snapshot: {error}")),
        false => error.into(),
    }
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
        let flushed = async |log_id| self.log.flushed(log_id).await;
        let cut = tokio::time::timeout(PATIENCE, self.store.cut_snapshot(flushed)).await;
        let position = cut.expect("no wait").unwrap()?.position();
        Some(log_id(position.term, position.index))
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
