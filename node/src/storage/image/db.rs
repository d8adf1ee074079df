//! The one file that sees sled.
//!
//! | tree | key | value |
//! |---|---|---|
//! | `rows` | `h` | the head: what the rows under it are, see `head` |
//! | | `n` + id, `q` + id, `t` + seq | a namespace, a queue, a task as postcard |
//! | `payloads` | seq + piece | up to 16 KiB of a payload |
//!
//! Numbers in keys are big-endian, so a scan is in the order of the numbers. What this layout rests on was
//! measured with it: 1M tasks of 1 KiB, sled 0.34.7, 2 cores.
//!
//! - An atomic batch holds a lock of the whole process: every read of any tree waits. Batches of 1,000 rows
//!   held reads up for 20 to 80 ms at worst, of 30,000 for 560 ms and with 400 MiB more memory. So rows go in
//!   small batches, and payloads one by one (99K/s, against 49K/s in batches of 1,000).
//! - A leaf of up to 16 values beyond a quarter of a segment becomes a file of its own, never fsynced, and a
//!   full disk then hangs the next flush. So segments are of 2 MiB and payloads cut into pieces: no such
//!   file can arise.
//! - `flush` only hands bytes to the kernel. An fdatasync of the file after it took 0.15 ms and did the
//!   log's fsyncs no harm; it saves rebuilds after power cuts, and nothing relies on it.
//! - After a failed write everything but reads of what was flushed fails until it is opened again. Opened on a
//!   full disk, it leaves a half-made snapshot of its own that makes it refuse ever after: those are removed.
//! - Damage makes it panic (60 % of flipped bits that mattered), hang in a scan, or give rows of before, or
//!   fewer: so nothing is trusted before it was verified, on a thread of its own.
//! - What its calls replace is freed a little with every 128th call, and a batch is one call: a member under
//!   15K tasks/s grew by 2.8 GiB a minute until it was killed. So every batch frees what it left.
//! - 16 MiB of cache read as fast as 64. Disk: 1.7 times the data, 2.5 times under churn.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::watch::Watch;
use crate::limits::IMAGE_CACHE_BYTES;

/// sled asks for a power of two.
const SEGMENT_BYTES: usize = 2 << 20;
const PIECE_BYTES: usize = 16 << 10;
/// Its lock outlives a closed database by a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// Each frees up to 512 pages. What a reader holds up is left to the next batch.
const COLLECTS_MAX: usize = 4_096;

const HEAD: &[u8] = b"h";
const NAMESPACE: u8 = b'n';
const QUEUE: u8 = b'q';
const TASK: u8 = b't';

/// An open image. Its lock on the directory goes with it.
pub struct Db {
    db: sled::Db,
    rows: sled::Tree,
    payloads: sled::Tree,
    /// The same file, for what sled does not do.
    file: File,
    dir: PathBuf,
    pub watch: Arc<Watch>,
}

/// A row of the image, as bytes.
pub enum Row<'a> {
    Namespace(&'a [u8]),
    Queue(&'a [u8]),
    Task(&'a [u8]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Namespace(u32),
    Queue(u32),
    Task(u64),
}

impl Key {
    fn bytes(self) -> [u8; 9] {
        let (table, number) = match self {
            Key::Namespace(id) => (NAMESPACE, u64::from(id)),
            Key::Queue(id) => (QUEUE, u64::from(id)),
            Key::Task(seq) => (TASK, seq),
        };
        let mut key = [table; 9];
        key[1..].copy_from_slice(&number.to_be_bytes());
        key
    }
}

type Scanned = sled::Result<(sled::IVec, sled::IVec)>;

/// Row changes that reach the image together or not at all.
#[derive(Default)]
pub struct Rows {
    batch: sled::Batch,
}

impl Rows {
    pub fn put(&mut self, key: Key, row: Vec<u8>) {
        self.batch.insert(&key.bytes(), row);
    }

    pub fn delete(&mut self, key: Key) {
        self.batch.remove(&key.bytes());
    }

    pub fn head(&mut self, head: Vec<u8>) {
        self.batch.insert(HEAD, head);
    }
}

impl Db {
    /// Makes the directory if it is not there. May panic or hang on a damaged one.
    pub fn open(dir: &Path, watch: Arc<Watch>) -> io::Result<Db> {
        remove_half_made(dir)?;
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(IMAGE_CACHE_BYTES)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(None);
        let deadline = Instant::now() + LOCK_PATIENCE;
        let db = loop {
            match config.open() {
                Ok(db) => break db,
                Err(sled::Error::Io(error)) if is_locked(&error) && Instant::now() < deadline => {
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(error) => return Err(of_sled(error)),
            }
        };
        let rows = db.open_tree("rows").map_err(of_sled)?;
        let payloads = db.open_tree("payloads").map_err(of_sled)?;
        let file = File::open(dir.join("db"))?;
        Ok(Db {
            db,
            rows,
            payloads,
            file,
            dir: dir.to_owned(),
            watch,
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn head(&self) -> io::Result<Option<Vec<u8>>> {
        let head = self.watch.call(|| self.rows.get(HEAD)).map_err(of_sled)?;
        Ok(head.map(|head| head.to_vec()))
    }

    /// Every row: namespaces, queues, tasks, each in the order of its numbers.
    pub fn each_row(&self, mut look: impl FnMut(Row<'_>) -> io::Result<()>) -> io::Result<()> {
        for found in self.watched(self.rows.iter()) {
            let (key, value) = found.map_err(of_sled)?;
            match key.first() {
                Some(&NAMESPACE) => look(Row::Namespace(&value))?,
                Some(&QUEUE) => look(Row::Queue(&value))?,
                Some(&TASK) => look(Row::Task(&value))?,
                _ if *key == *HEAD => {}
                _ => return Err(super::bad(format!("a row under the key {key:?}"))),
            }
        }
        Ok(())
    }

    /// Waits while another thread writes rows.
    pub fn payload(&self, seq: u64) -> io::Result<Option<Bytes>> {
        let piece = |number| {
            let key = piece_key(seq, number);
            self.watch.call(|| self.payloads.get(key)).map_err(of_sled)
        };
        let Some(first) = piece(0)? else {
            return Ok(None);
        };
        if first.len() < PIECE_BYTES {
            return Ok(Some(Bytes::copy_from_slice(&first)));
        }
        let mut payload = BytesMut::from(&first[..]);
        for number in 1.. {
            let next = piece(number)?.unwrap_or_default();
            payload.extend_from_slice(&next);
            if next.len() < PIECE_BYTES {
                break;
            }
        }
        Ok(Some(payload.freeze()))
    }

    /// From this number on, in order.
    pub fn payloads_from(&self, seq: u64) -> impl Iterator<Item = io::Result<(u64, Bytes)>> + '_ {
        let mut pieces = self.pieces_from(seq).peekable();
        std::iter::from_fn(move || {
            let (seq, first) = match pieces.next()? {
                Ok(first) => first,
                Err(error) => return Some(Err(error)),
            };
            if first.len() < PIECE_BYTES {
                return Some(Ok((seq, Bytes::copy_from_slice(&first))));
            }
            let mut payload = BytesMut::from(&first[..]);
            while let Some(Ok((_, more))) =
                pieces.next_if(|next| matches!(next, Ok((of, _)) if *of == seq))
            {
                payload.extend_from_slice(&more);
            }
            Some(Ok((seq, payload.freeze())))
        })
    }

    /// Numbers of the tasks whose payloads are here, from this one on, in order.
    pub fn payload_keys_from(&self, seq: u64) -> impl Iterator<Item = io::Result<u64>> + '_ {
        let mut last = None;
        let seqs = self.pieces_from(seq).map(|found| found.map(|(seq, _)| seq));
        seqs.filter(move |found| match found {
            Ok(seq) => last.replace(*seq) != Some(*seq),
            Err(_) => true,
        })
    }

    fn pieces_from(&self, seq: u64) -> impl Iterator<Item = io::Result<(u64, sled::IVec)>> + '_ {
        let pieces = self.watched(self.payloads.range(piece_key(seq, 0)..));
        pieces.map(|found| {
            let (key, piece) = found.map_err(of_sled)?;
            let seq = key
                .first_chunk()
                .ok_or_else(|| super::bad("a payload's key"))?;
            Ok((u64::from_be_bytes(*seq), piece))
        })
    }

    pub fn put_payload(&self, seq: u64, payload: &[u8]) -> io::Result<()> {
        // One that fills its last piece is followed by an empty one: a short piece is the last.
        for number in 0..=payload.len() / PIECE_BYTES {
            let from = number * PIECE_BYTES;
            let piece = &payload[from..payload.len().min(from + PIECE_BYTES)];
            let key = piece_key(seq, number);
            let put = self.watch.call(|| self.payloads.insert(key, piece));
            put.map_err(of_sled)?;
        }
        Ok(())
    }

    pub fn drop_payload(&self, seq: u64) -> io::Result<()> {
        for number in 0.. {
            let key = piece_key(seq, number);
            let dropped = self.watch.call(|| self.payloads.remove(key));
            if dropped
                .map_err(of_sled)?
                .is_none_or(|piece| piece.len() < PIECE_BYTES)
            {
                break;
            }
        }
        Ok(())
    }

    pub fn write(&self, rows: Rows) -> io::Result<()> {
        let applied = self.watch.call(|| {
            let applied = self.rows.apply_batch(rows.batch);
            collect();
            applied
        });
        applied.map_err(of_sled)
    }

    /// Never again after a failure: it could wait for ever.
    pub fn flush(&self) -> io::Result<()> {
        self.watch.call(|| self.db.flush()).map_err(of_sled)?;
        self.file.sync_data()
    }

    fn watched<'a>(&'a self, mut scan: sled::Iter) -> impl Iterator<Item = Scanned> + 'a {
        std::iter::from_fn(move || self.watch.call(|| scan.next()))
    }
}

/// Frees what this thread's calls have left behind.
fn collect() {
    let is_freed = Arc::new(AtomicBool::new(false));
    let last = is_freed.clone();
    crossbeam_epoch::pin().defer(move || last.store(true, Ordering::Relaxed));
    for _ in 0..COLLECTS_MAX {
        if is_freed.load(Ordering::Relaxed) {
            return;
        }
        crossbeam_epoch::pin().flush();
    }
}

fn piece_key(seq: u64, number: usize) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&seq.to_be_bytes());
    key[8..].copy_from_slice(&(number as u16).to_be_bytes());
    key
}

fn remove_half_made(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|is| is == "generating") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn is_locked(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

fn of_sled(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) => error,
        sled::Error::Corruption { .. } => super::bad("sled found its own file damaged"),
        other => io::Error::other(other),
    }
}
