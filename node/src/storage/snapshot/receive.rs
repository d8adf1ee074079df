//! A snapshot on its way from the leader: chunks into a temporary file named by the snapshot's id, so that
//! a broken transfer goes on where it stopped, also after a restart.

use std::io;
use std::path::PathBuf;

use super::{RECEIVING, SnapshotHandle, Snapshots, bad, name_of, paths};
use crate::storage::files::{ChangedFile, is_damage, remove_if_there};
use crate::storage::step::Step;

#[derive(Debug)]
pub struct SnapshotReceiver {
    file: ChangedFile,
    path: PathBuf,
    id: String,
    bytes_total: u64,
    received: u64,
}

impl SnapshotReceiver {
    /// What was received of another snapshot is dropped.
    pub fn begin(
        snapshots: &Snapshots,
        id: &str,
        bytes_total: u64,
    ) -> io::Result<SnapshotReceiver> {
        if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a snapshot id has 32 hexadecimal digits",
            ));
        }
        let path = snapshots.dir().join(format!("{RECEIVING}{id}.tmp"));
        for other in paths(snapshots.dir())? {
            if name_of(&other).starts_with(RECEIVING) && other != path {
                remove_if_there(Step::OtherTransferRemove, &other)?;
            }
        }
        let file = ChangedFile::open_or_create(Step::TransferOpen, &path)?;
        let received = file.file().metadata()?.len();
        let mut receiver = SnapshotReceiver {
            file,
            path,
            id: id.to_owned(),
            bytes_total,
            received,
        };
        if received > bytes_total {
            receiver.restart()?;
        }
        Ok(receiver)
    }

    /// Where the next chunk must start.
    pub fn received(&self) -> u64 {
        self.received
    }

    pub fn write(&mut self, offset: u64, chunk: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(chunk.len() as u64);
        if offset != self.received || end.is_none_or(|end| end > self.bytes_total) {
            let expected = self.received;
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "a chunk of {} bytes at {offset}, expected at {expected} of {}",
                    chunk.len(),
                    self.bytes_total
                ),
            ));
        }
        self.file.write_at(Step::ChunkWrite, chunk, offset)?;
        self.received += chunk.len() as u64;
        Ok(())
    }

    /// Verifies the whole. A file that does not verify is dropped: the next try starts from nothing. The
    /// received file lives as long as its handle, and longer only if it is published.
    pub fn finish(mut self, snapshots: &Snapshots) -> io::Result<SnapshotHandle> {
        if self.received != self.bytes_total {
            return Err(bad(format!(
                "{} of {} bytes received",
                self.received, self.bytes_total
            )));
        }
        self.file.sync(Step::TransferSync)?;
        let checked = SnapshotHandle::open(&self.path, snapshots.identity());
        match checked {
            Ok(handle) if handle.id == self.id => snapshots.arrived(&self.path, handle),
            Ok(handle) => {
                self.restart()?;
                Err(bad(format!(
                    "received snapshot {}, announced was {}",
                    handle.id, self.id
                )))
            }
            Err(error) => {
                if is_damage(&error) {
                    self.restart()?;
                }
                Err(error)
            }
        }
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.resize(Step::TransferRestart, 0)?;
        self.received = 0;
        Ok(())
    }
}
