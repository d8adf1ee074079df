//! The thread that writes: whatever was queued while a flush was in flight becomes the next frame.
//!
//! A frame is written, fsynced, and only then answered; the next one is written after that. A failure of
//! either ends the process (I6): nothing is tried again. In silence, and now and then under load, the
//! last frame is noted in a file of its own, after everyone has their answer.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::LogHooks;
use super::disk::Disk;
use super::frame::{HEADER_BYTES, Header};
use super::index::{LogRange, Place};
use super::queue::{Batch, Shared};
use super::recovery::Head;
use super::sector::{FrameBuffer, SECTOR_DATA_BYTES, sectors_for};
use super::segment::Segments;
use crate::limits::FRAME_BYTES_MAX;
use crate::storage::step::Step;
use crate::storage::types::{LogId, Vote};

/// The segment after the current one.
enum Next {
    Unprepared,
    Preparing(JoinHandle<io::Result<()>>),
}

/// What is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnDisk {
    pub last: Option<LogId>,
    pub used_bytes: u64,
}

pub struct Writer<D> {
    pub shared: Arc<Shared>,
    pub segments: Arc<Segments<D>>,
    pub head: Head,
    pub range: LogRange,
    pub vote: Option<Vote>,
    hooks: LogHooks,
    on_disk: watch::Sender<OnDisk>,
    next: Next,
    buffer: FrameBuffer,
    marked: Instant,
    mark_every: Duration,
}

/// Bytes of entries that a frame of so many sectors can hold.
fn room_bytes(sectors: usize) -> usize {
    (sectors * SECTOR_DATA_BYTES)
        .min(FRAME_BYTES_MAX)
        .saturating_sub(HEADER_BYTES)
}

/// Bytes of the largest entry that such a segment can hold.
pub fn entry_bytes_max(sectors: usize) -> usize {
    room_bytes(sectors)
}

type Failure = (&'static str, io::Error);

fn full() -> Failure {
    (
        "log budget",
        io::Error::new(io::ErrorKind::StorageFull, "the log's budget is used up"),
    )
}

impl<D: Disk> Writer<D> {
    pub fn new(
        shared: Arc<Shared>,
        segments: Arc<Segments<D>>,
        (head, range, vote): (Head, LogRange, Option<Vote>),
        hooks: LogHooks,
        mark_every: Duration,
    ) -> (Writer<D>, watch::Receiver<OnDisk>) {
        let buffer = FrameBuffer::default();
        let (on_disk, watched) = watch::channel(OnDisk {
            last: range.last,
            used_bytes: head.used_bytes(segments.geometry()),
        });
        let writer = Writer {
            shared,
            segments,
            head,
            range,
            vote,
            hooks,
            on_disk,
            next: Next::Unprepared,
            buffer,
            marked: Instant::now(),
            mark_every,
        };
        (writer, watched)
    }

    pub fn run(mut self) {
        let sectors = self.segments.geometry().sectors();
        loop {
            let (left, whole) = (room_bytes(sectors - self.head.sector), room_bytes(sectors));
            let Some(mut batch) = self.shared.next_batch(left, whole, self.head.is_carried) else {
                break;
            };
            if let Err((what, error)) = self.write(&mut batch) {
                (self.hooks.fatal)(what, &error);
                let reason = format!("{what}: {error}");
                self.shared.fail(&reason);
                batch.fail(&reason);
                break;
            }
        }
        if let Next::Preparing(thread) = self.next {
            // The files may be closed only when nobody writes to them; its outcome no longer matters.
            drop(thread.join());
        }
    }

    fn write(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        let is_carried = batch.is_carry();
        let sectors = sectors_for(HEADER_BYTES + batch.entry_bytes);
        if self.head.sector + sectors > self.segments.geometry().sectors() {
            self.roll()?;
        }
        // The last free segment is kept for frames without entries: a full log still notes votes and purges.
        if self.free_segments() == 0 && !batch.entries.is_empty() {
            return Err(full());
        }
        let synced_to = self.range.last;
        if let Some(to) = batch.truncate {
            self.range.truncate(to);
        }
        batch.purge.into_iter().for_each(|to| self.range.purge(to));
        let oldest = self
            .shared
            .drop_before(batch.truncate.map(|_| self.range.next()), self.range.purged);
        self.vote = batch.vote.or(self.vote);
        let header = Header {
            body_bytes: batch.entry_bytes as u32,
            entries: batch.entries.len() as u32,
            previous_checksum: self.head.checksum,
            oldest,
            synced_to,
            vote: self.vote,
            committed: batch.committed,
            purged: self.range.purged,
            truncate: batch.truncate,
        };
        let place = Place {
            generation: self.head.generation,
            sector: self.head.sector,
            sequence: self.head.sequence + 1,
        };
        self.buffer.clear(HEADER_BYTES);
        for entry in &batch.entries {
            self.buffer.put(&entry.head);
            self.buffer.put(&entry.body);
        }
        let (bytes, checksum) = self.buffer.seal(
            &header.encode(),
            self.segments.salt,
            place.generation,
            place.sequence,
        );
        let begun = Instant::now();
        self.segments
            .write(Step::FrameWrite, place.generation, place.sector, bytes)
            .map_err(|e| ("log write", e))?;
        self.segments
            .sync(Step::FrameSync, place.generation)
            .map_err(|e| ("log fsync", e))?;
        if let Some(hook) = &self.hooks.wrote {
            hook(begun.elapsed());
        }

        batch
            .entries
            .iter()
            .for_each(|entry| self.range.append(entry.id));
        self.head = Head {
            generation: place.generation,
            sector: place.sector + sectors,
            sequence: place.sequence,
            checksum,
            oldest,
            is_carried,
        };
        if let Some(hook) = self.hooks.first_frame.take() {
            hook().map_err(|e| ("identity", e))?;
        }
        if let (Some(hook), Some(to)) = (&self.hooks.purged, batch.purge) {
            hook(to).map_err(|e| ("purge", e))?;
        }
        let ends: Option<(LogId, LogId)> = batch
            .entries
            .first()
            .map(|e| e.id)
            .zip(batch.entries.last().map(|e| e.id));
        self.shared
            .flushed(batch, place, ends, &self.head, self.vote);
        self.on_disk.send_replace(OnDisk {
            last: self.range.last,
            used_bytes: self.head.used_bytes(self.segments.geometry()),
        });
        self.prepare_early();
        if (is_carried && self.shared.is_idle()) || self.marked.elapsed() >= self.mark_every {
            self.mark().map_err(|e| ("log mark", e))?;
        }
        Ok(())
    }

    fn mark(&mut self) -> io::Result<()> {
        let Head {
            generation,
            sequence,
            ..
        } = self.head;
        self.buffer.clear(1);
        let (bytes, _) = self
            .buffer
            .seal(&[1], self.segments.salt, generation, sequence);
        self.segments.write_mark(sequence, bytes)?;
        self.marked = Instant::now();
        Ok(())
    }

    fn free_segments(&self) -> u32 {
        self.segments.geometry().segments - (self.head.generation - self.head.oldest + 1)
    }

    /// Goes on in the next segment.
    fn roll(&mut self) -> Result<(), Failure> {
        if self.free_segments() == 0 {
            return Err(full());
        }
        let prepared = match std::mem::replace(&mut self.next, Next::Unprepared) {
            Next::Unprepared => self.segments.zero(self.head.generation + 1),
            Next::Preparing(thread) => thread.join().unwrap_or_else(|_| {
                Err(io::Error::other(
                    "the thread that prepares segments panicked",
                ))
            }),
        };
        prepared.map_err(|e| ("log segment", e))?;
        self.head.generation += 1;
        self.head.sector = 0;
        self.shared.enter_segment(self.head.generation);
        Ok(())
    }

    /// Fills the next segment with zeros beside the writing, once a quarter of this one is used.
    fn prepare_early(&mut self) {
        let quarter = self.segments.geometry().sectors() / 4;
        if !matches!(self.next, Next::Unprepared)
            || self.head.sector < quarter
            || self.free_segments() == 0
        {
            return;
        }
        let (segments, generation) = (self.segments.clone(), self.head.generation + 1);
        let thread = std::thread::Builder::new()
            .name("log-prepare".into())
            .spawn(move || segments.zero(generation));
        // Without a thread the segment is filled when it is needed.
        self.next = thread.map_or(Next::Unprepared, Next::Preparing);
    }
}
