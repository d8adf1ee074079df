//! Where an arriving snapshot is collected: one temporary file, named after the snapshot's id, so that a
//! broken transfer goes on where it stopped. Its content is verified by whoever installs it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Mutex, OwnedMutexGuard};

const PREFIX: &str = "incoming-";

pub struct Inbox {
    dir: PathBuf,
    /// One transfer at a time; another sender is told to come again.
    busy: Arc<Mutex<()>>,
}

/// A snapshot that has arrived whole and is fsynced. Whoever installs it moves or reads the file; what is
/// left of it afterwards is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedSnapshot {
    pub path: PathBuf,
    pub id: String,
    pub bytes: u64,
}

pub(super) struct Arrival {
    file: Arc<File>,
    received: ReceivedSnapshot,
    offset: u64,
    _busy: OwnedMutexGuard<()>,
}

impl Inbox {
    /// `dir` must exist; nothing else in it may start with `incoming-`.
    pub fn new(dir: PathBuf) -> Inbox {
        Inbox { dir, busy: Arc::default() }
    }

    pub(super) async fn begin(&self, id: String, bytes: u64) -> io::Result<Arrival> {
        let busy = Arc::clone(&self.busy)
            .try_lock_owned()
            .map_err(|_| io::Error::other("another snapshot is arriving from another member"))?;
        let dir = self.dir.clone();
        blocking(move || open(&dir, id, bytes, busy)).await
    }
}

fn open(dir: &Path, id: String, bytes: u64, busy: OwnedMutexGuard<()>) -> io::Result<Arrival> {
    let name = format!("{PREFIX}{}.part", &blake3::hash(id.as_bytes()).to_hex()[..32]);
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let other = entry.file_name();
        if other.to_string_lossy().starts_with(PREFIX) && other.to_string_lossy() != name {
            fs::remove_file(entry.path())?;
        }
    }
    let path = dir.join(name);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
    let mut offset = file.metadata()?.len();
    if offset > bytes {
        file.set_len(0)?;
        offset = 0;
    }
    let received = ReceivedSnapshot { path, id, bytes };
    Ok(Arrival { file: Arc::new(file), received, offset, _busy: busy })
}

impl Arrival {
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next chunk, which must follow the last one.
    pub(super) async fn write(&mut self, offset: u64, chunk: Bytes) -> io::Result<()> {
        let end = offset + chunk.len() as u64;
        if offset != self.offset || end > self.received.bytes {
            return Err(io::Error::other(format!(
                "a chunk of bytes {offset}..{end}, at {} of {}",
                self.offset, self.received.bytes
            )));
        }
        let file = Arc::clone(&self.file);
        blocking(move || file.write_all_at(&chunk, offset)).await?;
        self.offset = end;
        Ok(())
    }

    pub(super) async fn finish(&self) -> io::Result<ReceivedSnapshot> {
        if self.offset != self.received.bytes {
            return Err(io::Error::other(format!("ended at {} of {} bytes", self.offset, self.received.bytes)));
        }
        let file = Arc::clone(&self.file);
        blocking(move || file.sync_all()).await?;
        Ok(self.received.clone())
    }

    /// Removes what an install has left of the file: damaged bytes must not be resumed.
    pub(super) async fn discard(self) -> io::Result<()> {
        let path = self.received.path.clone();
        blocking(move || match fs::remove_file(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        })
        .await
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
