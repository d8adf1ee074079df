//! Snapshot files: a folder with the newest two, and how one gets there.
//!
//! ```text
//! cut ───▶ temporary file, fsynced, read back ─┐
//!                                              ├─▶ rename, fsync folder, keep the newest two good ones
//! receive ─▶ temporary file, resumed, checked ─┘
//! ```
//!
//! A crash at any step leaves the older files as they were. A file that does not verify counts for nothing:
//! it is put aside as `*.bad`, the newest one of these only. The bytes (see `format`) are the same for the
//! same state on every member, and serve installs, backups and restores.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

pub mod format;
mod read;
mod receive;
#[cfg(test)]
mod tests;
mod write;

pub use format::{Header, Position, SnapshotIdentity};
pub use read::{Loaded, load, verify};
pub use receive::SnapshotReceiver;
pub use write::Frozen;

use rustix::fs::{FallocateFlags, fallocate};

use super::files::{is_damage, remove_if_there, replace, sync_directory, write_synced};

const EXTENSION: &str = "snapshot";
const BAD_EXTENSION: &str = "bad";
const CUT_TEMPORARY: &str = "cut.tmp";
/// Disk space held back for the next snapshot.
const BALLAST: &str = "ballast";
const BALLAST_PERCENT: u64 = 125;
const INSTALLING: &str = "installing";
const RECEIVING: &str = "receive-";
const SNAPSHOTS_KEPT: usize = 2;

/// A file that is named as a snapshot; its content is not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    pub position: Position,
    pub bytes: u64,
    pub path: PathBuf,
}

/// The snapshots of a folder, newest first. A folder that is not there has none.
pub fn list(dir: &Path) -> io::Result<Vec<SnapshotFile>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let Some(position) = position_in(&path) {
            files.push(SnapshotFile {
                position,
                bytes: fs::metadata(&path)?.len(),
                path,
            });
        }
    }
    files.sort_by_key(|file| std::cmp::Reverse(file.position));
    Ok(files)
}

fn position_in(path: &Path) -> Option<Position> {
    if path.extension()?.to_str()? != EXTENSION {
        return None;
    }
    let (term, index) = path.file_stem()?.to_str()?.split_once('-')?;
    Some(Position {
        term: term.parse().ok()?,
        index: index.parse().ok()?,
    })
}

fn file_name(position: Position) -> String {
    format!("{:020}-{:020}.{EXTENSION}", position.term, position.index)
}

/// A finished, verified file, open for reading: it stays readable after its name is gone.
#[derive(Debug, Clone)]
pub struct SnapshotHandle {
    pub header: Arc<Header>,
    /// Of the whole content: the same id means the same bytes.
    pub id: String,
    pub bytes: u64,
    file: Arc<File>,
    path: Arc<Path>,
    arrived: Option<Arc<Arrived>>,
}

/// The files of a received snapshot, which go with its last handle unless it was installed.
#[derive(Debug)]
struct Arrived {
    content: PathBuf,
    /// Already holds what `installing` will say: on a full disk a rename still works.
    marker: PathBuf,
}

impl Drop for Arrived {
    fn drop(&mut self) {
        for path in [&self.content, &self.marker] {
            if let Err(error) = remove_if_there(path) {
                tracing::warn!(path = %path.display(), %error, "a received snapshot stays until the next start");
            }
        }
    }
}

impl SnapshotHandle {
    /// Verifies the whole file first.
    pub fn open(path: &Path, identity: &SnapshotIdentity) -> io::Result<SnapshotHandle> {
        let file = File::open(path)?;
        let checked = verify(&file)?;
        checked.header.check_identity(identity)?;
        let bytes = file.metadata()?.len();
        let header = Arc::new(checked.header);
        Ok(SnapshotHandle {
            header,
            id: checked.id,
            bytes,
            file: Arc::new(file),
            path: path.into(),
            arrived: None,
        })
    }

    pub fn position(&self) -> Position {
        self.header.position
    }

    /// Up to `length` bytes from `offset`, fewer at the end only.
    pub fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let rest = self.bytes.saturating_sub(offset);
        let mut bytes = vec![0; length.min(usize::try_from(rest).unwrap_or(usize::MAX))];
        std::os::unix::fs::FileExt::read_exact_at(&*self.file, &mut bytes, offset)?;
        Ok(bytes)
    }
}

/// One of the newest two files of a folder.
#[derive(Debug, Clone)]
pub struct Surveyed {
    pub file: SnapshotFile,
    /// None: it does not verify.
    pub good: Option<SnapshotHandle>,
}

/// Verifies the newest two files, newest first, and changes nothing. An error is no word on the files.
pub fn survey(dir: &Path, identity: &SnapshotIdentity) -> io::Result<Vec<Surveyed>> {
    let verified = |file: SnapshotFile| match SnapshotHandle::open(&file.path, identity) {
        // The start table goes by the name: a file in another's place would be taken for what it is not.
        Ok(handle) if handle.position() != file.position => {
            tracing::warn!(path = %file.path.display(), "snapshot does not belong under this name");
            Ok(Surveyed { file, good: None })
        }
        Ok(handle) => Ok(Surveyed {
            file,
            good: Some(handle),
        }),
        Err(error) if is_damage(&error) => {
            tracing::warn!(path = %file.path.display(), %error, "snapshot is not usable");
            Ok(Surveyed { file, good: None })
        }
        Err(error) => Err(error),
    };
    let newest = list(dir)?.into_iter().take(SNAPSHOTS_KEPT);
    newest.map(verified).collect()
}

/// The folder of one member.
#[derive(Debug)]
pub struct Snapshots {
    dir: PathBuf,
    identity: SnapshotIdentity,
    /// All verified, newest first.
    kept: Mutex<Vec<SnapshotHandle>>,
    arrivals: AtomicU64,
}

impl Snapshots {
    /// The folder as `survey` found it. Half-cut files of an earlier life are removed; a half-received one
    /// stays, to be resumed.
    pub fn open(
        dir: &Path,
        identity: SnapshotIdentity,
        surveyed: Vec<Surveyed>,
    ) -> io::Result<Snapshots> {
        fs::create_dir_all(dir)?;
        for path in paths(dir)? {
            if name_of(&path).ends_with(".tmp") && !name_of(&path).starts_with(RECEIVING) {
                remove_if_there(&path)?;
            }
        }
        let mut kept = Vec::new();
        for Surveyed { file, good } in surveyed {
            match good {
                Some(handle) => kept.push(handle),
                None => put_aside(dir, &file.path)?,
            }
        }
        Ok(Snapshots {
            dir: dir.to_owned(),
            identity,
            kept: Mutex::new(kept),
            arrivals: AtomicU64::default(),
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn identity(&self) -> &SnapshotIdentity {
        &self.identity
    }

    pub fn newest(&self) -> Option<SnapshotHandle> {
        self.kept().first().cloned()
    }

    /// Positions of the good files, newest first: at most two.
    pub fn positions(&self) -> Vec<Position> {
        self.kept().iter().map(SnapshotHandle::position).collect()
    }

    fn kept(&self) -> MutexGuard<'_, Vec<SnapshotHandle>> {
        self.kept
            .lock()
            .expect("holders of this lock only move values")
    }

    /// A file of this folder, verified.
    pub fn handle(&self, path: &Path) -> io::Result<SnapshotHandle> {
        let known = self.kept().iter().find(|kept| *kept.path == *path).cloned();
        match known {
            Some(known) => Ok(known),
            None => SnapshotHandle::open(path, &self.identity),
        }
    }

    /// Writes and verifies a temporary file; nothing sees it before `publish`. On a full disk the ballast
    /// makes room for it.
    pub fn write(&self, frozen: &Frozen) -> io::Result<SnapshotHandle> {
        self.or_without_ballast(|| self.try_write(frozen))
    }

    fn or_without_ballast<T>(&self, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let ballast = self.dir.join(BALLAST);
        match write() {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && ballast.exists() => {
                fs::remove_file(&ballast)?;
                tracing::warn!("the disk is full: the ballast was dropped for a snapshot");
                write()
            }
            written => written,
        }
    }

    /// Reserves what the next snapshot is likely to need. Without it a full disk only delays that one.
    fn reserve_ballast(&self, snapshot_bytes: u64) -> io::Result<()> {
        let bytes = snapshot_bytes * BALLAST_PERCENT / 100;
        let path = self.dir.join(BALLAST);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        file.set_len(bytes)?;
        Ok(fallocate(&file, FallocateFlags::empty(), 0, bytes)?)
    }

    fn try_write(&self, frozen: &Frozen) -> io::Result<SnapshotHandle> {
        let path = self.dir.join(CUT_TEMPORARY);
        let written = File::create(&path).and_then(|file| {
            write::encode(frozen, &self.identity, &file)?;
            file.sync_all()?;
            // So that reading back asks the disk and not the memory that was just written from.
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
            Ok(())
        });
        let checked = written.and_then(|()| SnapshotHandle::open(&path, &self.identity));
        if checked.is_err() {
            // Gives a full disk its space back.
            remove_if_there(&path)?;
        }
        checked
    }

    /// Gives a verified file its name: durable when this returns. Files but the newest two good ones go.
    pub fn publish(&self, handle: SnapshotHandle) -> io::Result<SnapshotHandle> {
        let path = self.dir.join(file_name(handle.position()));
        if *handle.path != *path {
            fs::rename(&handle.path, &path)?;
        }
        sync_directory(&self.dir)?;
        let handle = SnapshotHandle {
            path: path.into(),
            arrived: None,
            ..handle
        };
        let mut kept = self.kept();
        kept.retain(|kept| kept.path != handle.path);
        kept.push(handle.clone());
        kept.sort_by_key(|kept| std::cmp::Reverse(kept.position()));
        kept.truncate(SNAPSHOTS_KEPT);
        for file in list(&self.dir)? {
            if !kept.iter().any(|kept| *kept.path == *file.path) {
                fs::remove_file(&file.path)?;
            }
        }
        drop(kept);
        if let Err(error) = self.reserve_ballast(handle.bytes) {
            tracing::warn!(%error, "no space is reserved for the next snapshot");
        }
        Ok(handle)
    }

    /// A file of this folder as it is, one from elsewhere as a verified copy.
    pub fn adopt(&self, handle: &SnapshotHandle) -> io::Result<SnapshotHandle> {
        if handle.path.parent() == Some(&self.dir) && handle.path.exists() {
            return Ok(handle.clone());
        }
        let path = self.dir.join(format!("adopt-{}.tmp", handle.id));
        let mut copy = File::create(&path)?;
        io::copy(&mut read::FileAt::new(&handle.file), &mut copy)?;
        copy.sync_all()?;
        SnapshotHandle::open(&path, &self.identity)
    }

    /// Says durably that the log behind the snapshot is about to be dropped: from here on a log that ends
    /// before the newest snapshot is not a lost one.
    pub fn mark_installing(&self, handle: &SnapshotHandle) -> io::Result<()> {
        match &handle.arrived {
            Some(arrived) => {
                fs::rename(&arrived.marker, self.dir.join(INSTALLING))?;
                sync_directory(&self.dir)
            }
            None => replace(&self.dir, INSTALLING, &marker_text(handle.position())),
        }
    }

    /// Takes a received file over, with the marker of its install written ahead.
    fn arrived(&self, path: &Path, handle: SnapshotHandle) -> io::Result<SnapshotHandle> {
        let number = self.arrivals.fetch_add(1, Ordering::Relaxed);
        let arrived = Arrived {
            content: self.dir.join(format!("arrived-{number}.tmp")),
            marker: self.dir.join(format!("arrived-{number}-{INSTALLING}.tmp")),
        };
        write_synced(&arrived.marker, &marker_text(handle.position()))?;
        fs::rename(path, &arrived.content)?;
        Ok(SnapshotHandle {
            path: arrived.content.as_path().into(),
            arrived: Some(Arc::new(arrived)),
            ..handle
        })
    }

    /// After the log was purged up to an installed snapshot.
    pub fn clear_installing(&self) -> io::Result<()> {
        clear_installing_in(&self.dir)
    }
}

/// The same, for whoever has only the folder.
pub fn clear_installing_in(dir: &Path) -> io::Result<()> {
    remove_if_there(&dir.join(INSTALLING))?;
    sync_directory(dir)
}

fn marker_text(position: Position) -> Vec<u8> {
    format!("{}-{}", position.term, position.index).into_bytes()
}

/// The install that was under way, if one was.
pub fn installing(dir: &Path) -> io::Result<Option<Position>> {
    let text = match fs::read_to_string(dir.join(INSTALLING)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let position = text.split_once('-').and_then(|(term, index)| {
        Some(Position {
            term: term.parse().ok()?,
            index: index.parse().ok()?,
        })
    });
    position
        .map(Some)
        .ok_or_else(|| bad(format!("the installing marker reads {text:?}")))
}

/// For people to look at: the newest such file replaces the one before.
fn put_aside(dir: &Path, path: &Path) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{BAD_EXTENSION}"));
    let aside = PathBuf::from(aside);
    for other in paths(dir)? {
        if other.extension().is_some_and(|is| is == BAD_EXTENSION) {
            remove_if_there(&other)?;
        }
    }
    fs::rename(path, aside)?;
    sync_directory(dir)
}

fn paths(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
}

fn name_of(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str());
    name.unwrap_or_default()
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}
