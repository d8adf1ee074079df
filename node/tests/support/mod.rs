//! A log that is closed and opened again after every change, for the conformance suite.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use taskstore::storage::log::recovery::recover;
use taskstore::storage::log::{FatalHook, Geometry, LogHooks, disk::SystemDisk, segment};
use taskstore::storage::log_store::{LogOptions, LogStore};
use taskstore::storage::types::{Entry, LogId, TypeConfig, Vote};
use tokio::sync::Mutex;

pub const SMALL: Geometry = Geometry {
    segment_bytes: 16 << 10,
    segments: 12,
};

pub fn panics() -> FatalHook {
    Arc::new(|what, error| panic!("{what}: {error}"))
}

pub fn format(directory: &Path) {
    segment::format(directory, SMALL, segment::Space::All).unwrap();
}

pub fn open(directory: &Path) -> LogStore {
    let recovered = recover(directory, SMALL, 7, SystemDisk).unwrap();
    assert_eq!(recovered.torn_frames, 0);
    LogStore::start(
        recovered,
        LogOptions::default(),
        LogHooks::only_fatal(panics()),
    )
    .unwrap()
}

#[derive(Clone)]
pub struct Reopening {
    directory: PathBuf,
    log: Arc<Mutex<LogStore>>,
}

impl Reopening {
    pub fn new(directory: &Path) -> Reopening {
        Reopening {
            directory: directory.into(),
            log: Arc::new(Mutex::new(open(directory))),
        }
    }

    async fn reopen(&self) {
        let mut log = self.log.lock().await;
        log.close();
        *log = open(&self.directory);
    }
}

impl RaftLogReader<TypeConfig> for Reopening {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.log.lock().await.try_get_log_entries(range).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.log
            .lock()
            .await
            .limited_get_log_entries(start, end)
            .await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.log.lock().await.read_vote().await
    }
}

impl RaftLogStorage<TypeConfig> for Reopening {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        self.log.lock().await.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.log.lock().await.save_vote(vote).await?;
        self.reopen().await;
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.log.lock().await.save_committed(committed).await?;
        self.reopen().await;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.log.lock().await.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.log.lock().await.append(entries, callback).await?;
        self.reopen().await;
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        self.log.lock().await.truncate_after(last_log_id).await?;
        self.reopen().await;
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.log.lock().await.purge(log_id).await?;
        self.reopen().await;
        Ok(())
    }
}
