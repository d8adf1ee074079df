//! Keeps the disk's copies of the state: the image, behind apply, and snapshots, cut from the image.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::alias::SnapshotMetaOf;
use tokio::task::JoinHandle;

use super::held::Held;
use super::{Shared, Store, meta_of};
use crate::storage::codec;
use crate::storage::image::batch::{Batch, Rebuild};
use crate::storage::image::writer::Wrote;
use crate::storage::log::disk::Disk;
use crate::storage::log_store::LogStore;
use crate::storage::snapshot::{Frozen, Position, SnapshotHandle};
use crate::storage::types::{LogId, TypeConfig};

/// What changed is in the image after this time at the latest, when the disk can keep up.
const BATCH_EVERY: Duration = Duration::from_secs(2);
/// Pause after a full disk.
const SPACE_RETRY: Duration = Duration::from_secs(1);

/// Ends once the log is durable up to an entry.
pub trait Flushing: Future<Output = io::Result<()>> + Send {}

impl<F: Future<Output = io::Result<()>> + Send> Flushing for F {}

/// What one batch came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The image holds the state up to the batch.
    UpTo(Position),
    /// The rebuild goes on.
    Rebuilding,
    Nothing,
}

impl Store {
    /// Writes behind until it is aborted. `wrote` is told how long each batch took.
    pub fn keep_image<D: Disk>(
        self: &Arc<Store>,
        log: LogStore<D>,
        wrote: impl Fn(Duration) + Send + 'static,
    ) -> JoinHandle<()> {
        let store = self.clone();
        tokio::spawn(async move {
            loop {
                let Ok(has_more) = store.sweep().await else {
                    return;
                };
                let began = Instant::now();
                let kept = store.write_behind(|log_id| log.flushed(log_id)).await;
                if matches!(kept, Ok(Kept::UpTo(_) | Kept::Rebuilding)) {
                    wrote(began.elapsed());
                }
                match kept {
                    Ok(Kept::Rebuilding) => continue,
                    Ok(_) if has_more => continue,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                        tracing::warn!(%error, "the image waits for space");
                        tokio::time::sleep(SPACE_RETRY).await;
                    }
                    // Log or image have ended, and the process with them.
                    Err(_) => return,
                }
                let _ = tokio::time::timeout(BATCH_EVERY, store.shared.due.notified()).await;
            }
        })
    }

    /// Looks at the next payloads of an image that a start was made from. True: there are more.
    pub async fn sweep(&self) -> io::Result<bool> {
        let shared = self.shared.clone();
        let swept = self.writer.run(move |writer| {
            let is_needed = |seq| shared.held().state.tables().has_payload(seq);
            writer.sweep(is_needed)
        });
        swept.await
    }

    /// Brings the image up to now by one batch. `flushed(log_id)` returns once the local log is durable up
    /// to that entry: neither image nor snapshot ever holds one that the log could still lose.
    pub async fn write_behind<F: Flushing>(
        &self,
        flushed: impl Fn(LogId) -> F,
    ) -> io::Result<Kept> {
        let shared = self.shared.clone();
        let frozen = self.writer.run(move |writer| {
            let always = !writer.is_complete() || writer.image().is_stuck();
            Ok(writer.freeze(|| shared.freeze(always)))
        });
        let Some(at) = frozen.await? else {
            return Ok(Kept::Nothing);
        };
        flushed(codec::log_id(at.term, at.index)).await?;
        let shared = self.shared.clone();
        let written = self.writer.run(move |writer| {
            let wrote = writer.write(at, &shared.snapshots)?;
            shared.note(&wrote, at);
            Ok(match wrote {
                Wrote::Nothing => Kept::Nothing,
                Wrote::Piece => Kept::Rebuilding,
                Wrote::All(_) => Kept::UpTo(at),
            })
        });
        written.await
    }

    /// Cuts a snapshot of this moment. `None` when there is nothing new. An error leaves everything as it
    /// was.
    pub async fn cut_snapshot<F: Flushing>(
        &self,
        flushed: impl Fn(LogId) -> F,
    ) -> io::Result<Option<SnapshotHandle>> {
        loop {
            let shared = self.shared.clone();
            let frozen = self
                .writer
                .run(move |writer| Ok(writer.freeze(|| shared.freeze(true))));
            let Some(at) = frozen.await? else {
                return Ok(None);
            };
            // Not on the writer's thread: the flush may need the engine, which an install keeps waiting.
            flushed(codec::log_id(at.term, at.index)).await?;
            let shared = self.shared.clone();
            let cut = self.writer.run(move |writer| {
                let wrote = writer.write(at, &shared.snapshots)?;
                shared.note(&wrote, at);
                let newest = shared.snapshots.newest();
                if newest.is_some_and(|newest| newest.position() >= at) {
                    return Ok(Some(None));
                }
                match wrote {
                    Wrote::Nothing | Wrote::Piece => Ok(None),
                    Wrote::All(frozen) => {
                        let written = writer.cut(&frozen, &shared.snapshots)?;
                        shared.snapshots.publish(written).map(|cut| Some(Some(cut)))
                    }
                }
            });
            if let Some(cut) = cut.await? {
                return Ok(cut);
            }
        }
    }

    /// A snapshot of a state before the first entry; it is never published.
    pub(in crate::storage) async fn cut_nothing(&self) -> io::Result<SnapshotHandle> {
        let shared = self.shared.clone();
        let cut = self
            .writer
            .run(move |writer| writer.cut(&Frozen::default(), &shared.snapshots));
        cut.await
    }

    /// Replaces everything by a verified snapshot of the leader.
    pub(in crate::storage) async fn install(
        &self,
        meta: SnapshotMetaOf<TypeConfig>,
        handle: SnapshotHandle,
    ) -> io::Result<()> {
        let shared = self.shared.clone();
        let installed = self.writer.run(move |writer| {
            let handle = shared.snapshots.adopt(&handle)?;
            if meta_of(&handle.header)? != meta {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the snapshot is not the announced one",
                ));
            }
            let held = Held::load(&handle, shared.bounds)?;
            shared.snapshots.mark_installing(&handle)?;
            shared.snapshots.publish(handle)?;
            let (progress, base) = (held.progress(), held.base.clone());
            let before = std::mem::replace(&mut *shared.held_mut(), held);
            shared.progress.send_replace(progress);
            drop(before);
            shared.image_at.send_replace(None);
            shared.room.notify_waiters();
            shared.due.notify_one();
            writer.start_over(Rebuild { done_upto: 0, base })
        });
        installed.await
    }
}

impl Shared {
    /// What to write next; with `always` also when only the position is new.
    fn freeze(&self, always: bool) -> Option<Batch> {
        let mut held = self.held_mut();
        if !always && held.dirty.is_empty() {
            return None;
        }
        held.freeze()
    }

    fn note(&self, wrote: &Wrote, at: Position) {
        match wrote {
            Wrote::Nothing => return,
            Wrote::Piece => self.held_mut().written(),
            Wrote::All(_) => {
                let mut held = self.held_mut();
                held.written();
                held.base = None;
                drop(held);
                self.image_at.send_replace(Some(at));
            }
        }
        self.room.notify_waiters();
    }
}
