//! What a volume's log and snapshot say about the cluster, read without starting Raft.

use std::io;

use openraft::storage::RaftLogReader;
use openraft::{EntryPayload, StoredMembership as Stored};

use super::consensus::log_term;
use super::view::MembershipView;
use crate::storage::log::disk::Disk;
use crate::storage::log::recovery::Recovered;
use crate::storage::log::{LogHooks, end_process};
use crate::storage::log_store::{LogOptions, LogStore};
use crate::storage::machine::with_meta;
use crate::storage::snapshot::SnapshotHandle;
use crate::storage::types::StoredMembership;

/// Entries looked at in one piece.
const PIECE: u64 = 1_024;

/// The newest configuration on a volume and how far its log goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspected {
    /// `committed` only where this volume itself knows so.
    pub membership: MembershipView,
    pub term: u64,
    pub last_log_index: u64,
    pub last_log_term: u64,
    pub committed_index: u64,
}

/// Looks for the last configuration in the log, then in the snapshot below it.
pub async fn read<D: Disk>(
    recovered: Recovered<D>,
    snapshot: Option<&SnapshotHandle>,
) -> io::Result<Inspected> {
    let (range, vote, committed) = (recovered.range, recovered.vote, recovered.committed);
    let mut known: Option<StoredMembership> = None;
    if let Some(handle) = snapshot {
        known = Some(with_meta(handle.clone())?.meta.last_membership);
    }
    let hooks = LogHooks::only_fatal(end_process());
    let mut log = LogStore::start(recovered, LogOptions::default(), hooks)?;
    let end = range.next();
    let mut at = range.first;
    while at < end {
        let entries = log.try_get_log_entries(at..(at + PIECE).min(end)).await?;
        let Some(last) = entries.last() else { break };
        at = last.log_id.index() + 1;
        for entry in entries {
            if let EntryPayload::Membership(membership) = entry.payload {
                known = Some(Stored::new(Some(entry.log_id), membership));
            }
        }
    }
    tokio::task::spawn_blocking(move || log.close())
        .await
        .map_err(io::Error::other)?;
    let is_committed = |stored: &StoredMembership| *stored.log_id() <= committed;
    let membership = known
        .map(|stored| MembershipView::new(&stored, is_committed(&stored)))
        .unwrap_or_default();
    let last_log_term = range.last.as_ref().map_or(0, log_term);
    Ok(Inspected {
        membership,
        term: vote
            .map_or(0, |vote| vote.leader_id.term)
            .max(last_log_term),
        last_log_index: range.last.map_or(0, |last| last.index()),
        last_log_term,
        committed_index: committed.map_or(0, |committed| committed.index()),
    })
}
