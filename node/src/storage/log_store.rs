//! openraft's view of the log: `RaftLogStorage` and `RaftLogReader`.
//!
//! `append` returns when the entries can be read from the ring; the callback follows the fdatasync. Vote,
//! truncation and purge queue behind appends and return when they are on the disk. `save_committed` only
//! notes the value: it rides in the next frame, so it never passes the entries.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::{Stream, TryStreamExt};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::watch;

use super::log::disk::{Disk, SystemDisk};
use super::log::queue::{Done, Item, QueuedEntry, Shared, State};
use super::log::read::read_plan;
use super::log::recovery::Recovered;
use super::log::segment::Segments;
use super::log::writer::{OnDisk, Writer, entry_bytes_max};
use super::log::{FatalHook, LogError, LogHooks};
use super::on_panic::OnPanic;
use super::types::{Entry, LogId, TypeConfig, Vote};
use crate::limits::{
    APPEND_BYTES_MAX, ENTRY_BYTES_MAX, LOG_HIGH_WATER_PERCENT, LOG_MARK_MS, LOG_QUIET_MS,
    LOG_RING_BYTES_MAX,
};

#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// Recent entries kept in memory; entries not yet flushed may take as much again.
    pub ring_bytes_max: usize,
    /// Silence after which an empty frame carries `synced_to` forward.
    pub quiet: Duration,
    /// Under load the last frame is noted this often in a file of its own.
    pub mark_every: Duration,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            ring_bytes_max: LOG_RING_BYTES_MAX,
            quiet: Duration::from_millis(LOG_QUIET_MS),
            mark_every: Duration::from_millis(LOG_MARK_MS),
        }
    }
}

/// How much of the log's reserved space is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogDisk {
    pub budget_bytes: u64,
    /// Of the budget, what entries may fill: the last segment is kept for votes and purges.
    pub usable_bytes: u64,
    pub used_bytes: u64,
    /// What the file system has left beside the reserved log.
    pub filesystem_free_bytes: u64,
}

impl LogDisk {
    /// Creates are refused on every voter while one is this full.
    pub fn is_high(&self) -> bool {
        is_high(self.used_bytes, self.usable_bytes)
    }
}

fn is_high(used_bytes: u64, usable_bytes: u64) -> bool {
    used_bytes * 100 >= usable_bytes * LOG_HIGH_WATER_PERCENT
}

pub struct LogStore<D: Disk = SystemDisk> {
    owner: Arc<Owner<D>>,
}

impl<D: Disk> Clone for LogStore<D> {
    fn clone(&self) -> Self {
        LogStore {
            owner: self.owner.clone(),
        }
    }
}

struct Owner<D: Disk> {
    shared: Arc<Shared>,
    segments: Arc<Segments<D>>,
    /// Ends with the writer.
    on_disk: watch::Receiver<OnDisk>,
    fatal: FatalHook,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<D: Disk> Owner<D> {
    fn close(&self) {
        self.shared.close();
        let thread = self.thread.lock().expect("closing does not panic").take();
        if let Some(thread) = thread {
            // A writer that panicked has nothing more to say here; its callers got an error.
            drop(thread.join());
        }
    }
}

impl<D: Disk> Drop for Owner<D> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<D: Disk> LogStore<D> {
    /// Starts the writer on a log that was read whole.
    pub fn start(
        recovered: Recovered<D>,
        options: LogOptions,
        hooks: LogHooks,
    ) -> io::Result<LogStore<D>> {
        let Recovered {
            segments,
            head,
            range,
            vote,
            committed,
            index,
            ..
        } = recovered;
        let shared = Shared::new(
            (head, range, index),
            (vote, committed),
            options.ring_bytes_max,
            options.quiet,
        );
        let shared = Arc::new(shared);
        let fatal = hooks.fatal.clone();
        let (ended, end) = (shared.clone(), fatal.clone());
        let guard = OnPanic(move || {
            let reason = "the log's writer panicked";
            end("log writer", &io::Error::other(reason));
            ended.fail(reason);
        });
        let (writer, on_disk) = Writer::new(
            shared.clone(),
            segments.clone(),
            (head, range, vote),
            hooks,
            options.mark_every,
        );
        let thread = std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || {
                let _guard = guard;
                writer.run()
            })?;
        let owner = Owner {
            shared,
            segments,
            on_disk,
            fatal,
            thread: Mutex::new(Some(thread)),
        };
        Ok(LogStore {
            owner: Arc::new(owner),
        })
    }

    /// Writes what is queued, carries `synced_to` and committed forward, and ends the writer. Blocks for
    /// the last flush. Everything after it is refused.
    pub fn close(&self) {
        self.owner.close();
    }

    pub fn disk(&self) -> io::Result<LogDisk> {
        let geometry = self.owner.segments.geometry();
        Ok(LogDisk {
            budget_bytes: geometry.budget_bytes(),
            usable_bytes: geometry.usable_bytes(),
            used_bytes: self.owner.shared.lock().head.used_bytes(geometry),
            filesystem_free_bytes: self.owner.segments.filesystem_free_bytes()?,
        })
    }

    /// Bytes of the log's files from the entry with this index on: what a restart reads behind a snapshot.
    pub fn bytes_from(&self, index: u64) -> u64 {
        let geometry = self.owner.segments.geometry();
        self.owner.shared.lock().bytes_from(index, geometry)
    }

    /// The last entry, on the disk or on its way there; the purge point where none is behind it.
    pub fn last(&self) -> Option<LogId> {
        self.owner.shared.lock().range.last
    }

    /// Whether entries are gone that only a snapshot has.
    pub fn is_purged(&self) -> bool {
        self.owner.shared.lock().range.purged.is_some()
    }

    /// Waits until everything up to this entry is on the disk. An error: it will not get there.
    pub async fn flushed(&self, log_id: LogId) -> io::Result<()> {
        // By the whole id: what replaces a truncated entry has a higher term.
        let mut on_disk = self.owner.on_disk.clone();
        match on_disk.wait_for(|is| is.last >= Some(log_id)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::other("the log's writer ended")),
        }
    }

    /// Waits until the log becomes nearly full, or is no longer. False: the log ended.
    pub async fn high_water_left(&self, is_high_now: bool) -> bool {
        let usable_bytes = self.owner.segments.geometry().usable_bytes();
        let mut on_disk = self.owner.on_disk.clone();
        on_disk
            .wait_for(|is| is_high(is.used_bytes, usable_bytes) != is_high_now)
            .await
            .is_ok()
    }

    async fn change(&self, make: impl FnOnce(&mut State, Done) -> Item) -> io::Result<()> {
        let on_disk = self.owner.shared.change(make)?;
        on_disk
            .await
            .map_err(|_| io::Error::other("the log's writer ended"))?
    }

    /// For whoever copies the log elsewhere: entries of the range that are still there, until `bytes_max` is
    /// used up (one is always given).
    pub async fn entries(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        self.read(range, bytes_max).await
    }

    /// Entries of the range that are in the log, until `bytes_max` is used up (one is always given).
    async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        loop {
            let plan = self
                .owner
                .shared
                .lock()
                .plan(range.clone(), bytes_max)
                .map_err(invalid_data)?;
            if plan.stretches.is_empty() {
                return Ok(plan.recent);
            }
            let (start, segments) = (plan.start, self.owner.segments.clone());
            let read =
                tokio::task::spawn_blocking(move || read_plan(&segments, plan, bytes_max)).await;
            let error = match read.map_err(io::Error::other)? {
                Ok(entries) => return Ok(entries),
                Err(error) => invalid_data(error),
            };
            // Purged while it was read: its segment may be in use again. The rest is asked for anew.
            if self.owner.shared.lock().range.first <= start {
                (self.owner.fatal)("log read", &error);
                return Err(error);
            }
        }
    }
}

fn invalid_data(error: LogError) -> io::Error {
    match error {
        LogError::Io(error) => error,
        LogError::Damage(reason) => io::Error::new(io::ErrorKind::InvalidData, reason),
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl<D: Disk> RaftLogReader<TypeConfig> for LogStore<D> {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.read(bounds(&range), usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, APPEND_BYTES_MAX).await
    }

    /// In pieces, so that a long replay never stands in memory whole.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let log = self.clone();
        let pieces = futures::stream::try_unfold(bounds(&range), move |range| {
            let log = log.clone();
            async move {
                let entries = log.read(range.clone(), APPEND_BYTES_MAX).await?;
                let next = entries.last().map(|last| last.log_id.index + 1..range.end);
                Ok::<_, io::Error>(
                    next.map(|next| (futures::stream::iter(entries.into_iter().map(Ok)), next)),
                )
            }
        });
        pieces.try_flatten()
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.owner.shared.lock().vote)
    }
}

impl<D: Disk> RaftLogStorage<TypeConfig> for LogStore<D> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let range = self.owner.shared.lock().range;
        Ok(LogState {
            last_purged_log_id: range.purged,
            last_log_id: range.last,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = *vote;
        self.change(move |_, done| Item::Vote(vote, done)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.owner.shared.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let state = self.owner.shared.lock();
        Ok(state.committed.min(state.range.last))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let queued: Vec<QueuedEntry> = entries.iter().map(QueuedEntry::new).collect();
        let bytes_max =
            entry_bytes_max(self.owner.segments.geometry().sectors()).min(ENTRY_BYTES_MAX);
        if let Some(large) = queued.iter().find(|entry| entry.bytes() > bytes_max) {
            let reason = format!(
                "entry {} has {} bytes, more than {bytes_max}",
                large.id,
                large.bytes()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let mut append = Some((entries, queued, callback));
        while let Some((entries, queued, callback)) = append {
            let room = self.owner.shared.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            append = self.owner.shared.try_append(entries, queued, callback)?;
            if append.is_some() {
                room.await;
            }
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        self.change(move |state, done| {
            state.truncate(last_log_id);
            Item::Truncate(last_log_id, done)
        })
        .await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.change(move |state, done| {
            state.purge(log_id);
            Item::Purge(log_id, done)
        })
        .await
    }
}
