//! The snapshot from which the state was loaded, as the home of its payloads until the image holds them.

use std::io;

use bytes::Bytes;

use crate::storage::snapshot::{Places, SnapshotHandle};

/// The file stays readable when its name is gone.
pub struct Base {
    pub snapshot: SnapshotHandle,
    pub places: Places,
}

impl Base {
    /// Not verified.
    pub fn payload(&self, seq: u64, payload_bytes: usize) -> io::Result<Option<Bytes>> {
        self.places.read(&self.snapshot, seq, payload_bytes)
    }
}
