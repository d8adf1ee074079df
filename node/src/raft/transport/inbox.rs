//! Where an arriving snapshot is collected. Whoever keeps snapshots says how; here is only the order of
//! things: one transfer at a time, blocking work off the async threads.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Collects a snapshot in a temporary file. All of it blocks.
pub trait SnapshotSink: Send + Sync + 'static {
    /// A transfer on its way.
    type Arrival: Send + 'static;
    /// A snapshot that arrived whole and was verified.
    type Data: Send + 'static;

    /// Goes on with what is there of the snapshot with this id; what is there of others is dropped.
    fn begin(&self, id: &str, bytes: u64) -> io::Result<Self::Arrival>;
    /// Where the next chunk must start.
    fn received(&self, arrival: &Self::Arrival) -> u64;
    fn write(&self, arrival: &mut Self::Arrival, offset: u64, chunk: &[u8]) -> io::Result<()>;
    /// fsyncs and verifies. Bytes that do not verify must not be gone on with.
    fn finish(&self, arrival: Self::Arrival) -> io::Result<Self::Data>;
}

/// One transfer at a time: another sender is told to come again.
#[derive(Clone, Default)]
pub(super) struct Turn(Arc<Mutex<()>>);

pub(super) struct Arriving<K: SnapshotSink> {
    sink: Arc<K>,
    arrival: K::Arrival,
    _turn: OwnedMutexGuard<()>,
}

impl<K: SnapshotSink> Arriving<K> {
    pub(super) async fn begin(
        sink: &Arc<K>,
        turn: &Turn,
        id: String,
        bytes: u64,
    ) -> io::Result<Arriving<K>> {
        let turn = Arc::clone(&turn.0)
            .try_lock_owned()
            .map_err(|_| io::Error::other("another snapshot is arriving from another member"))?;
        let sink = Arc::clone(sink);
        blocking(move || {
            let arrival = sink.begin(&id, bytes)?;
            Ok(Arriving {
                sink,
                arrival,
                _turn: turn,
            })
        })
        .await
    }

    pub(super) fn received(&self) -> u64 {
        self.sink.received(&self.arrival)
    }

    pub(super) async fn write(mut self, offset: u64, chunk: Bytes) -> io::Result<Arriving<K>> {
        blocking(move || {
            self.sink.write(&mut self.arrival, offset, &chunk)?;
            Ok(self)
        })
        .await
    }

    pub(super) async fn finish(self) -> io::Result<K::Data> {
        blocking(move || self.sink.finish(self.arrival)).await
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
