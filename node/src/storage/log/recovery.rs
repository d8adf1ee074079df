//! Opening the log: every frame in use is read and checked, and what stands behind the last good one
//! decides between three ends.
//!
//! - Only zeros: the end.
//! - Zeros and some sectors of the next frame: that frame is torn, was never acknowledged, and is cut.
//! - Anything else: damage. Raft does not start on it.

use std::path::Path;
use std::sync::Arc;

use super::disk::Disk;
use super::frame::{self, Found, Header};
use super::index::{Index, LogRange, Place};
use super::sector::{SECTOR_BYTES, Sector, classify};
use super::segment::{Segments, Window};
use super::{Geometry, LogError};
use crate::storage::step::Step;
use crate::storage::types::{LogId, Vote};

const READ_BYTES: usize = 1 << 20;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Where the next frame goes, and what it follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub generation: u32,
    pub sector: usize,
    /// Of the last frame; 0 before the first.
    pub sequence: u64,
    pub checksum: u32,
    /// The oldest generation that the last frame names.
    pub oldest: u32,
    /// The last frame only carried `synced_to`.
    pub is_carried: bool,
}

impl Head {
    /// Bytes from the oldest segment in use up to here.
    pub fn used_bytes(&self, geometry: Geometry) -> u64 {
        self.bytes_since((self.oldest, 0), geometry)
    }

    /// Bytes from this generation and sector up to here.
    pub fn bytes_since(&self, (generation, sector): (u32, usize), geometry: Geometry) -> u64 {
        let whole = u64::from(self.generation - generation) * u64::from(geometry.segment_bytes);
        (whole + (self.sector * SECTOR_BYTES) as u64).saturating_sub((sector * SECTOR_BYTES) as u64)
    }
}

/// A log that was read whole.
pub struct Recovered<D> {
    pub segments: Arc<Segments<D>>,
    pub head: Head,
    pub range: LogRange,
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub index: Index,
    pub frames: u64,
    /// Frames cut because sectors were missing: 0 or 1.
    pub torn_frames: u32,
}

impl<D> std::fmt::Debug for Recovered<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} frames, {} torn, {:?}, {:?}",
            self.frames, self.torn_frames, self.range, self.head
        )
    }
}

/// Reads the whole log, cuts a torn frame, and makes what a kill left in the page cache durable.
pub fn recover<D: Disk>(
    directory: &Path,
    geometry: Geometry,
    salt: u32,
    disk: D,
) -> Result<Recovered<D>, LogError> {
    let segments = Arc::new(Segments::open(directory, geometry, salt, disk)?);
    let newest = newest_generation(&segments)?;
    let mut walk = Walk::new(&segments);
    if let Some(newest) = newest {
        walk.oldest = oldest_generation(&segments, newest)?;
        for generation in walk.oldest..=newest {
            walk.segment(generation, generation == newest)?;
        }
    }
    walk.check_coverage()?;
    let mark = segments.read_mark()?;
    if mark > walk.head.sequence {
        return Err(LogError::damage(format!(
            "frame {mark} was on the disk, the log ends at {}",
            walk.head.sequence
        )));
    }
    walk.tail(newest)?;
    if walk.frames == 0 {
        walk.index.enter_segment(1);
    }
    let Walk {
        head,
        range,
        vote,
        committed,
        index,
        frames,
        torn_frames,
        ..
    } = walk;
    segments.sync(Step::LogTailSync, head.generation)?;
    segments.sync_directory()?;
    Ok(Recovered {
        segments,
        head,
        range,
        vote,
        committed,
        index,
        frames,
        torn_frames,
    })
}

fn newest_generation<D: Disk>(segments: &Segments<D>) -> Result<Option<u32>, LogError> {
    let mut newest = None;
    let mut first = [0; SECTOR_BYTES];
    for slot in 0..segments.geometry().segments {
        // Any generation names its file: slot n is that of generation n + 1.
        segments.read(slot + 1, 0, &mut first)?;
        match classify(&first, segments.salt) {
            Sector::Zero => {}
            Sector::Good {
                generation,
                number: 0,
                ..
            } if generation > 0 && segments.slot_of(generation) == slot => {
                newest = newest.max(Some(generation));
            }
            found => {
                return Err(LogError::damage(format!(
                    "segment {slot} begins with {found:?}"
                )));
            }
        }
    }
    Ok(newest)
}

/// The oldest generation that must be there, as the last whole frame says. Only a hint where to begin:
/// the walk checks everything.
fn oldest_generation<D: Disk>(segments: &Segments<D>, newest: u32) -> Result<u32, LogError> {
    for generation in [newest, newest.saturating_sub(1)] {
        if generation == 0 {
            return Ok(1);
        }
        let mut window = Window::new(segments, generation, READ_BYTES);
        let (mut at, mut oldest) = (0, None);
        while at < segments.geometry().sectors() {
            let first = window.sectors(at, 1)?;
            let Sector::Good { sequence, .. } = classify(first, segments.salt) else {
                break;
            };
            let count = frame::sectors_at(first, segments.salt);
            match frame::check(
                window.sectors(at, count)?,
                segments.salt,
                generation,
                sequence,
            ) {
                Found::Frame { header, .. } => oldest = Some(header.oldest),
                _ => break,
            }
            at += count;
        }
        match oldest {
            Some(oldest) if (1..=generation).contains(&oldest) => return Ok(oldest),
            Some(oldest) => {
                return Err(LogError::damage(format!(
                    "segment {generation} needs segment {oldest}"
                )));
            }
            None => {}
        }
    }
    Err(LogError::damage(format!(
        "segments {newest} and the one before hold no whole frame"
    )))
}

struct Walk<'a, D> {
    segments: &'a Segments<D>,
    window: Window<'a, D>,
    oldest: u32,
    head: Head,
    range: LogRange,
    vote: Option<Vote>,
    committed: Option<LogId>,
    index: Index,
    frames: u64,
    torn_frames: u32,
}

impl<'a, D: Disk> Walk<'a, D> {
    fn new(segments: &'a Segments<D>) -> Walk<'a, D> {
        Walk {
            segments,
            window: Window::new(segments, 1, READ_BYTES),
            oldest: 1,
            head: Head {
                generation: 1,
                sector: 0,
                sequence: 0,
                checksum: 0,
                oldest: 1,
                is_carried: true,
            },
            range: LogRange::default(),
            vote: None,
            committed: None,
            index: Index::default(),
            frames: 0,
            torn_frames: 0,
        }
    }

    fn segment(&mut self, generation: u32, is_newest: bool) -> Result<(), LogError> {
        let (salt, sectors) = (self.segments.salt, self.segments.geometry().sectors());
        self.window.turn_to(generation);
        let mut at = 0;
        while at < sectors {
            let first = self.window.sectors(at, 1)?;
            // The log may begin anywhere: behind purged segments the first frame's number is its own.
            let sequence = match classify(first, salt) {
                Sector::Good { sequence, .. } if self.frames == 0 && self.oldest > 1 => sequence,
                _ => self.head.sequence + 1,
            };
            let count = frame::sectors_at(first, salt);
            match frame::check(self.window.sectors(at, count)?, salt, generation, sequence) {
                Found::Frame { header, checksum } => {
                    self.frame(
                        Place {
                            generation,
                            sector: at,
                            sequence,
                        },
                        header,
                        checksum,
                        count,
                    )?;
                }
                Found::Gap => break,
                Found::Damage(reason) => {
                    return Err(LogError::damage(format!("segment {generation}: {reason}")));
                }
            }
            at += count;
        }
        if is_newest {
            return Ok(());
        }
        if at == 0 {
            return Err(LogError::damage(format!(
                "segment {generation} holds no frame"
            )));
        }
        while at < sectors {
            if classify(self.window.sectors(at, 1)?, salt) != Sector::Zero {
                return Err(LogError::damage(format!(
                    "segment {generation} holds data behind its last frame"
                )));
            }
            at += 1;
        }
        Ok(())
    }

    fn frame(
        &mut self,
        place: Place,
        header: Header,
        checksum: u32,
        count: usize,
    ) -> Result<(), LogError> {
        let damage = |reason: String| {
            Err(LogError::damage(format!(
                "frame {}: {reason}",
                place.sequence
            )))
        };
        let begins = self.frames == 0;
        if begins && self.oldest > 1 {
            let first = header.synced_to.map_or(0, |id| id.index + 1);
            self.range = LogRange {
                purged: None,
                last: header.synced_to,
                first,
            };
        } else if header.previous_checksum != self.head.checksum {
            return damage("does not follow the frame before".into());
        }
        if header.synced_to != self.range.last {
            return damage(format!(
                "follows {:?}, not {:?}",
                header.synced_to, self.range.last
            ));
        }
        if !(self.head.oldest..=place.generation).contains(&header.oldest) {
            return damage(format!("names segment {} as the oldest", header.oldest));
        }
        if begins || place.generation != self.head.generation {
            self.index.enter_segment(place.generation);
        }
        if let Some(to) = header.truncate {
            self.range.truncate(to);
            self.index.truncate(self.range.next());
        }
        if header.purged < self.range.purged {
            return damage("its purge point went back".into());
        }
        header
            .purged
            .into_iter()
            .for_each(|purged| self.range.purge(purged));
        let first = self.range.next();
        let mut entries = None;
        let sectors = self.window.sectors(place.sector, count)?;
        for head in frame::heads(&header, sectors) {
            let id = head.map_err(|e| LogError::damage(e.to_string()))?.log_id;
            if !self.range.follows(id.index) {
                return damage(format!("entry {id} leaves a hole behind {first}"));
            }
            self.range.append(id);
            entries = Some((entries.map_or(id.index, |(first, _)| first), id.index));
        }
        if let Some((first, last)) = entries {
            self.index.add_entries(place, first, last);
        }
        self.index.purge(self.range.purged);
        let is_carried = header.is_empty() && header.vote == self.vote && !begins;
        (self.vote, self.committed) = (header.vote, header.committed);
        self.head = Head {
            generation: place.generation,
            sector: place.sector + count,
            sequence: place.sequence,
            checksum,
            oldest: header.oldest,
            is_carried,
        };
        self.frames += 1;
        Ok(())
    }

    fn check_coverage(&self) -> Result<(), LogError> {
        if self.head.oldest != self.oldest {
            let reason = format!(
                "read from segment {}, but the last frame needs {}",
                self.oldest, self.head.oldest
            );
            return Err(LogError::damage(reason));
        }
        let LogRange {
            purged,
            last,
            first,
        } = self.range;
        if last != purged
            && (purged.is_some() || self.oldest > 1)
            && purged.map(|id| id.index + 1) != Some(first)
        {
            let reason = format!("purged up to {purged:?}, but the entries begin at {first}");
            return Err(LogError::damage(reason));
        }
        Ok(())
    }

    /// Looks at everything behind the last good frame: the rest of its segment and the segment after.
    fn tail(&mut self, newest: Option<u32>) -> Result<(), LogError> {
        let Head {
            generation, sector, ..
        } = self.head;
        let torn = match newest {
            Some(newest) if newest == generation && self.frames > 0 => {
                let here = self.torn(generation, sector)?;
                let next_is_free = (generation + 1)
                    .saturating_sub(self.segments.geometry().segments)
                    < self.head.oldest;
                let next = if next_is_free {
                    self.torn(generation + 1, 0)?
                } else {
                    None
                };
                if here.is_some() && next.is_some() {
                    return Err(LogError::damage("the last frame is in two segments"));
                }
                here.or(next)
            }
            // The newest segment begins with a torn frame; the walk saw zeros behind the last good one.
            Some(newest) => self.torn(newest, 0)?,
            None => self.torn(1, 0)?,
        };
        if let Some((generation, from, count)) = torn {
            let zeros = vec![0; count * SECTOR_BYTES];
            self.segments
                .write(Step::TornCut, generation, from, &zeros)?;
            self.segments.sync(Step::TornSync, generation)?;
            self.torn_frames = 1;
        }
        Ok(())
    }

    /// The sectors of a torn frame at `from`, if there are any. Everything but zeros and the sectors of
    /// the next frame is damage, and so is a next frame whose first sector does not fit the chain.
    fn torn(
        &mut self,
        generation: u32,
        from: usize,
    ) -> Result<Option<(u32, usize, usize)>, LogError> {
        let (salt, geometry) = (self.segments.salt, self.segments.geometry());
        let next = self.head.sequence + 1;
        let mut frame_sectors = usize::MAX;
        let mut count = 0;
        self.window.turn_to(generation);
        let mut at = from;
        while at < geometry.sectors() {
            // Nearly always all of it is zeros, and one comparison tells.
            let ahead = self.window.sectors(at, ZEROS.len() / SECTOR_BYTES)?;
            if ahead == &ZEROS[..ahead.len()] {
                at += ahead.len() / SECTOR_BYTES;
                continue;
            }
            let sector = &ahead[..SECTOR_BYTES];
            match classify(sector, salt) {
                Sector::Zero => {}
                Sector::Good {
                    generation: found,
                    sequence,
                    number,
                } if found == generation && sequence == next && from + number as usize == at => {
                    if number == 0 {
                        let header =
                            Header::decode(sector).map_err(|e| LogError::damage(e.to_string()))?;
                        if header.previous_checksum != self.head.checksum {
                            return Err(LogError::damage(format!(
                                "torn frame {next} does not follow the frame before"
                            )));
                        }
                        frame_sectors = header.sectors();
                    }
                    if number as usize >= frame_sectors {
                        return Err(LogError::damage(format!(
                            "torn frame {next} has too many sectors"
                        )));
                    }
                    count = number as usize + 1;
                }
                // Left from the segment's last use, not yet zeroed.
                Sector::Good {
                    generation: found, ..
                } if from == 0
                    && found < self.head.oldest
                    && found + geometry.segments == generation => {}
                found => {
                    let reason = format!(
                        "segment {generation}, sector {at}: {found:?} behind frame {}",
                        next - 1
                    );
                    return Err(LogError::damage(reason));
                }
            }
            at += 1;
        }
        Ok((count > 0).then_some((generation, from, count)))
    }
}
