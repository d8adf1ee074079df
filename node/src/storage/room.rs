//! Makes room in a log that is nearly full before Raft starts: Raft's first entry may be the one that no
//! longer fits, and its snapshots come only after that.

use std::io;
use std::sync::Arc;

use futures::TryStreamExt;
use openraft::storage::{RaftLogReader, RaftLogStorage};

use super::codec;
use super::log::disk::Disk;
use super::log_store::LogStore;
use super::machine::decode;
use super::snapshot::Position;
use super::store::Store;

/// Entries applied under one lock.
const ENTRIES_A_LOCK: usize = 64;

/// Applies what is committed, cuts a snapshot of it and drops the log behind the newest one. A snapshot that
/// cannot be cut is only said: an older one may do.
pub async fn make_room<D: Disk>(log: &mut LogStore<D>, store: &Arc<Store>) -> io::Result<()> {
    let disk = log.disk()?;
    if !disk.is_high() {
        return Ok(());
    }
    tracing::warn!(
        used_bytes = disk.used_bytes,
        "the log is nearly full: it is purged behind a snapshot before Raft starts"
    );
    replay(log, store).await?;
    if let Err(error) = store.cut_snapshot(|log_id| log.flushed(log_id)).await {
        tracing::warn!(%error, "no snapshot could be cut");
    }
    let Some(newest) = store.snapshots().newest() else {
        return Ok(());
    };
    let Position { term, index } = newest.position();
    let upto = codec::log_id(term, index);
    if log.get_log_state().await?.last_purged_log_id < Some(upto) {
        log.purge(upto).await?;
    }
    Ok(())
}

async fn replay<D: Disk>(log: &mut LogStore<D>, store: &Store) -> io::Result<()> {
    let Some(committed) = log.read_committed().await? else {
        return Ok(());
    };
    let (applied, _) = store.applied_state();
    let flushed = log.clone();
    let first = applied.map_or(0, |applied| applied.index + 1);
    let entries = log.entries_stream(first..committed.index + 1).await;
    let mut pieces = std::pin::pin!(entries.try_chunks(ENTRIES_A_LOCK));
    while let Some(piece) = pieces.try_next().await.map_err(|broken| broken.1)? {
        let steps = piece.into_iter().map(decode).collect::<io::Result<_>>()?;
        store.apply(steps)?;
        if store.is_batch_due() {
            store.write_behind(|log_id| flushed.flushed(log_id)).await?;
        }
    }
    Ok(())
}
