//! Snapshot files: a folder with the newest two, and how one gets there.
//!
//! ```text
//! cut ───▶ temporary file, fsynced, read back ─┐
//!                                              ├─▶ rename, fsync folder, keep the newest two
//! receive ─▶ temporary file, resumed, checked ─┘
//! ```
//!
//! A crash at any step leaves the older files as they were. The bytes (see `format`) are the same for the
//! same state on every member, and serve installs, backups and restores.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

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

const EXTENSION: &str = "snapshot";
const CUT_TEMPORARY: &str = "cut.tmp";
const INSTALLING: &str = "installing";
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

/// The folder of one member.
#[derive(Debug)]
pub struct Snapshots {
    dir: PathBuf,
    identity: SnapshotIdentity,
    newest: Mutex<Option<SnapshotHandle>>,
}

impl Snapshots {
    /// Half-cut files of an earlier life are removed; a half-received one stays, to be resumed. The newest
    /// good file becomes the current one; a bad one is left for people to look at.
    pub fn open(dir: &Path, identity: SnapshotIdentity) -> io::Result<Snapshots> {
        fs::create_dir_all(dir)?;
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if name.ends_with(".tmp") && !name.starts_with("receive-") {
                remove_if_there(&path)?;
            }
        }
        let mut newest = None;
        for file in list(dir)? {
            match SnapshotHandle::open(&file.path, &identity) {
                Ok(handle) => {
                    newest = Some(handle);
                    break;
                }
                Err(error) => {
                    tracing::warn!(path = %file.path.display(), %error, "snapshot is not usable")
                }
            }
        }
        Ok(Snapshots {
            dir: dir.to_owned(),
            identity,
            newest: Mutex::new(newest),
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn identity(&self) -> &SnapshotIdentity {
        &self.identity
    }

    pub fn newest(&self) -> Option<SnapshotHandle> {
        self.newest
            .lock()
            .expect("holders of this lock only move a value")
            .clone()
    }

    /// A file of this folder, verified.
    pub fn handle(&self, path: &Path) -> io::Result<SnapshotHandle> {
        match self.newest() {
            Some(newest) if *newest.path == *path => Ok(newest),
            _ => SnapshotHandle::open(path, &self.identity),
        }
    }

    /// Writes and verifies a temporary file; nothing sees it before `publish`.
    pub fn write(&self, frozen: &Frozen) -> io::Result<SnapshotHandle> {
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

    /// Makes a verified file the newest: durable when this returns. Files but the newest two go.
    pub fn publish(&self, handle: SnapshotHandle) -> io::Result<SnapshotHandle> {
        let path = self.dir.join(file_name(handle.position()));
        if *handle.path != *path {
            fs::rename(&handle.path, &path)?;
        }
        sync_dir(&self.dir)?;
        let handle = SnapshotHandle {
            path: path.into(),
            ..handle
        };
        *self
            .newest
            .lock()
            .expect("holders of this lock only move a value") = Some(handle.clone());
        for file in list(&self.dir)?.into_iter().skip(SNAPSHOTS_KEPT) {
            fs::remove_file(&file.path)?;
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
    pub fn mark_installing(&self, position: Position) -> io::Result<()> {
        let path = self.dir.join(format!("{INSTALLING}.tmp"));
        let file = File::create(&path)?;
        io::Write::write_all(
            &mut &file,
            format!("{}-{}", position.term, position.index).as_bytes(),
        )?;
        file.sync_all()?;
        fs::rename(&path, self.dir.join(INSTALLING))?;
        sync_dir(&self.dir)
    }

    /// After the log was purged up to an installed snapshot.
    pub fn clear_installing(&self) -> io::Result<()> {
        clear_installing_in(&self.dir)
    }
}

/// The same, for whoever has only the folder.
pub fn clear_installing_in(dir: &Path) -> io::Result<()> {
    remove_if_there(&dir.join(INSTALLING))?;
    sync_dir(dir)
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

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}
