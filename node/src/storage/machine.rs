//! openraft's state machine over the pure state, and what everyone else sees of it.
//!
//! `Machine` belongs to openraft and is the only writer; `Store` is shared: readers, waiters on progress,
//! cutting and receiving snapshots.
//!
//! The applied log id changes under the same lock as the rows (I3), so a reader never sees one without the
//! other. Errors returned to openraft end Raft: only an entry that cannot be applied, or a snapshot of the
//! leader that cannot be installed, returns one. A snapshot that cannot be cut is only late.

use std::io;
use std::sync::Arc;

use futures::{FutureExt, Stream, StreamExt};
use openraft::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, RaftSnapshotBuilder};

use super::snapshot::SnapshotHandle;
use super::store::{Decoded, Step, Store};
use super::types::{Entry, LogId, Outcomes, StoredMembership, TypeConfig};

/// Entries applied under one lock, by count and by bytes: readers wait no longer than for these.
const ENTRIES_A_LOCK: usize = 64;
const BYTES_A_LOCK: usize = 256 << 10;

pub struct Machine {
    store: Arc<Store>,
}

impl Machine {
    pub fn new(store: Arc<Store>) -> Machine {
        Machine { store }
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotHandle;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok(self.store.applied_state())
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        while let Some(first) = entries.next().await {
            let mut steps = Vec::new();
            let mut responders = Vec::new();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(item) = next.take() {
                let (entry, responder) = item?;
                if let EntryPayload::Normal(data) = &entry.payload {
                    bytes += data.0.len();
                }
                steps.push(decode(entry)?);
                responders.push(responder);
                if steps.len() < ENTRIES_A_LOCK && bytes < BYTES_A_LOCK {
                    next = entries.next().now_or_never().flatten();
                }
            }
            self.store.room().await;
            let outcomes = self.store.apply(steps)?;
            for (responder, outcomes) in responders.into_iter().zip(outcomes) {
                if let Some(responder) = responder {
                    responder.send(Outcomes(outcomes));
                }
            }
        }
        Ok(())
    }

    /// Unforced, openraft gets the newest finished file or nothing. It forces only where a member has
    /// purged its log and has no snapshot, and in its conformance suite.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        let newest = self.store.snapshots().newest();
        if !force && newest.is_none() {
            return None;
        }
        let newest = if force { None } else { newest };
        Some(Builder {
            store: self.store.clone(),
            newest,
        })
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            store: self.store.clone(),
            newest: self.store.snapshots().newest(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        snapshot: SnapshotHandle,
    ) -> io::Result<()> {
        self.store.install(meta.clone(), snapshot).await
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotHandle>>> {
        self.store.snapshots().newest().map(with_meta).transpose()
    }
}

pub struct Builder {
    store: Arc<Store>,
    newest: Option<SnapshotHandle>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotHandle;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, SnapshotHandle>> {
        if let Some(newest) = &self.newest {
            return with_meta(newest.clone());
        }
        let cut = self
            .store
            .cut_snapshot(|_| std::future::ready(Ok(())))
            .await;
        match (cut, self.store.snapshots().newest()) {
            (Ok(Some(cut)), _) => with_meta(cut),
            (_, Some(newest)) => with_meta(newest),
            (Err(error), None) => Err(error),
            // Of nothing: a purged log without a snapshot, which the start table ends before Raft and only
            // the conformance suite brings about. It is never published.
            (Ok(None), None) => {
                let snapshot = self.store.cut_nothing().await?;
                Ok(Snapshot {
                    meta: Default::default(),
                    snapshot,
                })
            }
        }
    }
}

/// The form in which openraft carries a snapshot, from here or received.
pub fn with_meta(handle: SnapshotHandle) -> io::Result<SnapshotOf<TypeConfig, SnapshotHandle>> {
    let meta = super::store::meta_of(&handle.header)?;
    Ok(Snapshot {
        meta,
        snapshot: handle,
    })
}

/// An entry that cannot be decoded was written by a build that knows more: going on would part us from it.
pub(super) fn decode(entry: Entry) -> io::Result<Step> {
    let content = match entry.payload {
        EntryPayload::Blank => Decoded::Blank,
        EntryPayload::Membership(membership) => Decoded::Membership(membership),
        EntryPayload::Normal(bytes) => {
            let unknown = |what: String| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("entry {} cannot be read: {what}", entry.log_id),
                )
            };
            match postcard::take_from_bytes(&bytes.0) {
                Ok((commands, [])) => Decoded::Commands(commands),
                Ok((_, rest)) => {
                    return Err(unknown(format!("{} bytes are left over", rest.len())));
                }
                Err(error) => return Err(unknown(error.to_string())),
            }
        }
    };
    Ok(Step {
        log_id: entry.log_id,
        content,
    })
}

#[cfg(test)]
mod tests;
