//! openraft's network over our transport, and the door through which peers reach our Raft.
//!
//! All of openraft's network traits are implemented one by one: `RaftNetworkV2` would fill what is missing
//! with defaults that grant every pre-vote, drop hand-overs and send one append at a time.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::alias::SnapshotOf;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RPCTypes, RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::time::Instant;

use super::transport::append::outcome_in;
use super::transport::append_stream;
use super::transport::dial::DialError;
use super::transport::frame::{FrameError, Tag, decode_whole, encode};
use super::transport::mux::CallError;
use super::transport::peers::{Peer, Peers};
use super::transport::snapshot::{SendError, SnapshotSource};
use super::transport::wire::{
    Heartbeat, HeartbeatAnswer, TransferAnswer, TransferAsk, VoteAnswer, VoteAsk, log_id_out,
};
use super::transport::{pauses, snapshot};
use crate::storage::types::{MemberName, TypeConfig, Vote};

type C = TypeConfig;

/// `S` is the state machine's snapshot data.
pub struct NetworkFactory<S> {
    peers: Arc<Peers>,
    data: PhantomData<fn() -> S>,
}

impl<S: SnapshotSource> NetworkFactory<S> {
    pub fn new(peers: Arc<Peers>) -> NetworkFactory<S> {
        NetworkFactory {
            peers,
            data: PhantomData,
        }
    }

    fn client(&self, target: u64, name: &MemberName, is_heartbeat: bool) -> Network<S> {
        Network {
            peer: self.peers.peer(target, name),
            peers: Arc::clone(&self.peers),
            target,
            is_heartbeat,
            data: PhantomData,
            retries: None,
        }
    }
}

pub struct Network<S> {
    peers: Arc<Peers>,
    peer: Arc<Peer>,
    target: u64,
    /// Its appends are heartbeats, which go over another connection than entries.
    is_heartbeat: bool,
    data: PhantomData<fn() -> S>,
    /// Pauses before the append stream is opened again; none while it is open.
    retries: Option<Box<dyn Iterator<Item = Duration> + Send + Sync>>,
}

impl<S: SnapshotSource> RaftNetworkFactory<C> for NetworkFactory<S> {
    type Network = Network<S>;

    async fn new_client(&mut self, target: u64, node: &MemberName) -> Network<S> {
        self.client(target, node, false)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &MemberName) -> Network<S> {
        self.client(target, node, true)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &MemberName) -> Network<S> {
        self.client(target, node, false)
    }
}

impl<S: SnapshotSource> Network<S> {
    async fn control<A: serde::Serialize, B: serde::de::DeserializeOwned>(
        &self,
        tag: Tag,
        action: RPCTypes,
        ask: &A,
        ttl: Duration,
    ) -> Result<B, RPCError<C>> {
        let mut body = bytes::BytesMut::new();
        encode(tag, ask, &mut body).map_err(network)?;
        let deadline = Instant::now() + ttl;
        match self
            .peer
            .control
            .call(tag, bytes::Bytes::new(), body.freeze(), deadline)
            .await
        {
            Ok(answer) => decode_whole(tag, answer).map_err(network),
            Err(_) if Instant::now() >= deadline => Err(self.timeout(action, ttl).into()),
            Err(error @ CallError::NotSent(_)) => Err(Unreachable::new(&error).into()),
            Err(error @ CallError::Unknown(_)) => Err(NetworkError::new(&error).into()),
        }
    }

    fn timeout(&self, action: RPCTypes, timeout: Duration) -> Timeout<C> {
        Timeout {
            action,
            id: self.peers.me().member_id,
            target: self.target,
            timeout,
        }
    }

    async fn heartbeat(
        &self,
        request: AppendEntriesRequest<C>,
        ttl: Duration,
    ) -> Result<StreamAppendResult<C>, RPCError<C>> {
        let beat = Heartbeat {
            vote: (&request.vote).into(),
            prev: log_id_out(request.prev_log_id.as_ref()),
            leader_commit: log_id_out(request.leader_commit.as_ref()),
        };
        let answer: HeartbeatAnswer = self
            .control(Tag::Heartbeat, RPCTypes::AppendEntries, &beat, ttl)
            .await?;
        self.peers.note_heard(self.target, answer.facts);
        Ok(outcome_in(answer.outcome))
    }

    fn dial_error(&self, error: &DialError) -> RPCError<C> {
        Unreachable::new(error).into()
    }
}

fn network(error: FrameError) -> RPCError<C> {
    NetworkError::new(&error).into()
}

impl<S: SnapshotSource> NetBackoff<C> for Network<S> {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(pauses(self.peers.options())))
    }
}

impl<S: SnapshotSource> NetStreamAppend<C> for Network<S> {
    fn stream_append<'s, I>(
        &'s mut self,
        input: I,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<C>, RPCError<C>>>, RPCError<C>>>
    where
        I: Stream<Item = AppendEntriesRequest<C>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            if self.is_heartbeat {
                let ttl = option.soft_ttl();
                let network = &*self;
                let beats = input.then(move |request| network.heartbeat(request, ttl));
                let beats: BoxStream<'s, _> = Box::pin(beats);
                return Ok(beats);
            }
            let stream = match append_stream::open(&self.peer, self.peers.options(), input).await {
                Ok(stream) => stream,
                Err(error) => {
                    // openraft's back-off waits in `input`, which a peer that is away never gets to read.
                    let pause = self
                        .retries
                        .get_or_insert_with(|| Box::new(pauses(self.peers.options())))
                        .next();
                    tokio::time::sleep(pause.unwrap_or(self.peers.options().retry_longest)).await;
                    return Err(self.dial_error(&error));
                }
            };
            self.retries = None;
            let answers = append_stream::answers(stream).map(|item| match item {
                Ok(outcome) => Ok(outcome_in(outcome)),
                Err(append_stream::AppendError::Timeout(after)) => {
                    Err(self.timeout(RPCTypes::AppendEntries, after).into())
                }
                Err(append_stream::AppendError::Frame(error)) => Err(network(error)),
            });
            let answers: BoxStream<'s, _> = Box::pin(answers);
            Ok(answers)
        })
    }
}

impl<S: SnapshotSource> NetVote<C> for Network<S> {
    async fn vote(
        &mut self,
        rpc: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let answer: VoteAnswer = self
            .control(
                Tag::Vote,
                RPCTypes::Vote,
                &VoteAsk::from(&rpc),
                option.soft_ttl(),
            )
            .await?;
        Ok(answer.into())
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let answer: VoteAnswer = self
            .control(
                Tag::PreVote,
                RPCTypes::Vote,
                &VoteAsk::from(&rpc),
                option.soft_ttl(),
            )
            .await?;
        Ok(answer.into())
    }
}

impl<S: SnapshotSource> NetTransferLeader<C> for Network<S> {
    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<C>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, RPCError<C>> {
        let ask = TransferAsk::from(&req);
        let answer: TransferAnswer = self
            .control(
                Tag::TransferLeader,
                RPCTypes::TransferLeader,
                &ask,
                option.hard_ttl(),
            )
            .await?;
        Ok(answer.into())
    }
}

impl<S: SnapshotSource> NetSnapshot<C> for Network<S> {
    type SnapshotData = S;

    /// `option` is not used: its one time-out would have to cover the whole snapshot. Each chunk has its own.
    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<C, S>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let chunk_timeout = self.peers.options().chunk_timeout;
        let source = Arc::new(snapshot.snapshot);
        let sending = snapshot::send_to(&self.peer, &vote, &snapshot.meta, source, chunk_timeout);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sending => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(SendError::Timeout(after)) => Err(self.timeout(RPCTypes::InstallSnapshot, after).into()),
                Err(SendError::Frame(error)) => Err(NetworkError::new(&error).into()),
                Err(error @ (SendError::Dial(_) | SendError::Read(_) | SendError::Refused(_))) => {
                    Err(Unreachable::new(&error).into())
                }
            },
        }
    }
}
