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

mod audit;
pub mod format;
mod read;
mod receive;
#[cfg(test)]
mod tests;
mod write;

pub use audit::audit;
pub use format::{Header, Position, SnapshotIdentity};
pub use read::{Checked, Loaded, Places, load, peek, verify};
pub use receive::SnapshotReceiver;
pub use write::{Frozen, PayloadSource};

use super::files::{
    ChangedFile, create_directory, is_damage, remove_if_there, rename, replace, sync_directory,
    write_synced,
};
use super::step::Step;

const EXTENSION: &str = "snapshot";
const BAD_EXTENSION: &str = "bad";
const CUT_TEMPORARY: &str = "cut.tmp";
/// Disk space held back for the next snapshot.
const BALLAST: &str = "ballast";
const BALLAST_PERCENT: u64 = 125;
pub(in crate::storage) const INSTALLING: &str = "installing";
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
    /// Every byte was checked; otherwise whoever receives or loads it does so.
    is_verified: bool,
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
            if let Err(error) = remove_if_there(Step::ArrivedRemove, path) {
                tracing::warn!(path = %path.display(), %error, "a received snapshot stays until the next start");
            }
        }
    }
}

impl SnapshotHandle {
    /// Verifies the whole file first.
    pub fn open(path: &Path, identity: &SnapshotIdentity) -> io::Result<SnapshotHandle> {
        SnapshotHandle::look(path, identity, Look::Whole)
    }

    fn look(path: &Path, identity: &SnapshotIdentity, look: Look) -> io::Result<SnapshotHandle> {
        let file = File::open(path)?;
        let checked = match look {
            Look::Whole => verify(&file)?,
            Look::Ends => peek(&file)?,
        };
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
            is_verified: look == Look::Whole,
        })
    }

    pub fn position(&self) -> Position {
        self.header.position
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Up to `length` bytes from `offset`, fewer at the end only.
    pub fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let rest = self.bytes.saturating_sub(offset);
        let mut bytes = vec![0; length.min(usize::try_from(rest).unwrap_or(usize::MAX))];
        std::os::unix::fs::FileExt::read_exact_at(&*self.file, &mut bytes, offset)?;
        Ok(bytes)
    }
}

/// How much of a file is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Whole,
    /// Its header, and what its last hash says.
    Ends,
}

/// One of the newest two files of a folder.
#[derive(Debug, Clone)]
pub struct Surveyed {
    pub file: SnapshotFile,
    /// None: it does not verify.
    pub good: Option<SnapshotHandle>,
}

/// Looks at the newest two files, newest first, and changes nothing. An error is no word on the files.
pub fn survey(dir: &Path, identity: &SnapshotIdentity, look: Look) -> io::Result<Vec<Surveyed>> {
    let verified = |file: SnapshotFile| match SnapshotHandle::look(&file.path, identity, look) {
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
    /// Newest first.
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
        create_directory(Step::SnapshotsFolder, dir)?;
        for path in paths(dir)? {
            if name_of(&path).ends_with(".tmp") && !name_of(&path).starts_with(RECEIVING) {
                remove_if_there(Step::HalfCutRemove, &path)?;
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

    /// Positions of the verified files, newest first: at most two.
    pub fn positions(&self) -> Vec<Position> {
        let kept = self.kept();
        let verified = kept.iter().filter(|kept| kept.is_verified);
        verified.map(SnapshotHandle::position).collect()
    }

    /// Verifies what a start has not. A bad file counts for nothing from here on.
    pub fn verify(&self) -> io::Result<()> {
        let unverified: Vec<_> = self
            .kept()
            .iter()
            .filter(|kept| !kept.is_verified)
            .cloned()
            .collect();
        for handle in unverified {
            let looked = SnapshotHandle::open(&handle.path, &self.identity);
            let mut kept = self.kept();
            let Some(place) = kept.iter().position(|kept| kept.path == handle.path) else {
                continue;
            };
            match looked {
                Ok(verified) if verified.id == handle.id => kept[place] = verified,
                Err(error) if !is_damage(&error) => return Err(error),
                _ => {
                    tracing::warn!(path = %handle.path.display(), "snapshot is not usable");
                    kept.remove(place);
                    put_aside(&self.dir, &handle.path)?;
                }
            }
        }
        Ok(())
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
    pub fn write(
        &self,
        frozen: &Frozen,
        payloads: &mut dyn PayloadSource,
    ) -> io::Result<SnapshotHandle> {
        self.or_without_ballast(|| self.try_write(frozen, payloads))
    }

    fn or_without_ballast<T>(&self, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let ballast = self.dir.join(BALLAST);
        match write() {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && ballast.exists() => {
                remove_if_there(Step::BallastRemove, &ballast)?;
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
        let file = ChangedFile::open_or_create(Step::BallastCreate, &path)?;
        file.resize(Step::BallastResize, bytes)?;
        file.reserve(Step::BallastReserve, bytes)
    }

    fn try_write(
        &self,
        frozen: &Frozen,
        payloads: &mut dyn PayloadSource,
    ) -> io::Result<SnapshotHandle> {
        let path = self.dir.join(CUT_TEMPORARY);
        let written = ChangedFile::create(Step::CutCreate, &path).and_then(|file| {
            write::encode(
                frozen,
                payloads,
                &self.identity,
                file.writer(Step::CutWrite),
            )?;
            file.sync(Step::CutSync)?;
            // So that reading back asks the disk and not the memory that was just written from.
            rustix::fs::fadvise(file.file(), 0, None, rustix::fs::Advice::DontNeed)?;
            Ok(())
        });
        let checked = written.and_then(|()| SnapshotHandle::open(&path, &self.identity));
        if checked.is_err() {
            // Gives a full disk its space back.
            remove_if_there(Step::CutRemove, &path)?;
        }
        checked
    }

    /// Gives a verified file its name: durable when this returns. Files but the newest two good ones go.
    pub fn publish(&self, handle: SnapshotHandle) -> io::Result<SnapshotHandle> {
        let path = self.dir.join(file_name(handle.position()));
        if *handle.path != *path {
            rename(Step::PublishRename, &handle.path, &path)?;
        }
        sync_directory(Step::PublishSync, &self.dir)?;
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
                remove_if_there(Step::OldSnapshotRemove, &file.path)?;
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
        let copy = ChangedFile::create(Step::CopyCreate, &path)?;
        let mut writer = copy.writer(Step::CopyWrite);
        io::copy(&mut read::FileAt::new(&handle.file), &mut writer)?;
        copy.sync(Step::CopySync)?;
        SnapshotHandle::open(&path, &self.identity)
    }

    /// Says durably that the log behind the snapshot is about to be dropped: from here on a log that ends
    /// before the newest snapshot is not a lost one.
    pub fn mark_installing(&self, handle: &SnapshotHandle) -> io::Result<()> {
        match &handle.arrived {
            Some(arrived) => {
                let marker = self.dir.join(INSTALLING);
                rename(Step::MarkerRename, &arrived.marker, &marker)?;
                sync_directory(Step::MarkerSync, &self.dir)
            }
            None => {
                let text = marker_text(handle.position());
                replace(Step::MarkerReplace, &self.dir, INSTALLING, &text)
            }
        }
    }

    /// Takes a received file over, with the marker of its install written ahead.
    fn arrived(&self, path: &Path, handle: SnapshotHandle) -> io::Result<SnapshotHandle> {
        let number = self.arrivals.fetch_add(1, Ordering::Relaxed);
        let arrived = Arrived {
            content: self.dir.join(format!("arrived-{number}.tmp")),
            marker: self.dir.join(format!("arrived-{number}-{INSTALLING}.tmp")),
        };
        let text = marker_text(handle.position());
        write_synced(Step::ArrivedMarkerWrite, &arrived.marker, &text)?;
        rename(Step::ArrivedRename, path, &arrived.content)?;
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
    remove_if_there(Step::MarkerRemove, &dir.join(INSTALLING))?;
    sync_directory(Step::MarkerRemoveSync, dir)
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
            remove_if_there(Step::OlderBadRemove, &other)?;
        }
    }
    rename(Step::BadRename, path, &aside)?;
    sync_directory(Step::BadSync, dir)
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
