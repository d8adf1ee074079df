//! Who a volume belongs to. A volume is stamped once and bound to one member for life (I4).
//!
//! ```text
//! <volume>/lock             one process at a time
//! <volume>/CURRENT          names the directory in use; the last step of a rewrite is its rename
//! <volume>/store-1/identity the stamp, written by rename
//! <volume>/store-1/log/     segment files
//! <volume>/store-1/snapshots/
//! <volume>/store-1/image/   may be thrown away at any time
//! <volume>/restoring/       of a restore that was cut off: may go
//! ```
//! While it is being made, the first directory is called `store-1.formatting`: a format that was cut off
//! was never reported, and is made again. How another one takes its place: see `switch`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::{Buf, BufMut};
use rustix::fs::{FlockOperation, flock};

use super::files::{
    ChangedFile, create_directory, is_damage, remove_if_there, remove_tree_if_there, rename,
    replace, sync_directory,
};
use super::log::segment::{self, Space};
use super::log::{Geometry, LogError};
use super::step::Step;

mod switch;

const FIRST: &str = "store-1";
const FORMATTING: &str = "store-1.formatting";
const CURRENT: &str = "CURRENT";
/// Of a directory that `CURRENT` may name.
const NAME_BYTES_MAX: usize = 64;
const STAMP: &str = "identity";
const LOCK: &str = "lock";
/// What a restore reads from a bucket before it is in use.
pub const RESTORING: &str = "restoring";
const STAMP_MAGIC: &[u8; 8] = b"TSKSTAMP";
const STAMP_LAYOUT: u8 = 1;
const FLAG_INITIALIZED: u8 = 1;
const FLAG_REMOVED: u8 = 2;
const FLAG_FENCED: u8 = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub cluster_id: String,
    pub incarnation: u16,
    pub member_id: u64,
    /// The UID of the volume's claim; empty on a laptop.
    pub volume_uid: String,
}

impl Identity {
    /// Starts every checksum of the log, so that another volume's segment is never taken for ours.
    pub fn salt(&self) -> u32 {
        let numbers =
            crc32c::crc32c_append(u32::from(self.incarnation), &self.member_id.to_le_bytes());
        let cluster = crc32c::crc32c_append(numbers, self.cluster_id.as_bytes());
        crc32c::crc32c_append(cluster, self.volume_uid.as_bytes())
    }

    /// What differs from what the process was told it is.
    pub fn difference(&self, expected: &Identity) -> Option<String> {
        let pairs = [
            (
                "cluster id",
                self.cluster_id.clone(),
                expected.cluster_id.clone(),
            ),
            (
                "incarnation",
                self.incarnation.to_string(),
                expected.incarnation.to_string(),
            ),
            (
                "member id",
                self.member_id.to_string(),
                expected.member_id.to_string(),
            ),
            (
                "volume UID",
                self.volume_uid.clone(),
                expected.volume_uid.clone(),
            ),
        ];
        let (what, found, expected) = pairs
            .into_iter()
            .find(|(_, found, expected)| found != expected)?;
        Some(format!(
            "the volume is stamped with {what} {found}, this member has {expected}"
        ))
    }
}

/// What the stamp says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    pub identity: Identity,
    pub log: Geometry,
    /// The log's first frame is on the disk: from here on an empty log is a lost one.
    pub is_initialized: bool,
    /// The member learned of its removal and never starts again.
    pub is_removed: bool,
    /// It is to answer no client and to lead nothing until that is taken back.
    pub is_fenced: bool,
}

impl Stamp {
    fn encode(&self) -> Vec<u8> {
        let mut out = STAMP_MAGIC.to_vec();
        out.put_u8(STAMP_LAYOUT);
        let flags = [
            (self.is_initialized, FLAG_INITIALIZED),
            (self.is_removed, FLAG_REMOVED),
            (self.is_fenced, FLAG_FENCED),
        ];
        let set = flags.into_iter().filter(|(is_set, _)| *is_set);
        out.put_u8(set.fold(0, |all, (_, flag)| all | flag));
        out.put_u16_le(self.identity.incarnation);
        out.put_u64_le(self.identity.member_id);
        out.put_u32_le(self.log.segment_bytes);
        out.put_u32_le(self.log.segments);
        for text in [&self.identity.cluster_id, &self.identity.volume_uid] {
            out.put_u16_le(text.len() as u16);
            out.put_slice(text.as_bytes());
        }
        let sum = crc32c::crc32c(&out);
        out.put_u32_le(sum);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Stamp, LogError> {
        let damage = |what: &str| LogError::damage(format!("the identity file {what}"));
        let (content, sum) = bytes
            .split_last_chunk::<4>()
            .ok_or_else(|| damage("ends early"))?;
        if crc32c::crc32c(content) != u32::from_le_bytes(*sum) {
            return Err(damage("does not match its checksum"));
        }
        let mut from = content
            .strip_prefix(STAMP_MAGIC)
            .ok_or_else(|| damage("is not one"))?;
        // The checksum held, so the file is as long as this version wrote it.
        if from.get_u8() != STAMP_LAYOUT {
            return Err(damage("was written by a later version"));
        }
        let flags = from.get_u8();
        let (incarnation, member_id) = (from.get_u16_le(), from.get_u64_le());
        let log = Geometry {
            segment_bytes: from.get_u32_le(),
            segments: from.get_u32_le(),
        };
        let mut text = || {
            let bytes = from.get_u16_le() as usize;
            String::from_utf8(from.copy_to_bytes(bytes).into())
                .map_err(|_| damage("holds a text that is none"))
        };
        let (cluster_id, volume_uid) = (text()?, text()?);
        Ok(Stamp {
            identity: Identity {
                cluster_id,
                incarnation,
                member_id,
                volume_uid,
            },
            log,
            is_initialized: flags & FLAG_INITIALIZED != 0,
            is_removed: flags & FLAG_REMOVED != 0,
            is_fenced: flags & FLAG_FENCED != 0,
        })
    }
}

/// A volume that this process alone has open.
#[derive(Debug)]
pub struct Volume {
    root: PathBuf,
    _lock: ChangedFile,
}

/// What a volume holds.
#[derive(Debug)]
pub enum Content {
    Blank,
    Stamped(Home),
}

impl Volume {
    /// Takes the lock, which ends with the process.
    pub fn open(root: &Path) -> io::Result<Volume> {
        create_directory(Step::VolumeDirectory, root)?;
        let lock = ChangedFile::open_or_create(Step::VolumeLock, &root.join(LOCK))?;
        flock(lock.file(), FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            let reason = format!("{} is in use by another process: {error}", root.display());
            io::Error::new(io::ErrorKind::ResourceBusy, reason)
        })?;
        Ok(Volume {
            root: root.into(),
            _lock: lock,
        })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn content(&self) -> Result<Content, LogError> {
        let Some(name) = self.current()? else {
            return match self.first_foreign_name()? {
                Some(name) => Err(LogError::damage(format!(
                    "the volume holds {name} but no {CURRENT}"
                ))),
                None => Ok(Content::Blank),
            };
        };
        let directory = self.root.join(&name);
        if !directory.try_exists()? {
            if name == FIRST && self.root.join(FORMATTING).try_exists()? {
                return Ok(Content::Blank);
            }
            return Err(LogError::damage(format!(
                "{CURRENT} names {name}, which is missing"
            )));
        }
        let home = Home::open(directory)?;
        sync_directory(Step::VolumeSync, &self.root)?;
        home.sync_names()?;
        Ok(Content::Stamped(home))
    }

    /// The directory in use, by name. `None`: there is no file that says so.
    fn current(&self) -> Result<Option<String>, LogError> {
        let current = match fs::read_to_string(self.root.join(CURRENT)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            current => current.map_err(|error| of_read(CURRENT, error))?,
        };
        let name = current.trim_end();
        // What is no name of ours may be none for the file system either, whose error would tell nothing.
        let is_ours = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_ours) {
            return Err(LogError::damage(format!("{CURRENT} names {name:?}")));
        }
        Ok(Some(name.to_owned()))
    }

    /// Something that neither a format that was cut off nor the file system left.
    fn first_foreign_name(&self) -> io::Result<Option<String>> {
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if ![LOCK, FORMATTING, RESTORING, "CURRENT.tmp", "lost+found"].contains(&name.as_str())
            {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Stamps a blank volume and reserves its log. Everything is on the disk on return.
    pub fn format(&self, identity: Identity, log: Geometry) -> Result<Home, LogError> {
        if let Content::Stamped(home) = self.content()? {
            let reason = format!(
                "the volume is formatted already, as {:?}",
                home.stamp().identity
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, reason).into());
        }
        self.begin_first(Stamp {
            identity,
            log,
            is_initialized: false,
            is_removed: false,
            is_fenced: false,
        })?;
        self.use_first()
    }

    /// The first directory of a blank volume, not in use yet.
    fn begin_first(&self, stamp: Stamp) -> Result<Home, LogError> {
        let making = self.root.join(FORMATTING);
        self.forget_current()?;
        make(&making, &stamp, Space::All)?;
        Home::open(making)
    }

    /// Before the directory that is being made goes: without it, this would name one that is missing.
    fn forget_current(&self) -> io::Result<()> {
        remove_if_there(Step::UnusedCurrentRemove, &self.root.join(CURRENT))?;
        sync_directory(Step::UnusedCurrentSync, &self.root)
    }

    fn use_first(&self) -> Result<Home, LogError> {
        self.use_directory(FIRST)?;
        let home = self.root.join(FIRST);
        self.name_directory(&self.root.join(FORMATTING), &home)?;
        Home::open(home)
    }

    fn use_directory(&self, name: &str) -> io::Result<()> {
        let line = format!("{name}\n");
        replace(Step::CurrentReplace, &self.root, CURRENT, line.as_bytes())
    }

    fn name_directory(&self, making: &Path, home: &Path) -> io::Result<()> {
        rename(Step::HomeRename, making, home)?;
        sync_directory(Step::HomeSync, &self.root)
    }
}

/// A stamped directory with an empty log, in place of what is there. Everything is on the disk on return.
fn make(making: &Path, stamp: &Stamp, space: Space) -> io::Result<()> {
    remove_unfinished(making)?;
    segment::format(&making.join("log"), stamp.log, space)?;
    create_directory(Step::SnapshotsDirectory, &making.join("snapshots"))?;
    replace(Step::StampWrite, making, STAMP, &stamp.encode())
}

fn remove_unfinished(directory: &Path) -> io::Result<()> {
    remove_tree_if_there(Step::UnfinishedRemove, directory)
}

/// Of a failed read, with the file's name.
fn of_read(what: &str, error: io::Error) -> LogError {
    match is_damage(&error) {
        true => LogError::Damage(format!("{what} cannot be read: {error}")),
        false => LogError::Io(error),
    }
}

/// The directory in use, with its stamp.
#[derive(Debug, Clone)]
pub struct Home {
    directory: PathBuf,
    stamp: Arc<Mutex<Stamp>>,
}

impl Home {
    fn open(directory: PathBuf) -> Result<Home, LogError> {
        let stamp = match fs::read(directory.join(STAMP)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LogError::damage("the identity file is missing"));
            }
            bytes => Stamp::decode(&bytes.map_err(|error| of_read("the identity file", error))?)?,
        };
        Ok(Home {
            directory,
            stamp: Arc::new(Mutex::new(stamp)),
        })
    }

    /// A kill leaves names in the kernel's memory that are not on the disk yet: the log must not be purged
    /// behind a snapshot, or be answered from, that a power cut could still take back.
    fn sync_names(&self) -> io::Result<()> {
        sync_directory(Step::HomeNamesSync, &self.directory)?;
        let snapshots = self.snapshots_directory();
        match snapshots.try_exists()? {
            true => sync_directory(Step::SnapshotNamesSync, &snapshots),
            false => Ok(()),
        }
    }

    pub fn stamp(&self) -> Stamp {
        self.stamp
            .lock()
            .expect("holders of this lock only copy and write")
            .clone()
    }

    pub fn log_directory(&self) -> PathBuf {
        self.directory.join("log")
    }

    pub fn snapshots_directory(&self) -> PathBuf {
        self.directory.join("snapshots")
    }

    pub fn image_directory(&self) -> PathBuf {
        self.directory.join("image")
    }

    /// On the disk on return. A failure ends the process (I6); the caller sees to it.
    pub fn mark_initialized(&self) -> io::Result<()> {
        self.change(|stamp| stamp.is_initialized = true)
    }

    /// The tombstone of a member that was removed: it never starts again.
    pub fn mark_removed(&self) -> io::Result<()> {
        self.change(|stamp| stamp.is_removed = true)
    }

    /// On the disk on return, either way.
    pub fn mark_fenced(&self, is_fenced: bool) -> io::Result<()> {
        self.change(|stamp| stamp.is_fenced = is_fenced)
    }

    fn change(&self, change: impl FnOnce(&mut Stamp)) -> io::Result<()> {
        let mut stamp = self
            .stamp
            .lock()
            .expect("holders of this lock only copy and write");
        let mut next = stamp.clone();
        change(&mut next);
        if next != *stamp {
            replace(Step::StampChange, &self.directory, STAMP, &next.encode())?;
            *stamp = next;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const LOG: Geometry = Geometry {
        segment_bytes: 4096,
        segments: 3,
    };

    fn identity() -> Identity {
        Identity {
            cluster_id: "c1".into(),
            incarnation: 2,
            member_id: 7,
            volume_uid: "v".into(),
        }
    }

    #[test]
    fn a_stamp_keeps_its_golden_bytes() {
        let stamp = Stamp {
            identity: identity(),
            log: LOG,
            is_initialized: true,
            is_removed: false,
            is_fenced: false,
        };
        let bytes = stamp.encode();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let golden = "54534b5354414d5001010200070000000000000000100000030000000200633101007 6";
        assert_eq!(hex[..hex.len() - 8], golden.replace(' ', ""));
        assert_eq!(Stamp::decode(&bytes).unwrap(), stamp);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Stamp::decode(&bad).is_err(), "byte {at}");
            assert!(Stamp::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_volume_is_formatted_once_and_opened_by_one_process() {
        let root = TempDir::new().unwrap();
        let volume = Volume::open(root.path()).unwrap();
        assert_eq!(
            Volume::open(root.path()).unwrap_err().kind(),
            io::ErrorKind::ResourceBusy
        );
        assert!(matches!(volume.content().unwrap(), Content::Blank));
        let home = volume.format(identity(), LOG).unwrap();
        assert!(volume.format(identity(), LOG).is_err());
        home.mark_initialized().unwrap();
        home.mark_removed().unwrap();
        let Content::Stamped(again) = volume.content().unwrap() else {
            panic!("not stamped")
        };
        let expected = Stamp {
            identity: identity(),
            log: LOG,
            is_initialized: true,
            is_removed: true,
            is_fenced: false,
        };
        assert_eq!((again.stamp(), home.stamp()), (expected.clone(), expected));
        let other = Identity {
            volume_uid: "w".into(),
            ..identity()
        };
        assert!(
            identity()
                .difference(&other)
                .unwrap()
                .contains("volume UID v")
        );
        assert_eq!(identity().difference(&identity()), None);
    }

    #[test]
    fn a_format_that_was_cut_off_is_blank_and_everything_else_without_current_is_damage() {
        let root = TempDir::new().unwrap();
        let volume = Volume::open(root.path()).unwrap();
        fs::create_dir(root.path().join("lost+found")).unwrap();
        fs::create_dir(root.path().join(FORMATTING)).unwrap();
        assert!(
            matches!(volume.content().unwrap(), Content::Blank),
            "before CURRENT"
        );
        fs::write(root.path().join(CURRENT), b"store-1\n").unwrap();
        assert!(
            matches!(volume.content().unwrap(), Content::Blank),
            "before the last rename"
        );
        volume.format(identity(), LOG).unwrap();
        fs::remove_file(root.path().join(CURRENT)).unwrap();
        assert!(
            matches!(volume.content(), Err(LogError::Damage(_))),
            "CURRENT is lost"
        );
        fs::write(root.path().join(CURRENT), b"store-1\n").unwrap();
        fs::remove_file(root.path().join(FIRST).join(STAMP)).unwrap();
        assert!(
            matches!(volume.content(), Err(LogError::Damage(_))),
            "the stamp is lost"
        );
        fs::remove_dir_all(root.path().join(FIRST)).unwrap();
        assert!(
            matches!(volume.content(), Err(LogError::Damage(_))),
            "the directory is lost"
        );
    }
}
