//! Ships committed entries, one segment at a time, behind what is in the bucket already.

use std::io;

use object_store::path::Path;
use tokio::task::spawn_blocking;

use super::segment::{Encoded, Hash, Head, Segment, decode, encode};
use crate::backup::bucket::{Bucket, Created, Found};
use crate::backup::error::{Access, Error};
use crate::backup::layout::Lineage;
use crate::limits::{BACKUP_SEGMENT_BYTES, BACKUP_SEGMENT_BYTES_MAX, BACKUP_SEGMENTS_LISTED_MAX};
use crate::storage::snapshot::Position;
use crate::storage::store::position;
use crate::storage::types::{Entry, wall_time_ms_of};

/// Where committed entries come from.
pub trait Source {
    /// Those from this index on, up to about so many bytes (one is always given). Empty: there are none yet.
    /// None: the one with this index is gone.
    fn committed(
        &self,
        from: u64,
        bytes_max: usize,
    ) -> impl Future<Output = io::Result<Option<Vec<Entry>>>> + Send;
}

/// How far the log in the bucket goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    pub last: Position,
    pub wall_time_ms: u64,
    /// Of the last segment; none where the next one starts a chain.
    hash: Option<Hash>,
}

/// What one step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The log in the bucket goes this far now.
    Shipped(End),
    /// Nothing new is committed.
    Idle,
    /// What should come next is gone from this member's log, and nobody has shipped it. The chain has ended:
    /// the next one starts behind a new backup.
    Gap,
}

impl End {
    /// Where a chain starts: right behind a backup.
    pub fn of_backup(last: Position, wall_time_ms: u64) -> End {
        End {
            last,
            wall_time_ms,
            hash: None,
        }
    }

    pub(super) fn is(&self, hash: &Hash) -> bool {
        self.hash.as_ref() == Some(hash)
    }

    pub(super) fn of_segment(segment: &Segment) -> End {
        End {
            last: segment.head.last,
            wall_time_ms: segment.head.wall_time_ms,
            hash: Some(segment.hash),
        }
    }
}

/// The end of the newest chain, read back and checked; none where nothing was shipped. A list that is older
/// than the bucket only makes the next steps find what it lacks.
pub async fn end(bucket: &Bucket, lineage: &Lineage) -> Result<Option<End>, Error> {
    match first_indexes(bucket, lineage).await?.last() {
        Some(first) => {
            let segment = read(bucket, lineage, *first).await?;
            Ok(Some(End::of_segment(&segment)))
        }
        None => Ok(None),
    }
}

/// Ships what is committed behind `end`, at most one segment.
pub async fn step(
    bucket: &Bucket,
    lineage: &Lineage,
    end: &End,
    source: &impl Source,
) -> Result<Step, Error> {
    let from = end.last.index + 1;
    let Some(entries) = source.committed(from, BACKUP_SEGMENT_BYTES).await? else {
        // Others may have shipped on meanwhile: a chain beside theirs would serve nobody.
        let found = self::end(bucket, lineage).await?;
        let further = found.filter(|found| found.last > end.last);
        return Ok(further.map_or(Step::Gap, Step::Shipped));
    };
    let Some(last) = entries.last() else {
        return Ok(Step::Idle);
    };
    let mut head = Head {
        identity: lineage.identity(),
        previous: end.hash,
        after: end.last,
        last: position(last.log_id),
        entries: entries.len() as u64,
        wall_time_ms: end.wall_time_ms,
    };
    let (head, encoded) = aside(move || {
        head.wall_time_ms = wall_time_ms(&entries)?.max(head.wall_time_ms);
        let encoded = encode(&head, &entries);
        Ok((head, encoded))
    })
    .await?;
    if let Some(other) = create(bucket, lineage, from, &encoded).await? {
        // Another member was here: its segment counts, if it goes on from where this one would have. It may
        // name another segment that ends there: then two chains have met.
        return match other.head.after == end.last {
            true => Ok(Step::Shipped(End::of_segment(&other))),
            false => Err(Error::damaged(
                bucket.name_of(&path(lineage, from)),
                "it does not go on from the segment before",
            )),
        };
    }
    Ok(Step::Shipped(End {
        last: head.last,
        wall_time_ms: head.wall_time_ms,
        hash: Some(encoded.hash),
    }))
}

/// None: it is ours that is there. The answer to the create may be lost, so what is there is looked at.
async fn create(
    bucket: &Bucket,
    lineage: &Lineage,
    first_index: u64,
    encoded: &Encoded,
) -> Result<Option<Segment>, Error> {
    let path = path(lineage, first_index);
    let created = bucket.create(&path, encoded.bytes.clone()).await;
    if let Ok(Created::Now) = created {
        return Ok(None);
    }
    match (read(bucket, lineage, first_index).await, created) {
        (Ok(found), _) if found.hash == encoded.hash => Ok(None),
        (Ok(found), _) => Ok(Some(found)),
        (Err(Error::Missing { .. }), Err(error)) => Err(error),
        (Err(Error::Missing { .. }), Ok(_)) => Err(Error::unavailable(
            Access::Read,
            bucket.name_of(&path),
            "it was there and is not",
        )),
        (Err(error), _) => Err(error),
    }
}

pub async fn read(bucket: &Bucket, lineage: &Lineage, first_index: u64) -> Result<Segment, Error> {
    let path = path(lineage, first_index);
    let bytes = bucket.get(&path, BACKUP_SEGMENT_BYTES_MAX as u64).await?;
    let (object, lineage) = (bucket.name_of(&path), lineage.clone());
    aside(move || decode(&bytes, &object, &lineage, first_index)).await
}

/// Milliseconds of hashing and copying: not on the threads that carry heartbeats.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Of the segments that are listed, in order.
pub async fn first_indexes(bucket: &Bucket, lineage: &Lineage) -> Result<Vec<u64>, Error> {
    let index_of = |found: Found| {
        let name = found.path.filename()?.strip_suffix(".segment")?;
        name.parse::<u64>().ok()
    };
    let folder = folder(lineage);
    let mut indexes = bucket
        .list(&folder, BACKUP_SEGMENTS_LISTED_MAX, index_of)
        .await?;
    if indexes.len() >= BACKUP_SEGMENTS_LISTED_MAX {
        let reason = format!("it holds more than {BACKUP_SEGMENTS_LISTED_MAX} segments");
        return Err(Error::unavailable(
            Access::List,
            bucket.name_of(&folder),
            reason,
        ));
    }
    indexes.sort_unstable();
    Ok(indexes)
}

fn folder(lineage: &Lineage) -> Path {
    lineage.folder().join("log")
}

pub fn path(lineage: &Lineage, first_index: u64) -> Path {
    folder(lineage).join(format!("{first_index:020}.segment"))
}

/// The highest in these entries, by the leaders' clocks.
fn wall_time_ms(entries: &[Entry]) -> Result<u64, Error> {
    let mut highest = 0;
    for entry in entries {
        highest = highest.max(wall_time_ms_of(entry)?.unwrap_or(0));
    }
    Ok(highest)
}
