//! The state machine's snapshots as the transport sends and collects them.

use std::io;

use super::transport::inbox::SnapshotSink;
use super::transport::snapshot::SnapshotSource;
use crate::storage::snapshot::{SnapshotHandle, SnapshotReceiver};
use crate::storage::store::Store;

impl SnapshotSource for SnapshotHandle {
    fn id(&self) -> String {
        self.id.clone()
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let read = SnapshotHandle::read_at(self, offset, buffer.len())?;
        if read.len() != buffer.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.copy_from_slice(&read);
        Ok(())
    }
}

impl SnapshotSink for Store {
    type Arrival = SnapshotReceiver;
    type Data = SnapshotHandle;

    fn begin(&self, id: &str, bytes: u64) -> io::Result<SnapshotReceiver> {
        SnapshotReceiver::begin(self.snapshots(), id, bytes)
    }

    fn received(&self, arrival: &SnapshotReceiver) -> u64 {
        arrival.received()
    }

    fn write(&self, arrival: &mut SnapshotReceiver, offset: u64, chunk: &[u8]) -> io::Result<()> {
        arrival.write(offset, chunk)
    }

    fn finish(&self, arrival: SnapshotReceiver) -> io::Result<SnapshotHandle> {
        arrival.finish(self.snapshots())
    }
}
