//! What callers and the writer share: the queue, the ring of recent entries, and what the log holds now.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use super::index::{Anchor, Index, LogRange, Place};
use super::recovery::Head;
use super::{Geometry, LogError};
use crate::storage::codec::{ENTRY_HEAD_BYTES, entry_parts};
use crate::storage::types::{Entry, LogId, TypeConfig, Vote};

type Flushed = openraft::storage::IOFlushed<TypeConfig>;
pub type Done = oneshot::Sender<io::Result<()>>;

/// An append that waits for room.
type Append = (Vec<Entry>, Vec<QueuedEntry>, Flushed);

/// An entry as it will stand in a frame.
pub struct QueuedEntry {
    pub id: LogId,
    pub head: [u8; ENTRY_HEAD_BYTES],
    pub body: Bytes,
}

impl QueuedEntry {
    pub fn new(entry: &Entry) -> QueuedEntry {
        let (head, body) = entry_parts(entry);
        QueuedEntry {
            id: entry.log_id,
            head,
            body,
        }
    }

    pub fn bytes(&self) -> usize {
        ENTRY_HEAD_BYTES + self.body.len()
    }
}

pub enum Item {
    Entry(QueuedEntry),
    /// All entries before it are on the disk.
    Flushed(Flushed),
    Vote(Vote, Done),
    Truncate(Option<LogId>, Done),
    Purge(LogId, Done),
}

/// What the next frame holds: at most one truncation and one purge, before the entries.
#[derive(Default)]
pub struct Batch {
    pub entries: Vec<QueuedEntry>,
    pub entry_bytes: usize,
    pub vote: Option<Vote>,
    pub truncate: Option<Option<LogId>>,
    pub purge: Option<LogId>,
    pub committed: Option<LogId>,
    flushed: Vec<Flushed>,
    done: Vec<Done>,
}

impl Batch {
    /// Nobody waits for it: it carries `synced_to` and committed forward.
    pub fn is_carry(&self) -> bool {
        self.entries.is_empty()
            && self.vote.is_none()
            && self.truncate.is_none()
            && self.purge.is_none()
    }

    /// Tells everyone who waits for this frame that it is not on the disk.
    pub fn fail(&mut self, reason: &str) {
        let error = || io::Error::other(reason.to_owned());
        self.flushed
            .drain(..)
            .for_each(|flushed| flushed.io_completed(Err(error())));
        self.done
            .drain(..)
            .for_each(|done| drop(done.send(Err(error()))));
    }

    /// Takes what fits one frame, in order.
    fn take(queue: &mut VecDeque<Item>, room_bytes: usize) -> Batch {
        let mut batch = Batch::default();
        while let Some(item) = queue.pop_front() {
            match item {
                Item::Entry(entry)
                    if batch.entries.is_empty()
                        || batch.entry_bytes + entry.bytes() <= room_bytes =>
                {
                    batch.entry_bytes += entry.bytes();
                    batch.entries.push(entry);
                }
                Item::Flushed(flushed) => batch.flushed.push(flushed),
                Item::Vote(vote, done) => {
                    batch.vote = Some(vote);
                    batch.done.push(done);
                }
                Item::Truncate(to, done)
                    if batch.entries.is_empty()
                        && batch.truncate.is_none()
                        && batch.purge.is_none() =>
                {
                    batch.truncate = Some(to);
                    batch.done.push(done);
                }
                Item::Purge(to, done) if batch.entries.is_empty() && batch.purge.is_none() => {
                    batch.purge = Some(to);
                    batch.done.push(done);
                }
                full => {
                    queue.push_front(full);
                    break;
                }
            }
        }
        batch
    }
}

enum Phase {
    Open,
    Closing,
    Failed(String),
}

pub struct State {
    /// Everything appended, flushed or not.
    pub range: LogRange,
    /// The last vote on the disk.
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    committed_written: Option<LogId>,
    ring: VecDeque<Entry>,
    ring_bytes: usize,
    queue: VecDeque<Item>,
    waiting_bytes: usize,
    index: Index,
    pub head: Head,
    phase: Phase,
}

/// Where entries asked for are: first in the files, then in memory.
pub struct ReadPlan {
    pub start: u64,
    pub stretches: Vec<(Anchor, Range<u64>)>,
    pub recent: Vec<Entry>,
}

pub struct Shared {
    state: Mutex<State>,
    work: Condvar,
    pub room: Notify,
    ring_bytes_max: usize,
    quiet: Duration,
}

fn ring_entry_bytes(entry: &Entry) -> usize {
    let payload = match &entry.payload {
        openraft::EntryPayload::Normal(bytes) => bytes.0.len(),
        _ => 0,
    };
    std::mem::size_of::<Entry>() + payload
}

impl Shared {
    pub fn new(
        (head, range, index): (Head, LogRange, Index),
        (vote, committed): (Option<Vote>, Option<LogId>),
        ring_bytes_max: usize,
        quiet: Duration,
    ) -> Shared {
        let state = State {
            range,
            vote,
            committed,
            committed_written: committed,
            ring: VecDeque::new(),
            ring_bytes: 0,
            queue: VecDeque::new(),
            waiting_bytes: 0,
            index,
            head,
            phase: Phase::Open,
        };
        Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            room: Notify::new(),
            ring_bytes_max,
            quiet,
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds the log's state")
    }

    /// Queues entries unless too many wait for the disk; then they are given back.
    pub fn try_append(
        &self,
        entries: Vec<Entry>,
        queued: Vec<QueuedEntry>,
        flushed: Flushed,
    ) -> io::Result<Option<Append>> {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.check_open()?;
        if state.waiting_bytes > self.ring_bytes_max {
            return Ok(Some((entries, queued, flushed)));
        }
        for (entry, queued) in entries.into_iter().zip(queued) {
            if !state.range.follows(entry.log_id.index) {
                let reason = format!(
                    "entry {} does not follow {:?}",
                    entry.log_id, state.range.last
                );
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
            }
            state.range.append(entry.log_id);
            state.waiting_bytes += queued.bytes();
            state.ring_bytes += ring_entry_bytes(&entry);
            state.ring.push_back(entry);
            state.queue.push_back(Item::Entry(queued));
        }
        state.queue.push_back(Item::Flushed(flushed));
        drop(guard);
        self.work.notify_one();
        Ok(None)
    }

    /// Queues a change and tells when it is on the disk.
    pub fn change(
        &self,
        make: impl FnOnce(&mut State, Done) -> Item,
    ) -> io::Result<oneshot::Receiver<io::Result<()>>> {
        let (done, on_disk) = oneshot::channel();
        let mut guard = self.lock();
        let state = &mut *guard;
        state.check_open()?;
        let item = make(state, done);
        state.queue.push_back(item);
        drop(guard);
        self.work.notify_one();
        Ok(on_disk)
    }

    /// Waits for the next frame's contents; `None`: the log is closed. `left_bytes` fit this segment.
    pub fn next_batch(
        &self,
        left_bytes: usize,
        whole_bytes: usize,
        mut is_carried: bool,
    ) -> Option<Batch> {
        let mut state = self.lock();
        loop {
            if !state.queue.is_empty() {
                break;
            }
            is_carried = is_carried && state.committed == state.committed_written;
            match state.phase {
                Phase::Open if is_carried => {
                    state = self
                        .work
                        .wait(state)
                        .expect("nothing panics while it holds the log's state");
                }
                Phase::Open => {
                    let waited = self.work.wait_timeout(state, self.quiet);
                    let (next, waited) =
                        waited.expect("nothing panics while it holds the log's state");
                    state = next;
                    if waited.timed_out() && state.queue.is_empty() {
                        break;
                    }
                }
                Phase::Closing if !is_carried => break,
                _ => return None,
            }
        }
        let first_entry = state.queue.iter().find_map(|item| match item {
            Item::Entry(entry) => Some(entry.bytes()),
            _ => None,
        });
        let fits_here = first_entry.is_none_or(|bytes| bytes <= left_bytes);
        let mut batch = Batch::take(
            &mut state.queue,
            if fits_here { left_bytes } else { whole_bytes },
        );
        batch.committed = state.committed;
        Some(batch)
    }

    pub fn is_idle(&self) -> bool {
        self.lock().queue.is_empty()
    }

    pub fn enter_segment(&self, generation: u32) {
        self.lock().index.enter_segment(generation);
    }

    /// Forgets truncated and purged places; the oldest segment still needed.
    pub fn drop_before(&self, truncated_next: Option<u64>, purged: Option<LogId>) -> u32 {
        let mut state = self.lock();
        truncated_next
            .into_iter()
            .for_each(|next| state.index.truncate(next));
        state.index.purge(purged)
    }

    /// The frame is on the disk: its places become known, and everyone who waits for it hears so.
    pub fn flushed(
        &self,
        batch: &mut Batch,
        place: Place,
        ends: Option<(LogId, LogId)>,
        head: &Head,
        vote: Option<Vote>,
    ) {
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some((first, last)) = ends {
            state.index.add_entries(place, first.index, last.index);
            state.waiting_bytes -= batch.entry_bytes;
            while state.ring_bytes > self.ring_bytes_max
                && state.ring.front().is_some_and(|entry| entry.log_id <= last)
            {
                // Compared by whole ids: what replaced a truncated entry has a higher term and is not flushed.
                let evicted = state.ring.pop_front();
                state.ring_bytes -= evicted.as_ref().map_or(0, ring_entry_bytes);
            }
        }
        state.head = *head;
        state.vote = vote;
        state.committed_written = batch.committed;
        drop(guard);
        if ends.is_some() {
            self.room.notify_waiters();
        }
        batch
            .flushed
            .drain(..)
            .for_each(|flushed| flushed.io_completed(Ok(())));
        // Whoever stopped waiting does not need the answer.
        batch
            .done
            .drain(..)
            .for_each(|done| drop(done.send(Ok(()))));
    }

    /// Refuses everything from now on.
    pub fn fail(&self, reason: &str) {
        let mut state = self.lock();
        state.phase = Phase::Failed(reason.into());
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        self.room.notify_waiters();
        for item in queue {
            if let Item::Flushed(flushed) = item {
                flushed.io_completed(Err(io::Error::other(reason.to_owned())));
            }
        }
    }

    /// Ends the writer once everything queued is written.
    pub fn close(&self) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Open) {
            state.phase = Phase::Closing;
        }
        drop(state);
        self.work.notify_one();
        self.room.notify_waiters();
    }
}

impl State {
    /// Bytes of the files from the entry with this index on.
    pub fn bytes_from(&self, index: u64, geometry: Geometry) -> u64 {
        if index >= self.range.next() {
            return 0;
        }
        self.index.place_of(index).map_or(0, |place| {
            self.head
                .bytes_since((place.generation, place.sector), geometry)
        })
    }

    fn check_open(&self) -> io::Result<()> {
        match &self.phase {
            Phase::Open => Ok(()),
            Phase::Closing => Err(io::Error::other("the log is closed")),
            Phase::Failed(reason) => Err(io::Error::other(reason.clone())),
        }
    }

    /// Truncates what readers see; the frame follows.
    pub fn truncate(&mut self, to: Option<LogId>) {
        self.range.truncate(to);
        let next = self.range.next();
        while self
            .ring
            .back()
            .is_some_and(|entry| entry.log_id.index >= next)
        {
            let gone = self.ring.pop_back();
            self.ring_bytes -= gone.as_ref().map_or(0, ring_entry_bytes);
        }
    }

    pub fn purge(&mut self, to: LogId) {
        self.range.purge(to);
        while self
            .ring
            .front()
            .is_some_and(|entry| entry.log_id.index <= to.index)
        {
            let gone = self.ring.pop_front();
            self.ring_bytes -= gone.as_ref().map_or(0, ring_entry_bytes);
        }
    }

    /// The first index that the ring holds; all later ones are in it.
    fn ring_first(&self) -> u64 {
        self.ring
            .front()
            .map_or(self.range.next(), |entry| entry.log_id.index)
    }

    /// What a read of these entries takes: stretches of the files, then entries of the ring.
    pub fn plan(&self, range: Range<u64>, bytes_max: usize) -> Result<ReadPlan, LogError> {
        let start = range.start.max(self.range.first);
        let end = range.end.min(self.range.next());
        let mut plan = ReadPlan {
            start,
            stretches: Vec::new(),
            recent: Vec::new(),
        };
        let ring_first = self.ring_first();
        let mut at = start;
        while at < end.min(ring_first) {
            // Entries behind the ring are flushed, so an anchor stands before each of them.
            let found = self.index.find(at, ring_first);
            let (anchor, stretch_end) =
                found.ok_or_else(|| LogError::damage(format!("entry {at} has no place")))?;
            let stretch_end = stretch_end.min(end);
            plan.stretches.push((anchor, at..stretch_end));
            at = stretch_end;
        }
        let mut bytes_left = bytes_max;
        let skip = at.saturating_sub(ring_first) as usize;
        for entry in self
            .ring
            .iter()
            .skip(skip)
            .take(end.saturating_sub(at) as usize)
        {
            let bytes = ring_entry_bytes(entry);
            if !plan.recent.is_empty() && bytes > bytes_left {
                break;
            }
            bytes_left = bytes_left.saturating_sub(bytes);
            plan.recent.push(entry.clone());
        }
        Ok(plan)
    }
}
