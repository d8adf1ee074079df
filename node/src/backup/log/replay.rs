//! Reads what follows a backup, entry by entry, up to an index, a moment or the end, and believes nothing: the
//! chain must start at the backup's last entry and go on without a gap, each segment naming the one before.

use std::collections::BTreeSet;

use super::segment::Segment;
use super::ship::{End, first_indexes, path, read};
use crate::backup::bucket::Bucket;
use crate::backup::error::Error;
use crate::backup::layout::Lineage;
use crate::limits::BACKUP_SEGMENTS_BESIDE_MAX;
use crate::storage::snapshot::Position;
use crate::storage::store::position;
use crate::storage::types::{Entry, wall_time_ms_of};

/// How far to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upto {
    /// As far as the log in the bucket goes.
    Latest,
    /// This entry is the last one. It is an error when the log ends before.
    Index(u64),
    /// What was proposed up to this moment, by the clocks of the leaders.
    WallTimeMs(u64),
}

/// How far a replay came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    pub last: Position,
    pub segments: u64,
    /// 0: no entry had a time.
    pub wall_time_ms: u64,
}

/// Hands every entry behind the backup's last one to `each`, in order, with the first index of its segment, in the
/// memory of one segment. The error names the object that is wrong or missing.
pub async fn replay(
    bucket: &Bucket,
    lineage: &Lineage,
    after: Position,
    upto: Upto,
    mut each: impl FnMut(u64, Entry) -> Result<(), Error>,
) -> Result<Reached, Error> {
    let mut reached = Reached {
        last: after,
        segments: 0,
        wall_time_ms: 0,
    };
    match upto {
        Upto::Index(index) if index < after.index => {
            let bound = format!("must be at least {}, where the backup ends", after.index);
            return Err(Error::invalid("index", bound));
        }
        Upto::Index(index) if index == after.index => return Ok(reached),
        _ => {}
    }
    let mut walk = Walk::begin(bucket, lineage, after).await?;
    while let Some(segment) = walk.step().await? {
        reached.segments += 1;
        let first_index = segment.head.first_index();
        let ours = |at: Position| match at.index == after.index && at != after {
            true => Err(Error::damaged(
                path_of(bucket, lineage, first_index),
                "it holds another history than the backup",
            )),
            false => Ok(()),
        };
        ours(segment.head.after)?;
        for entry in segment.entries {
            let at = position(entry.log_id);
            if at.index <= after.index {
                ours(at)?;
            }
            if at.index <= reached.last.index {
                continue;
            }
            let wall_time_ms = wall_time_ms_of(&entry)?.unwrap_or(reached.wall_time_ms);
            let is_beyond = match upto {
                Upto::Latest | Upto::Index(_) => false,
                Upto::WallTimeMs(moment_ms) => wall_time_ms > moment_ms,
            };
            if is_beyond {
                return Ok(reached);
            }
            each(first_index, entry)?;
            reached.last = at;
            reached.wall_time_ms = reached.wall_time_ms.max(wall_time_ms);
            // What lies behind is nobody's business: it may be damaged or missing.
            if upto == Upto::Index(at.index) {
                return Ok(reached);
            }
        }
    }
    match upto {
        Upto::Index(_) => Err(Error::Missing {
            object: path_of(bucket, lineage, reached.last.index + 1),
        }),
        Upto::Latest | Upto::WallTimeMs(_) => Ok(reached),
    }
}

/// The segment's full name.
pub fn path_of(bucket: &Bucket, lineage: &Lineage, first_index: u64) -> String {
    bucket.name_of(&path(lineage, first_index))
}

/// The segments from the one that goes on from a backup, each checked against the one before.
struct Walk<'a> {
    bucket: &'a Bucket,
    lineage: &'a Lineage,
    /// May be older than the bucket: a name that is not there says where the log ends.
    listed: Vec<u64>,
    visited: BTreeSet<u64>,
    next_index: u64,
    before: Option<End>,
}

impl<'a> Walk<'a> {
    async fn begin(
        bucket: &'a Bucket,
        lineage: &'a Lineage,
        after: Position,
    ) -> Result<Walk<'a>, Error> {
        let listed = first_indexes(bucket, lineage).await?;
        let next = after.index + 1;
        let first = listed.iter().rev().find(|first| **first <= next);
        let next_index = first.copied().unwrap_or(next);
        Ok(Walk {
            bucket,
            lineage,
            listed,
            visited: BTreeSet::new(),
            next_index,
            before: None,
        })
    }

    async fn step(&mut self) -> Result<Option<Segment>, Error> {
        let segment = match read(self.bucket, self.lineage, self.next_index).await {
            Err(Error::Missing { object }) => match self.beside().await? {
                Some(segment) => segment,
                // With later ones listed, it is a hole.
                None if self.listed.last() > Some(&self.next_index) => {
                    return Err(Error::Missing { object });
                }
                None => return Ok(None),
            },
            segment => {
                let segment = segment?;
                if !self.goes_on(&segment).await {
                    return Err(Error::damaged(
                        path_of(self.bucket, self.lineage, self.next_index),
                        "it does not go on from the segment before",
                    ));
                }
                segment
            }
        };
        self.visited.insert(segment.head.first_index());
        self.next_index = segment.head.last.index + 1;
        self.before = Some(End::of_segment(&segment));
        Ok(Some(segment))
    }

    /// Two members that started a chain each, at the same time, leave segments side by side. Where one of the
    /// chains ends, the other goes on: by the segment that holds the last entry and more, which may also have
    /// begun before the first one here.
    async fn beside(&self) -> Result<Option<Segment>, Error> {
        let Some(before) = self.before else {
            return Ok(None);
        };
        for first_index in self.unvisited() {
            let segment = match read(self.bucket, self.lineage, first_index).await {
                // Retention has been there since it was listed.
                Err(Error::Missing { .. }) => continue,
                // Most likely it is needed by nobody here: it does not keep all the others from a restore.
                Err(error @ Error::Damaged { .. }) if Some(&first_index) < self.visited.first() => {
                    tracing::warn!(%error, "a segment from before the backup is not looked at");
                    continue;
                }
                segment => segment?,
            };
            let mut entries = segment.entries.iter();
            let holds = entries.any(|entry| position(entry.log_id) == before.last);
            if holds && segment.head.last.index > before.last.index {
                return Ok(Some(segment));
            }
        }
        Ok(None)
    }

    /// It names the segment before by its hash, or starts a chain at that very entry, or goes on from another
    /// member's segment that ends in that very entry.
    async fn goes_on(&self, segment: &Segment) -> bool {
        let Some(before) = self.before else {
            return true;
        };
        if segment.head.after != before.last {
            return false;
        }
        let Some(previous) = segment.head.previous.filter(|hash| !before.is(hash)) else {
            return true;
        };
        for first_index in self.unvisited() {
            let other = read(self.bucket, self.lineage, first_index).await;
            let other = other.map(|other| End::of_segment(&other));
            if other.is_ok_and(|other| other.last == before.last && other.is(&previous)) {
                return true;
            }
        }
        false
    }

    /// From the newest before the next one down, a few.
    fn unvisited(&self) -> impl Iterator<Item = u64> {
        let newest_first = self.listed.iter().rev().copied();
        newest_first
            .filter(|first| *first < self.next_index && !self.visited.contains(first))
            .take(BACKUP_SEGMENTS_BESIDE_MAX)
    }
}
