//! The segment files: a ring of equal files, reserved when the volume is formatted, each used again under
//! a new generation once everything in it is purged.
//!
//! Generation g lives in file (g - 1) modulo the number of files, so which files must exist and what may
//! stand in each follows from the newest frame alone.
//!
//! Beside them stands `synced`, which names a frame that was on the disk: `synced_to` in the next frame
//! cannot tell when a block with the last frames in it, that one too, turned to zeros.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::disk::{Disk, SegmentFile};
use super::sector::{SECTOR_BYTES, Sector, classify};
use super::{Geometry, LogError};
use crate::storage::files::{ChangedFile, create_directory, sync_directory};
use crate::storage::step::{Act, Step, take};

const ZERO_CHUNK_BYTES: usize = 1 << 20;
/// Two sectors in blocks of their own, written in turn.
const MARK_BYTES: u64 = 8192;

pub struct Segments<D> {
    /// The segments, then the mark.
    files: Vec<SegmentFile>,
    directory: PathBuf,
    geometry: Geometry,
    pub salt: u32,
    disk: D,
}

fn path_of(directory: &Path, slot: u32) -> PathBuf {
    directory.join(format!("segment-{slot:04}"))
}

fn mark_path_of(directory: &Path) -> PathBuf {
    directory.join("synced")
}

/// Which part of a log's space is reserved when its files are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    All,
    /// The first segment's. The others are as long as they should be, and `reserve` is still to come.
    FirstSegment,
}

/// Makes the files of an empty log and reserves their space. Everything is on the disk on return.
pub fn format(directory: &Path, geometry: Geometry, space: Space) -> io::Result<()> {
    geometry.check()?;
    create_directory(Step::LogDirectory, directory)?;
    let segment_bytes = geometry.segment_bytes;
    let mut waits = false;
    for slot in 0..geometry.segments {
        let file = ChangedFile::create_new(Step::SegmentCreate, &path_of(directory, slot))?;
        if waits {
            file.resize(Step::SegmentResize, segment_bytes.into())?;
            file.sync(Step::SegmentResizeSync)?;
            continue;
        }
        let reserved = file.reserve(Step::SegmentReserve, segment_bytes.into());
        let is_unsupported = reserved.as_ref().is_err_and(is_unsupported);
        waits = space == Space::FirstSegment && !is_unsupported;
        // The first file is written now; one that cannot be reserved in another way, too.
        if slot == 0 || is_unsupported {
            zero_file(
                |zeros, at| file.write_at(Step::SegmentFill, zeros, at),
                segment_bytes,
            )?;
        } else {
            reserved?;
        }
        file.sync(Step::SegmentSync)?;
    }
    let mark = ChangedFile::create_new(Step::MarkCreate, &mark_path_of(directory))?;
    mark.write_at(Step::MarkFill, &[0; MARK_BYTES as usize], 0)?;
    mark.sync(Step::MarkSync)?;
    sync_directory(Step::LogNamesSync, directory)
}

/// Reserves what `format` has left to later. A log that is in use keeps what it holds.
pub fn reserve(directory: &Path, geometry: Geometry) -> io::Result<()> {
    for slot in 0..geometry.segments {
        let path = path_of(directory, slot);
        let file = ChangedFile::open_or_create(Step::LaterOpen, &path)?;
        match file.reserve(Step::LaterReserve, geometry.segment_bytes.into()) {
            // Then `format` has written it.
            Err(error) if is_unsupported(&error) => return Ok(()),
            reserved => reserved?,
        }
        file.sync(Step::LaterSync)?;
    }
    Ok(())
}

fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error())
}

fn zero_file(
    mut write: impl FnMut(&[u8], u64) -> io::Result<()>,
    segment_bytes: u32,
) -> io::Result<()> {
    let zeros = vec![0; ZERO_CHUNK_BYTES.min(segment_bytes as usize)];
    for at in (0..segment_bytes as usize).step_by(zeros.len()) {
        let bytes = zeros.len().min(segment_bytes as usize - at);
        write(&zeros[..bytes], at as u64)?;
    }
    Ok(())
}

impl<D: Disk> Segments<D> {
    /// Opens all files, for reading from the disk; one that is missing, too many, or not of its size is
    /// damage.
    pub fn open(
        directory: &Path,
        geometry: Geometry,
        salt: u32,
        disk: D,
    ) -> Result<Segments<D>, LogError> {
        geometry.check()?;
        let entries = fs::read_dir(directory).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                LogError::damage(format!("{} is missing", directory.display()))
            }
            _ => LogError::Io(error),
        })?;
        let mut names = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        let mut expected: Vec<_> = (0..geometry.segments)
            .map(|slot| path_of(directory, slot))
            .collect();
        expected.push(mark_path_of(directory));
        if let Some(missing) = expected.iter().find(|path| !names.contains(path)) {
            return Err(LogError::damage(format!(
                "{} is missing",
                missing.display()
            )));
        }
        if let Some(extra) = names.iter().find(|path| !expected.contains(path)) {
            return Err(LogError::damage(format!(
                "{} does not belong there",
                extra.display()
            )));
        }
        let mut files = Vec::with_capacity(expected.len());
        for (slot, path) in expected.iter().enumerate() {
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            let bytes = file.metadata()?.len();
            let is_mark = slot == geometry.segments as usize;
            let should = if is_mark {
                MARK_BYTES
            } else {
                geometry.segment_bytes.into()
            };
            if bytes != should {
                return Err(LogError::damage(format!(
                    "{} has {bytes} bytes, not {should}",
                    path.display()
                )));
            }
            let file = SegmentFile {
                slot: slot as u32,
                path: path.clone(),
                file,
            };
            take(Step::LogForgetCached, Act::Sync(path), || {
                disk.forget_cached(&file)
            })?;
            files.push(file);
        }
        Ok(Segments {
            files,
            directory: directory.into(),
            geometry,
            salt,
            disk,
        })
    }

    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    pub fn slot_of(&self, generation: u32) -> u32 {
        (generation - 1) % self.geometry.segments
    }

    fn file(&self, generation: u32) -> &SegmentFile {
        &self.files[self.slot_of(generation) as usize]
    }

    pub fn write(
        &self,
        step: Step,
        generation: u32,
        sector: usize,
        bytes: &[u8],
    ) -> io::Result<()> {
        let offset = (sector * SECTOR_BYTES) as u64;
        self.write_at(step, self.file(generation), bytes, offset)
    }

    pub fn sync(&self, step: Step, generation: u32) -> io::Result<()> {
        self.sync_file(step, self.file(generation))
    }

    pub fn sync_directory(&self) -> io::Result<()> {
        sync_directory(Step::LogDirectorySync, &self.directory)
    }

    fn write_at(
        &self,
        step: Step,
        file: &SegmentFile,
        bytes: &[u8],
        offset_bytes: u64,
    ) -> io::Result<()> {
        take(step, Act::Write(&file.path), || {
            self.disk.write_at(file, bytes, offset_bytes)
        })
    }

    fn sync_file(&self, step: Step, file: &SegmentFile) -> io::Result<()> {
        take(step, Act::Sync(&file.path), || self.disk.sync(file))
    }

    pub fn read(&self, generation: u32, sector: usize, into: &mut [u8]) -> Result<(), LogError> {
        self.file(generation)
            .file
            .read_exact_at(into, (sector * SECTOR_BYTES) as u64)
            .map_err(LogError::of_read)
    }

    /// Makes a segment ready for its generation: zeros, on the disk.
    pub fn zero(&self, generation: u32) -> io::Result<()> {
        let file = self.file(generation);
        zero_file(
            |zeros, at| self.write_at(Step::NextSegmentZero, file, zeros, at),
            self.geometry.segment_bytes,
        )?;
        self.sync_file(Step::NextSegmentSync, file)
    }

    /// Notes durably that this frame is on the disk. `mark` are the bytes of a frame of one sector.
    pub fn write_mark(&self, sequence: u64, mark: &[u8]) -> io::Result<()> {
        let file = &self.files[self.geometry.segments as usize];
        let offset = sequence % 2 * (MARK_BYTES / 2);
        self.write_at(Step::LogMarkWrite, file, mark, offset)?;
        self.sync_file(Step::LogMarkSync, file)
    }

    /// The last frame noted; 0 before the first.
    pub fn read_mark(&self) -> Result<u64, LogError> {
        let file = &self.files[self.geometry.segments as usize].file;
        let mut newest = 0;
        for half in 0..2 {
            let mut sector = [0; SECTOR_BYTES];
            file.read_exact_at(&mut sector, half * (MARK_BYTES / 2))
                .map_err(LogError::of_read)?;
            match classify(&sector, self.salt) {
                Sector::Zero => {}
                Sector::Good { sequence, .. } => newest = newest.max(sequence),
                Sector::Bad => {
                    return Err(LogError::damage(
                        "the mark of the last frame does not match its checksum",
                    ));
                }
            }
        }
        Ok(newest)
    }

    /// Bytes the file system still has for others; the log itself is reserved.
    pub fn filesystem_free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.directory)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }
}

/// A stretch of one segment in memory, moved on by large reads.
pub struct Window<'a, D> {
    segments: &'a Segments<D>,
    pub generation: u32,
    ahead_sectors: usize,
    first: usize,
    bytes: Vec<u8>,
}

impl<'a, D: Disk> Window<'a, D> {
    pub fn new(segments: &'a Segments<D>, generation: u32, ahead_bytes: usize) -> Window<'a, D> {
        let ahead_sectors = (ahead_bytes / SECTOR_BYTES).max(1);
        Window {
            segments,
            generation,
            ahead_sectors,
            first: 0,
            bytes: Vec::new(),
        }
    }

    /// Goes to another segment with the same memory.
    pub fn turn_to(&mut self, generation: u32) {
        self.generation = generation;
        self.bytes.clear();
    }

    /// Up to `count` sectors from `at`; fewer at the segment's end.
    pub fn sectors(&mut self, at: usize, count: usize) -> Result<&[u8], LogError> {
        let end = self.segments.geometry.sectors();
        let count = count.min(end - at);
        let held = self.bytes.len() / SECTOR_BYTES;
        if at < self.first || at + count > self.first + held {
            let read = count.max(self.ahead_sectors).min(end - at);
            self.bytes.resize(read * SECTOR_BYTES, 0);
            self.segments.read(self.generation, at, &mut self.bytes)?;
            self.first = at;
        }
        let from = (at - self.first) * SECTOR_BYTES;
        Ok(&self.bytes[from..from + count * SECTOR_BYTES])
    }
}
