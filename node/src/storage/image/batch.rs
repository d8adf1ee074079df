//! One batch: what goes into the image at one moment, as rows.

use std::io;
use std::sync::Arc;

use super::base::Base;
use super::db::{Db, Key, Rows};
use super::dirty::Taken;
use super::{bad, head};
use crate::limits::IMAGE_REBUILD_ROWS;
use crate::storage::snapshot::{Frozen, SnapshotIdentity};
use crate::storage::step::{Act, Step, take};
use crate::task::hash;
use crate::task::row::TaskRow;

/// The state at `frozen.position`, and what of it the image does not have.
pub struct Batch {
    pub frozen: Frozen,
    pub taken: Taken,
}

/// A piece of a rebuild.
enum Piece {
    Upto(u64),
    Last,
}

/// How far the image is rebuilt.
pub struct Rebuild {
    /// Tasks up to here are in the image.
    pub done_upto: u64,
    pub base: Option<Arc<Base>>,
}

impl Batch {
    pub fn payload_bytes(&self) -> u64 {
        self.taken
            .fresh
            .values()
            .map(|payload| payload.len() as u64)
            .sum()
    }

    /// Answers whether the image is complete. Payloads come before the rows that need them, in one atomic batch,
    /// and go after the rows that do not: a row is never there without its payload.
    pub fn write(
        &self,
        db: &Db,
        namespaces_written: usize,
        rebuild: Option<&mut Rebuild>,
        identity: &SnapshotIdentity,
    ) -> io::Result<bool> {
        let tables = &self.frozen.tables;
        let mut fresh: Vec<_> = self.taken.fresh.iter().collect();
        fresh.sort_unstable_by_key(|(seq, _)| **seq);
        let dir = db.dir();
        take(Step::ImagePayloads, Act::Write(dir), || {
            let mut fresh = fresh.into_iter();
            fresh.try_for_each(|(seq, payload)| db.put_payload(*seq, payload))
        })?;
        let mut rows = Rows::default();
        for (id, name) in tables.namespaces.iter().skip(namespaces_written) {
            rows.put(Key::Namespace(*id), encode(&(*id, name))?);
        }
        for id in &self.taken.queues {
            if let Some(queue) = tables.queues.get(id) {
                rows.put(Key::Queue(*id), encode(&**queue)?);
            }
        }
        let mut tasks = self.taken.tasks.clone();
        tasks.sort_unstable();
        tasks.dedup();
        let upto = rebuild
            .as_ref()
            .map_or(u64::MAX, |rebuild| rebuild.done_upto);
        for seq in tasks.into_iter().take_while(|seq| *seq <= upto) {
            match tables.tasks.get(seq) {
                Some(row) => rows.put(Key::Task(seq), encode(&**row)?),
                None => rows.delete(Key::Task(seq)),
            }
        }
        let piece = match &rebuild {
            Some(rebuild) => self.go_on(db, rebuild, &mut rows)?,
            None => Piece::Last,
        };
        if let (Some(_), Piece::Last) = (&rebuild, &piece) {
            self.write_queues(db)?;
        }
        if let Piece::Last = piece {
            rows.head(head::encode(&self.frozen.header(identity))?);
        }
        take(Step::ImageRows, Act::Write(dir), || db.write(rows))?;
        take(Step::ImageFlush, Act::Write(dir), || db.flush())?;
        // Not before: a piece that a full disk has cut off is written again.
        if let (Some(rebuild), Piece::Upto(seq)) = (rebuild, &piece) {
            rebuild.done_upto = *seq;
        }
        take(Step::ImageDrops, Act::Write(dir), || {
            let mut dropped = self.taken.dropped.iter();
            dropped.try_for_each(|seq| db.drop_payload(*seq))
        })?;
        Ok(matches!(piece, Piece::Last))
    }

    /// All of them: a rebuild is told only of those that changed since its snapshot.
    fn write_queues(&self, db: &Db) -> io::Result<()> {
        let queues: Vec<_> = self.frozen.tables.queues.iter().collect();
        for some in queues.chunks(IMAGE_REBUILD_ROWS) {
            let mut rows = Rows::default();
            for (id, queue) in some {
                rows.put(Key::Queue(**id), encode(&***queue)?);
            }
            db.write(rows)?;
        }
        Ok(())
    }

    /// The next rows of a rebuild, with the payloads that only the snapshot has.
    fn go_on(&self, db: &Db, rebuild: &Rebuild, rows: &mut Rows) -> io::Result<Piece> {
        let mut upto = rebuild.done_upto;
        for (count, row) in self.frozen.tables.tasks.from(upto + 1).enumerate() {
            if count == IMAGE_REBUILD_ROWS {
                return Ok(Piece::Upto(upto));
            }
            if row.finished_ms().is_none()
                && let Some(base) = &rebuild.base
                && let Some(payload) = base.payload(row.seq, row.payload_bytes as usize)?
            {
                verify(&(&**row).into(), &payload)?;
                db.put_payload(row.seq, &payload)?;
            }
            rows.put(Key::Task(row.seq), encode(&**row)?);
            upto = row.seq;
        }
        Ok(Piece::Last)
    }
}

/// What a payload must be.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    pub seq: u64,
    pub payload_bytes: usize,
    pub payload_hash: [u8; 16],
}

impl From<&TaskRow> for Expected {
    fn from(row: &TaskRow) -> Expected {
        Expected {
            seq: row.seq,
            payload_bytes: row.payload_bytes as usize,
            payload_hash: row.payload_hash,
        }
    }
}

/// That these are the bytes which the create has brought.
pub fn verify(expected: &Expected, payload: &[u8]) -> io::Result<()> {
    let Expected {
        seq,
        payload_bytes,
        payload_hash,
    } = *expected;
    if payload.len() == payload_bytes && hash::of_payload(payload) == payload_hash {
        return Ok(());
    }
    Err(bad(format!(
        "the payload of task {seq} does not have its hash"
    )))
}

fn encode<T: serde::Serialize + ?Sized>(row: &T) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(row).map_err(io::Error::other)
}
