//! The door through which peers reach this member's Raft.

use std::io;

use openraft::Raft;
use openraft::Snapshot;
use openraft::alias::SnapshotDataOf;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::storage::RaftStateMachine;

use super::transport::inbox::ReceivedSnapshot;
use super::transport::server::{RaftDoor, Stopped};
use super::transport::snapshot::SnapshotMeta;
use super::transport::wire::Facts;
use crate::storage::types::{TypeConfig, Vote};

type C = TypeConfig;

/// `open` verifies an arrived file and makes the state machine's snapshot data of it; it may block.
/// `facts` is what this member tells its leader.
pub struct Door<SM: RaftStateMachine<C>, O, F> {
    pub raft: Raft<C, SM>,
    pub open: O,
    pub facts: F,
}

fn stopped(error: impl std::fmt::Display) -> Stopped {
    Stopped(error.to_string())
}

impl<SM, O, F> RaftDoor for Door<SM, O, F>
where
    SM: RaftStateMachine<C>,
    O: Fn(ReceivedSnapshot) -> io::Result<SnapshotDataOf<C, SM>> + Clone + Send + Sync + 'static,
    F: Fn() -> Facts + Send + Sync + 'static,
{
    fn facts(&self) -> Facts {
        (self.facts)()
    }

    async fn append(&self, request: AppendEntriesRequest<C>) -> Result<AppendEntriesResponse<C>, Stopped> {
        self.raft.append_entries(request).await.map_err(stopped)
    }

    async fn vote(&self, ask: VoteRequest<C>) -> Result<VoteResponse<C>, Stopped> {
        self.raft.vote(ask).await.map_err(stopped)
    }

    async fn pre_vote(&self, ask: VoteRequest<C>) -> Result<VoteResponse<C>, Stopped> {
        self.raft.pre_vote(ask).await.map_err(stopped)
    }

    async fn transfer_leader(&self, ask: TransferLeaderRequest<C>) -> Result<TransferLeaderResponse<C>, Stopped> {
        self.raft.handle_transfer_leader(ask).await.map_err(stopped)
    }

    async fn install(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        received: ReceivedSnapshot,
    ) -> Result<SnapshotResponse<C>, String> {
        let open = self.open.clone();
        let data = tokio::task::spawn_blocking(move || open(received))
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        let snapshot = Snapshot { meta, snapshot: data };
        self.raft.install_full_snapshot(vote, snapshot).await.map_err(|e| e.to_string())
    }
}
