//! A disk that fails and loses power on demand.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use taskstore::storage::log::disk::{Disk, SegmentFile};
use taskstore::storage::log::sector::SECTOR_BYTES;
use tempfile::TempDir;

/// In memory where the system offers it: thousands of trials fsync nothing that matters.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        TempDir::new_in(memory).unwrap()
    } else {
        TempDir::new().unwrap()
    }
}

/// The contents of all segment files, and of the mark behind them.
pub type Image = Vec<Vec<u8>>;

pub fn read_image(directory: &Path) -> Image {
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

pub fn write_image(image: &Image) -> TempDir {
    let directory = scratch();
    let (mark, segments) = image.split_last().unwrap();
    for (slot, bytes) in segments.iter().enumerate() {
        fs::write(directory.path().join(format!("segment-{slot:04}")), bytes).unwrap();
    }
    fs::write(directory.path().join("synced"), mark).unwrap();
    directory
}

/// What fails, counted in calls from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fail {
    Never,
    /// The write stops after half of its sectors.
    Write(u64),
    Sync(u64),
    Full(u64),
    /// The write panics.
    Panic(u64),
}

/// The disk after a power cut, and how much was acknowledged before.
pub struct Cut {
    pub image: Image,
    pub acked: usize,
}

struct Lost {
    slot: u32,
    offset: u64,
    before: Vec<u8>,
    /// An fsync has answered for it, on a disk that lies.
    is_promised: bool,
}

struct Inner {
    directory: PathBuf,
    rng: fastrand::Rng,
    unsynced: Vec<Lost>,
    /// What a failed fsync did not write, though the memory keeps it and calls it clean.
    clean_but_lost: Vec<Lost>,
    every_subset: bool,
    cuts_at_each_sync: usize,
    cuts: Vec<Cut>,
    acked: usize,
    fail: Fail,
    sync_takes_max: Duration,
    is_lying: bool,
    is_off: bool,
}

#[derive(Clone)]
pub struct FaultDisk(Arc<Mutex<Inner>>);

impl FaultDisk {
    pub fn new(directory: &Path, seed: u64, cuts_at_each_sync: usize) -> FaultDisk {
        FaultDisk(Arc::new(Mutex::new(Inner {
            directory: directory.into(),
            rng: fastrand::Rng::with_seed(seed),
            unsynced: Vec::new(),
            clean_but_lost: Vec::new(),
            every_subset: false,
            cuts_at_each_sync,
            cuts: Vec::new(),
            acked: 0,
            fail: Fail::Never,
            sync_takes_max: Duration::ZERO,
            is_lying: false,
            is_off: false,
        })))
    }

    /// Each fsync takes a while, at most this long: the power can fail in the middle of it.
    pub fn sync_takes(&self, at_most: Duration) {
        self.0.lock().unwrap().sync_takes_max = at_most;
    }

    /// An fsync answers one too early: what it was asked for is on the disk only after the next one.
    pub fn lie(&self) {
        self.0.lock().unwrap().is_lying = true;
    }

    /// From here on nothing reaches the disk; `cut_now` tells what it holds.
    pub fn power_off(&self) {
        self.0.lock().unwrap().is_off = true;
    }

    pub fn fail(&self, fail: Fail) {
        self.0.lock().unwrap().fail = fail;
    }

    /// From now on each fsync of at most 10 sectors is cut in every way it can be; bit n of a cut's number
    /// says that sector n is lost.
    pub fn cut_every_subset(&self) {
        self.0.lock().unwrap().every_subset = true;
    }

    pub fn acked(&self, operations: usize) {
        self.0.lock().unwrap().acked = operations;
    }

    pub fn take_cuts(&self) -> Vec<Cut> {
        std::mem::take(&mut self.0.lock().unwrap().cuts)
    }

    /// A power cut now: an arbitrary subset of the sectors not yet synced is lost.
    pub fn cut_now(&self) -> Cut {
        let mut inner = self.0.lock().unwrap();
        let lost = inner.rng.f64();
        inner.cut(lost)
    }
}

impl Inner {
    fn check_power(&self) -> io::Result<()> {
        match self.is_off {
            true => Err(io::Error::other("the power is off")),
            false => Ok(()),
        }
    }

    /// The sectors of a file that an fsync brings to the disk.
    fn synced(&mut self, slot: u32) {
        let is_lying = self.is_lying;
        self.unsynced
            .retain(|lost| lost.slot != slot || (is_lying && !lost.is_promised));
        let of_file = self.unsynced.iter_mut().filter(|lost| lost.slot == slot);
        of_file.for_each(|lost| lost.is_promised = true);
    }

    fn cut(&mut self, lost_share: f64) -> Cut {
        let lost: Vec<bool> = (0..self.unsynced.len())
            .map(|_| self.rng.f64() < lost_share)
            .collect();
        self.cut_those(|number| lost[number])
    }

    fn cut_those(&self, is_lost: impl Fn(usize) -> bool) -> Cut {
        let mut image = read_image(&self.directory);
        // Newest first, so that a sector written twice ends in one of its three contents.
        let unsynced = self.unsynced.iter().enumerate().rev();
        let unsynced = unsynced
            .filter(|(number, _)| is_lost(*number))
            .map(|(_, lost)| lost);
        for lost in unsynced.chain(&self.clean_but_lost) {
            let at = lost.offset as usize;
            image[lost.slot as usize][at..at + lost.before.len()].copy_from_slice(&lost.before);
        }
        Cut {
            image,
            acked: self.acked,
        }
    }

    fn count_down(&mut self, is_sync: bool) -> Option<Fail> {
        let left = match &mut self.fail {
            Fail::Write(left) | Fail::Full(left) | Fail::Panic(left) if !is_sync => left,
            Fail::Sync(left) if is_sync => left,
            _ => return None,
        };
        if *left == 0 {
            return Some(self.fail);
        }
        *left -= 1;
        None
    }

    /// A failed fsync: some sectors reached the disk, nobody will write the others again.
    fn lose(&mut self, slot: u32) {
        let (failed, others) = std::mem::take(&mut self.unsynced)
            .into_iter()
            .partition(|lost| lost.slot == slot);
        self.unsynced = others;
        let failed: Vec<Lost> = failed;
        let mut of_disk: BTreeMap<u64, Lost> = BTreeMap::new();
        for lost in failed {
            of_disk.entry(lost.offset).or_insert(lost);
        }
        for lost in of_disk.into_values() {
            if self.rng.bool() {
                self.clean_but_lost.push(lost);
            }
        }
    }

    fn take_clean_but_lost(&mut self, slot: u32, offset: u64) -> Option<Lost> {
        let is_it = |lost: &Lost| lost.slot == slot && lost.offset == offset;
        let at = self.clean_but_lost.iter().position(is_it)?;
        Some(self.clean_but_lost.remove(at))
    }
}

impl Disk for FaultDisk {
    fn write_at(&self, file: &SegmentFile, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        inner.check_power()?;
        let fail = inner.count_down(false);
        if let Some(Fail::Panic(_)) = fail {
            drop(inner);
            panic!("as the test wants it");
        }
        let count = bytes.len() / SECTOR_BYTES;
        let written = if fail.is_some() { count / 2 } else { count };
        for sector in 0..written {
            let offset = offset_bytes + (sector * SECTOR_BYTES) as u64;
            let lost = match inner.take_clean_but_lost(file.slot, offset) {
                Some(lost) => lost,
                None => {
                    let mut before = vec![0; SECTOR_BYTES];
                    file.file.read_exact_at(&mut before, offset)?;
                    Lost {
                        slot: file.slot,
                        offset,
                        before,
                        is_promised: false,
                    }
                }
            };
            inner.unsynced.push(lost);
        }
        file.file
            .write_all_at(&bytes[..written * SECTOR_BYTES], offset_bytes)?;
        match fail {
            None => Ok(()),
            Some(Fail::Full(_)) => Err(io::Error::new(io::ErrorKind::StorageFull, "no space")),
            Some(_) => Err(io::Error::other("write failed")),
        }
    }

    fn sync(&self, file: &SegmentFile) -> io::Result<()> {
        let at_most = self.0.lock().unwrap().sync_takes_max;
        if !at_most.is_zero() {
            // Without the lock: the power may fail meanwhile.
            std::thread::sleep(at_most.mul_f64(fastrand::f64()));
        }
        let mut inner = self.0.lock().unwrap();
        inner.check_power()?;
        for cut in 0..inner.cuts_at_each_sync {
            // All lost, all kept, and anything between.
            let lost = match cut {
                0 => 1.0,
                1 => 0.0,
                _ => inner.rng.f64(),
            };
            let cut = inner.cut(lost);
            inner.cuts.push(cut);
        }
        let of_file = |lost: &Lost| lost.slot == file.slot;
        let numbers: Vec<usize> = (0..inner.unsynced.len())
            .filter(|number| of_file(&inner.unsynced[*number]))
            .collect();
        if inner.every_subset && numbers.len() <= 10 {
            for subset in 0..1u32 << numbers.len() {
                let cut = inner.cut_those(|number| {
                    let bit = numbers.iter().position(|one| *one == number);
                    bit.is_some_and(|bit| subset & (1 << bit) != 0)
                });
                inner.cuts.push(cut);
            }
        }
        if inner.count_down(true).is_some() {
            inner.lose(file.slot);
            return Err(io::Error::other("fsync failed"));
        }
        inner.synced(file.slot);
        Ok(())
    }

    fn forget_cached(&self, file: &SegmentFile) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        inner.unsynced.retain(|lost| lost.slot != file.slot);
        let (gone, others) = std::mem::take(&mut inner.clean_but_lost)
            .into_iter()
            .partition(|lost| lost.slot == file.slot);
        inner.clean_but_lost = others;
        let gone: Vec<Lost> = gone;
        for lost in gone {
            file.file.write_all_at(&lost.before, lost.offset)?;
        }
        Ok(())
    }
}
