//! The door through which peers reach this member's Raft.

use std::sync::Arc;

use openraft::Raft;
use openraft::Snapshot;
use openraft::alias::SnapshotDataOf;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::storage::RaftStateMachine;

use super::transport::inbox::SnapshotSink;
use super::transport::server::{RaftDoor, Stopped};
use super::transport::snapshot::SnapshotMeta;
use super::transport::wire::Facts;
use crate::storage::types::{TypeConfig, Vote};

type C = TypeConfig;

/// `sink` collects arriving snapshots; `facts` is what this member tells its leader.
pub struct Door<SM: RaftStateMachine<C>, K, F> {
    pub raft: Raft<C, SM>,
    pub sink: Arc<K>,
    pub facts: F,
}

fn stopped(error: impl std::fmt::Display) -> Stopped {
    Stopped(error.to_string())
}

impl<SM, K, F> RaftDoor for Door<SM, K, F>
where
    SM: RaftStateMachine<C>,
    K: SnapshotSink<Data = SnapshotDataOf<C, SM>>,
    F: Fn() -> Facts + Send + Sync + 'static,
{
    type Sink = K;

    fn sink(&self) -> &Arc<K> {
        &self.sink
    }

    fn facts(&self) -> Facts {
        (self.facts)()
    }

    async fn append(
        &self,
        request: AppendEntriesRequest<C>,
    ) -> Result<AppendEntriesResponse<C>, Stopped> {
        self.raft.append_entries(request).await.map_err(stopped)
    }

    async fn vote(&self, ask: VoteRequest<C>) -> Result<VoteResponse<C>, Stopped> {
        self.raft.vote(ask).await.map_err(stopped)
    }

    async fn pre_vote(&self, ask: VoteRequest<C>) -> Result<VoteResponse<C>, Stopped> {
        self.raft.pre_vote(ask).await.map_err(stopped)
    }

    async fn transfer_leader(
        &self,
        ask: TransferLeaderRequest<C>,
    ) -> Result<TransferLeaderResponse<C>, Stopped> {
        self.raft.handle_transfer_leader(ask).await.map_err(stopped)
    }

    async fn install(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        data: SnapshotDataOf<C, SM>,
    ) -> Result<SnapshotResponse<C>, String> {
        let snapshot = Snapshot {
            meta,
            snapshot: data,
        };
        self.raft
            .install_full_snapshot(vote, snapshot)
            .await
            .map_err(|e| e.to_string())
    }
}
