//! Accepts the other members' connections and serves each by its lane.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::frame::FrameError;
use super::handshake::{self, Caller};
use super::inbox::{SnapshotSink, Turn};
use super::peers::Peers;
use super::snapshot::{self, SnapshotMeta};
use super::wire::{Facts, Lane, Refuse, RefuseCause};
use super::{Conn, serve_append, serve_calls};
use crate::limits::{PEER_CONNECTIONS_MAX, PEER_HANDSHAKES_MAX};
use crate::storage::types::{TypeConfig, Vote};

const SNAPSHOT_IDLE: Duration = Duration::from_secs(60);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Raft has ended on this member; connections are closed.
#[derive(Debug, thiserror::Error)]
#[error("raft has stopped: {0}")]
pub struct Stopped(pub String);

type Answer<T> = Result<T, Stopped>;

/// What peers ask of this member's Raft.
pub trait RaftDoor: Send + Sync + 'static {
    type Sink: SnapshotSink;

    fn facts(&self) -> Facts;
    fn sink(&self) -> &Arc<Self::Sink>;
    fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> impl Future<Output = Answer<AppendEntriesResponse<TypeConfig>>> + Send;
    fn vote(
        &self,
        ask: VoteRequest<TypeConfig>,
    ) -> impl Future<Output = Answer<VoteResponse<TypeConfig>>> + Send;
    fn pre_vote(
        &self,
        ask: VoteRequest<TypeConfig>,
    ) -> impl Future<Output = Answer<VoteResponse<TypeConfig>>> + Send;
    fn transfer_leader(
        &self,
        ask: TransferLeaderRequest<TypeConfig>,
    ) -> impl Future<Output = Answer<TransferLeaderResponse<TypeConfig>>> + Send;
    /// An error is told to the sender, which comes again later.
    fn install(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        data: <Self::Sink as SnapshotSink>::Data,
    ) -> impl Future<Output = Result<SnapshotResponse<TypeConfig>, String>> + Send;
}

/// What other members ask of this one's service on behalf of their clients. The future is dropped when
/// nobody waits for it any more.
pub trait Forwarded: Send + Sync + 'static {
    fn handle(
        &self,
        from: u64,
        request: Bytes,
        deadline: Instant,
    ) -> impl Future<Output = Bytes> + Send;
}

pub struct PeerServer<R, F> {
    pub peers: Arc<Peers>,
    pub raft: Arc<R>,
    pub forwarded: Arc<F>,
}

/// Connections by member and lane: a newer one takes the older one's place.
#[derive(Default)]
struct Live(Mutex<HashMap<(u64, Lane), CancellationToken>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Replaced,
    Closed,
}

impl<R: RaftDoor, F: Forwarded> PeerServer<R, F> {
    /// Serves until `stop`; then every connection is closed.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let shared = Arc::new(Shared {
            server: self,
            live: Live::default(),
            turn: Turn::default(),
        });
        let handshakes = Arc::new(Semaphore::new(PEER_HANDSHAKES_MAX));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = listener.accept() => match accepted {
                    Ok((tcp, address)) => {
                        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
                            tracing::warn!(%address, "too many handshakes at a time, connection dropped");
                            continue;
                        };
                        let shared = Arc::clone(&shared);
                        let full = connections.len() >= PEER_CONNECTIONS_MAX;
                        connections.spawn(async move {
                            let greeted = shared.greet(tcp, address, full).await;
                            drop(permit);
                            if let Some((conn, caller)) = greeted {
                                shared.serve_connection(conn, caller).await;
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a peer's connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }
}

struct Shared<R, F> {
    server: PeerServer<R, F>,
    live: Live,
    turn: Turn,
}

impl<R: RaftDoor, F: Forwarded> Shared<R, F> {
    async fn greet(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        full: bool,
    ) -> Option<(Conn, Caller)> {
        match timeout(
            self.server.peers.options().handshake_timeout,
            self.handshake(tcp, full),
        )
        .await
        {
            Ok(Ok(greeted)) => Some(greeted),
            Ok(Err(error)) => {
                tracing::warn!(%address, %error, "peer refused");
                None
            }
            Err(_) => {
                tracing::warn!(%address, "peer refused: no handshake in time");
                None
            }
        }
    }

    async fn handshake(
        &self,
        tcp: TcpStream,
        full: bool,
    ) -> Result<(Conn, Caller), handshake::HandshakeError> {
        let io = |e: io::Error| FrameError::Io(e);
        tcp.set_nodelay(true).map_err(io)?;
        let peers = &self.server.peers;
        let acceptor = TlsAcceptor::from(Arc::clone(&peers.tls().current().server));
        let stream = acceptor.accept(tcp).await.map_err(io)?;
        let presented = stream.get_ref().1.peer_certificates().map(|chain| {
            chain
                .iter()
                .map(|certificate| certificate.clone().into_owned())
                .collect::<Vec<_>>()
        });
        let mut conn = Conn::new(stream.into());
        if full {
            let reason = format!("{PEER_CONNECTIONS_MAX} connections are open");
            let refuse = Refuse {
                cause: RefuseCause::Busy,
                reason,
            };
            handshake::send_refuse(&mut conn, &refuse).await?;
            return Err(handshake::HandshakeError::RefusedPeer(refuse));
        }
        let caller = handshake::accept(&mut conn, presented, peers.me()).await?;
        Ok((conn, caller))
    }

    async fn serve_connection(&self, mut conn: Conn, caller: Caller) {
        let key = (caller.member_id, caller.lane);
        let mine = self.live.enter(key);
        let ending = tokio::select! {
            () = mine.cancelled() => Ending::Replaced,
            outcome = self.serve_lane(&mut conn, &caller) => {
                match outcome {
                    Ok(()) => tracing::debug!(peer = caller.member_id, lane = ?caller.lane, "peer closed"),
                    Err(FrameError::Io(error)) => {
                        tracing::debug!(peer = caller.member_id, lane = ?caller.lane, %error, "peer lost");
                    }
                    Err(error) => {
                        tracing::warn!(peer = caller.member_id, lane = ?caller.lane, %error, "peer's connection closed");
                    }
                }
                Ending::Closed
            }
        };
        drop(conn);
        self.live.leave(key, &mine);
        if ending == Ending::Closed && caller.lane == Lane::Control {
            self.server
                .peers
                .probe(caller.member_id, &caller.name)
                .await;
        }
    }

    async fn serve_lane(&self, conn: &mut Conn, caller: &Caller) -> Result<(), FrameError> {
        let server = &self.server;
        // Pings come this often; silence for longer means that nobody is there.
        let idle = server.peers.options().keep_alive * 5;
        match caller.lane {
            Lane::Append => serve_append::serve(conn, &server.raft).await,
            Lane::Control => {
                let ours = (&server.raft, &server.peers);
                serve_calls::serve_control(conn, caller.member_id, ours, idle).await
            }
            Lane::Forward => {
                serve_calls::serve_forward(conn, caller.member_id, &server.forwarded, idle).await
            }
            Lane::Snapshot => {
                snapshot::receive(conn, server.raft.as_ref(), &self.turn, SNAPSHOT_IDLE).await
            }
        }
    }
}

impl Live {
    fn enter(&self, key: (u64, Lane)) -> CancellationToken {
        let mine = CancellationToken::new();
        let mut live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(older) = live.insert(key, mine.clone()) {
            older.cancel();
        }
        mine
    }

    /// A replaced connection's place belongs to the one that replaced it.
    fn leave(&self, key: (u64, Lane), mine: &CancellationToken) {
        let mut live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !mine.is_cancelled() {
            live.remove(&key);
        }
    }
}
