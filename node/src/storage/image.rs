//! The image: a copy of all rows in sled, written behind, and the home of cold payloads. Losing it costs
//! time only: it is rebuilt from a snapshot and the log.
//!
//! ```text
//! apply ─▶ dirty (keys, new payloads) ─ freeze ─▶ batch at S ─ log flushed to S ─▶ payloads, rows + head
//!            ▲ 256 MiB: apply waits               │
//! reads ─────┴─▶ batch ─▶ sled ─▶ the snapshot    └─▶ snapshot of S, while nothing else is written
//! ```
//!
//! The thread that writes has the priority of the others: apply waits for it when it falls behind, so with a
//! lower one a busy machine would hold up the member.
//!
//! A batch takes the rows from a frozen copy of the tables, so each changed row is written once, in its
//! newest form. While the image is rebuilt each batch also takes the next rows of that copy in order, and
//! the head, without which nothing counts, comes with the last of them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;

pub mod base;
pub mod batch;
pub mod db;
pub mod dirty;
mod head;
mod open;
mod source;
pub mod sweep;
#[cfg(test)]
mod tests;
pub mod watch;
pub mod writer;

use self::db::Db;
pub use self::open::{Opened, open, open_within};
use self::watch::Watch;
use super::files::{ChangedFile, remove_if_there, remove_tree_if_there};
use super::snapshot::{Position, SnapshotIdentity};
use super::step::{Act, Step, take};
use crate::limits::IMAGE_FREE_BYTES_MIN;

/// Stands while the image is opened, and after it was found bad: the next start makes a new one.
const CONDEMNED: &str = "image.condemned";

/// A call into sled that takes longer hangs: the process ends, and the next start makes a new image.
const PATIENCE: Duration = Duration::from_secs(120);

/// The image's directory, and sled in it.
pub struct Image {
    dir: PathBuf,
    /// None while it is made anew or opened again, and until there is space for that.
    db: RwLock<Option<Db>>,
    /// sled has met a full disk, or is not there because of one: it is opened again before the next batch.
    is_stuck: AtomicBool,
    watch: Arc<Watch>,
}

impl Image {
    /// An empty one in place of whatever is there. On a full disk it is made once there is space.
    pub fn create(dir: &Path) -> io::Result<Image> {
        let image = Image {
            dir: dir.to_owned(),
            db: RwLock::default(),
            is_stuck: AtomicBool::new(true),
            watch: Watch::new(PATIENCE),
        };
        match image.recreate() {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                tracing::warn!(%error, "the image waits for space");
            }
            made => made?,
        }
        Ok(image)
    }

    /// The one that `open` has found good.
    pub fn keep(dir: &Path, db: Db) -> Image {
        Image {
            dir: dir.to_owned(),
            watch: db.watch.clone(),
            db: RwLock::new(Some(db)),
            is_stuck: AtomicBool::new(false),
        }
    }

    /// sled is never asked to write on a disk that is nearly full: it would refuse everything after that.
    pub fn check_space(&self, payload_bytes: u64) -> io::Result<()> {
        // It may have been removed to be made anew.
        let volume = rustix::fs::statvfs(self.dir.parent().unwrap_or(&self.dir))?;
        let free_bytes = volume.f_bavail * volume.f_frsize;
        let wanted_bytes = IMAGE_FREE_BYTES_MIN + 2 * payload_bytes;
        if free_bytes >= wanted_bytes {
            return Ok(());
        }
        let reason = format!("{free_bytes} bytes are free, the image needs {wanted_bytes}");
        Err(io::Error::new(io::ErrorKind::StorageFull, reason))
    }

    pub fn recreate(&self) -> io::Result<()> {
        let mut db = self.db.write().expect("sled's panics end the process");
        self.is_stuck.store(true, Ordering::Relaxed);
        self.watch.call(|| *db = None);
        remove_tree_if_there(Step::ImageRemove, &self.dir)?;
        self.check_space(0)?;
        let made = take(Step::ImageMake, Act::Write(&self.dir), || self.open_db())?;
        *db = Some(made);
        self.is_stuck.store(false, Ordering::Relaxed);
        absolve(&self.dir)
    }

    /// Once sled has failed to write it refuses everything but reads of what it had written before, so it stays
    /// open until there is space. Opened again it must stand where it stood, or where the batch that failed
    /// would have brought it: the head may have come through.
    pub fn reopen(
        &self,
        stood: Option<Position>,
        batch: Position,
        identity: &SnapshotIdentity,
    ) -> io::Result<()> {
        self.check_space(0)?;
        let mut db = self.db.write().expect("sled's panics end the process");
        self.watch.call(|| *db = None);
        let opened = self.open_db()?;
        let found = opened.head()?.map(|head| head::decode(&head, identity));
        let found = found.transpose()?.map(|header| header.position);
        if found != stood && found != Some(batch) {
            return Err(bad(format!("it stands at {found:?}, not at {stood:?}")));
        }
        *db = Some(opened);
        self.is_stuck.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn open_db(&self) -> io::Result<Db> {
        self.watch.call(|| Db::open(&self.dir, self.watch.clone()))
    }

    /// Not verified.
    pub fn payload(&self, seq: u64) -> io::Result<Option<Bytes>> {
        self.noting(self.with(|db| db.payload(seq)))
    }

    pub fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::Relaxed)
    }

    /// What sled has answered.
    pub fn noting<T>(&self, answer: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &answer
            && error.kind() == io::ErrorKind::StorageFull
        {
            self.is_stuck.store(true, Ordering::Relaxed);
        }
        answer
    }

    pub fn with<T>(&self, look: impl FnOnce(&Db) -> io::Result<T>) -> io::Result<T> {
        match &*self.db.read().expect("sled's panics end the process") {
            Some(db) => look(db),
            None => Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the image waits for space",
            )),
        }
    }

    /// The next start does not even look at it.
    pub fn condemn(&self) {
        if let Err(error) = condemn(&self.dir) {
            tracing::warn!(%error, "the image could not be condemned: it is verified at the next start");
        }
    }
}

fn is_condemned(dir: &Path) -> bool {
    dir.with_file_name(CONDEMNED).exists()
}

fn condemn(dir: &Path) -> io::Result<()> {
    ChangedFile::open_or_create(Step::ImageCondemn, &dir.with_file_name(CONDEMNED)).map(drop)
}

fn absolve(dir: &Path) -> io::Result<()> {
    remove_if_there(Step::ImageAbsolve, &dir.with_file_name(CONDEMNED))
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}
