//! The image: a copy of all rows in sled, written behind, and the home of cold payloads. Losing it costs
//! time only: it is rebuilt from a snapshot and the log.
//!
//! ```text
//! apply ─▶ dirty (keys, new payloads) ─ freeze ─▶ batch at S ─ log flushed to S ─▶ payloads, rows + head
//!            ▲ 256 MiB: apply waits               │
//! reads ─────┴─▶ batch ─▶ sled ─▶ the snapshot    └─▶ snapshot of S, while nothing else is written
//! ```
//!
//! A batch takes the rows from a frozen copy of the tables, so each changed row is written once, in its
//! newest form. While the image is rebuilt each batch also takes the next rows of that copy in order, and
//! the head, without which nothing counts, comes with the last of them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::RwLock;

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
pub mod writer;

use self::db::Db;
pub use self::open::{Opened, open};
use super::files::{ChangedFile, remove_if_there, remove_tree_if_there};
use super::snapshot::{Position, SnapshotIdentity};
use super::step::{Act, Step, take};
use crate::limits::IMAGE_FREE_BYTES_MIN;

/// Stands while the image is opened, and after it was found bad: the next start makes a new one.
const CONDEMNED: &str = "image.condemned";

/// The image's directory, and sled in it.
pub struct Image {
    dir: PathBuf,
    /// None while it is made anew or opened again.
    db: RwLock<Option<Db>>,
}

impl Image {
    /// An empty one in place of whatever is there.
    pub fn create(dir: &Path) -> io::Result<Image> {
        let image = Image {
            dir: dir.to_owned(),
            db: RwLock::default(),
        };
        image.recreate()?;
        Ok(image)
    }

    /// The one that `open` has found good.
    pub fn keep(dir: &Path, db: Db) -> Image {
        Image {
            dir: dir.to_owned(),
            db: RwLock::new(Some(db)),
        }
    }

    /// sled is never asked to write on a disk that is nearly full: it would refuse everything after that.
    pub fn check_space(&self, payload_bytes: u64) -> io::Result<()> {
        let volume = rustix::fs::statvfs(&self.dir)?;
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
        *db = None;
        remove_tree_if_there(Step::ImageRemove, &self.dir)?;
        let made = take(Step::ImageMake, Act::Write(&self.dir), || {
            Db::open(&self.dir)
        })?;
        *db = Some(made);
        absolve(&self.dir)
    }

    /// Once sled has failed to write it refuses everything until it is opened again. It must still stand
    /// at this position.
    pub fn reopen(
        &self,
        position: Option<Position>,
        identity: &SnapshotIdentity,
    ) -> io::Result<()> {
        let mut db = self.db.write().expect("sled's panics end the process");
        *db = None;
        self.check_space(0)?;
        let opened = Db::open(&self.dir)?;
        let found = opened.head()?.map(|head| head::decode(&head, identity));
        let found = found.transpose()?.map(|header| header.position);
        if found != position {
            return Err(bad(format!("it stands at {found:?}, not at {position:?}")));
        }
        *db = Some(opened);
        Ok(())
    }

    /// Not verified.
    pub fn payload(&self, seq: u64) -> io::Result<Option<Bytes>> {
        self.with(|db| db.payload(seq))
    }

    pub fn with<T>(&self, look: impl FnOnce(&Db) -> io::Result<T>) -> io::Result<T> {
        match &*self.db.read().expect("sled's panics end the process") {
            Some(db) => look(db),
            None => Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the image could not be opened again after it met a full disk",
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
