//! Members that talk over the loopback.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use openraft::alias::SnapshotOf;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::raft::certs::{Authority, Issued};
use crate::raft::network::NetworkFactory;
use crate::raft::transport::inbox::SnapshotSink;
use crate::raft::transport::peers::Peers;
use crate::raft::transport::server::{Forwarded, PeerServer, RaftDoor, Stopped};
use crate::raft::transport::snapshot::{SnapshotMeta, SnapshotSource};
use crate::raft::transport::tls::TlsStore;
use crate::raft::transport::wire::Facts;
use crate::raft::transport::{Me, Options};
use crate::storage::types::{Entry, EntryBytes, LogId, MemberName, TypeConfig, Vote};

pub const CLUSTER: &str = "0c9d5e6e-1111-4222-8333-444455556666";
pub const SOON: Duration = Duration::from_secs(20);

pub fn id(n: u64) -> u64 {
    (1 << 32) | n
}

pub fn me(n: u64, name: &MemberName) -> Me {
    Me {
        cluster_id: CLUSTER.into(),
        incarnation: 1,
        member_id: id(n),
        name: name.clone(),
    }
}

/// Short pauses; nothing waits for a bound to pass.
pub fn options() -> Options {
    Options {
        keep_alive: Duration::from_millis(50),
        ..Options::default()
    }
}

pub fn store(issued: &Issued) -> (TempDir, Arc<TlsStore>) {
    let dir = tempfile::tempdir().unwrap();
    issued.write_to(dir.path()).unwrap();
    let store = TlsStore::load(dir.path()).unwrap();
    (dir, Arc::new(store))
}

pub struct Member {
    pub name: MemberName,
    pub peers: Arc<Peers>,
    pub raft: Arc<ScriptedRaft>,
    pub service: Arc<ScriptedService>,
    pub stop: CancellationToken,
    _certificates: TempDir,
}

impl Member {
    pub async fn start(authority: &Authority, n: u64) -> Member {
        Member::start_with(authority, n, options()).await
    }

    pub async fn start_with(authority: &Authority, n: u64, options: Options) -> Member {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Member::start_on(listener, authority, n, options)
    }

    pub fn start_on(
        listener: TcpListener,
        authority: &Authority,
        n: u64,
        options: Options,
    ) -> Member {
        let name = MemberName(listener.local_addr().unwrap().to_string());
        let (certificates, tls) = store(&authority.member(id(n)).unwrap());
        let peers = Peers::new(me(n, &name), tls, options);
        let (raft, service, stop) = (Arc::default(), Arc::default(), CancellationToken::new());
        let server = PeerServer {
            peers: Arc::clone(&peers),
            raft: Arc::clone(&raft),
            forwarded: Arc::clone(&service),
        };
        tokio::spawn(server.serve(listener, stop.clone()));
        Member {
            name,
            peers,
            raft,
            service,
            stop,
            _certificates: certificates,
        }
    }

    pub fn factory(&self) -> NetworkFactory<Bytes> {
        NetworkFactory::new(Arc::clone(&self.peers))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Answers as the test says; appends wait at the gate while it is shut.
pub struct ScriptedRaft {
    pub appended: Mutex<Vec<AppendEntriesRequest<TypeConfig>>>,
    pub append_arrived: Notify,
    pub gate: Semaphore,
    pub conflicts_at: Mutex<Option<u64>>,
    /// Of a later leader: who appends under a lower one is refused.
    pub follows: Mutex<Option<Vote>>,
    pub grants: Mutex<bool>,
    pub transfers: Mutex<Vec<u64>>,
    pub sink: Arc<MemorySink>,
    pub installed: Mutex<Vec<(Vote, SnapshotMeta, Bytes)>>,
}

impl Default for ScriptedRaft {
    fn default() -> ScriptedRaft {
        ScriptedRaft {
            appended: Mutex::default(),
            append_arrived: Notify::new(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            conflicts_at: Mutex::default(),
            follows: Mutex::default(),
            grants: Mutex::default(),
            transfers: Mutex::default(),
            sink: Arc::default(),
            installed: Mutex::default(),
        }
    }
}

impl ScriptedRaft {
    pub fn shut(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub async fn appends(&self, count: usize) {
        loop {
            let arrived = self.append_arrived.notified();
            if self.appended.lock().unwrap().len() >= count {
                return;
            }
            tokio::time::timeout(SOON, arrived)
                .await
                .expect("appends arrive");
        }
    }
}

impl RaftDoor for ScriptedRaft {
    type Sink = MemorySink;

    fn facts(&self) -> Facts {
        Facts {
            ready: true,
            version: "test".into(),
            ..Facts::default()
        }
    }

    fn sink(&self) -> &Arc<MemorySink> {
        &self.sink
    }

    async fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Stopped> {
        let follows = *self.follows.lock().unwrap();
        if let Some(follows) = follows.filter(|follows| request.vote < *follows) {
            return Ok(AppendEntriesResponse::HigherVote(follows));
        }
        if request.entries.is_empty() {
            return Ok(AppendEntriesResponse::Success);
        }
        let first = request.entries[0].log_id.index;
        self.appended.lock().unwrap().push(request);
        self.append_arrived.notify_waiters();
        self.gate
            .acquire()
            .await
            .map_err(|e| Stopped(e.to_string()))?
            .forget();
        if *self.conflicts_at.lock().unwrap() == Some(first) {
            return Ok(AppendEntriesResponse::Conflict);
        }
        Ok(AppendEntriesResponse::Success)
    }

    async fn vote(
        &self,
        ask: VoteRequest<TypeConfig>,
    ) -> Result<VoteResponse<TypeConfig>, Stopped> {
        Ok(VoteResponse::new(
            ask.vote,
            ask.last_log_id,
            *self.grants.lock().unwrap(),
        ))
    }

    async fn pre_vote(
        &self,
        ask: VoteRequest<TypeConfig>,
    ) -> Result<VoteResponse<TypeConfig>, Stopped> {
        Ok(VoteResponse::new(
            ask.vote,
            None,
            *self.grants.lock().unwrap(),
        ))
    }

    async fn transfer_leader(
        &self,
        ask: TransferLeaderRequest<TypeConfig>,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Stopped> {
        self.transfers.lock().unwrap().push(*ask.to_node_id());
        Ok(Ok(()))
    }

    async fn install(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        data: Bytes,
    ) -> Result<SnapshotResponse<TypeConfig>, String> {
        self.installed.lock().unwrap().push((vote, meta, data));
        Ok(SnapshotResponse::new(vote))
    }
}

/// Keeps what arrived by id, so that a broken transfer can go on.
#[derive(Default)]
pub struct MemorySink {
    parts: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Bytes of each chunk that was written.
    pub chunks: Mutex<Vec<usize>>,
    /// How long a chunk takes to write.
    pub slow: Mutex<Duration>,
    /// The chunk, counted from 1, that fails.
    pub fails_at: AtomicUsize,
}

impl SnapshotSink for MemorySink {
    type Arrival = (String, u64);
    type Data = Bytes;

    fn begin(&self, id: &str, bytes: u64) -> io::Result<(String, u64)> {
        self.parts.lock().unwrap().entry(id.to_owned()).or_default();
        Ok((id.to_owned(), bytes))
    }

    fn received(&self, arrival: &(String, u64)) -> u64 {
        self.parts.lock().unwrap()[&arrival.0].len() as u64
    }

    fn write(&self, arrival: &mut (String, u64), offset: u64, chunk: &[u8]) -> io::Result<()> {
        std::thread::sleep(*self.slow.lock().unwrap());
        let mut chunks = self.chunks.lock().unwrap();
        if self.fails_at.load(Ordering::SeqCst) == chunks.len() + 1 {
            self.fails_at.store(0, Ordering::SeqCst);
            return Err(io::Error::other("the disk is full"));
        }
        let mut parts = self.parts.lock().unwrap();
        let part = parts.get_mut(&arrival.0).unwrap();
        assert_eq!(part.len() as u64, offset);
        part.extend_from_slice(chunk);
        chunks.push(chunk.len());
        Ok(())
    }

    fn finish(&self, arrival: (String, u64)) -> io::Result<Bytes> {
        let part = self.parts.lock().unwrap().remove(&arrival.0).unwrap();
        assert_eq!(part.len() as u64, arrival.1);
        Ok(part.into())
    }
}

/// A snapshot in memory.
impl SnapshotSource for Bytes {
    fn id(&self) -> String {
        blake3::hash(self).to_hex().to_string()
    }

    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = offset as usize;
        buffer.copy_from_slice(&self[start..start + buffer.len()]);
        Ok(())
    }
}

/// Echoes; `park` waits until it is dropped or the gate opens.
pub struct ScriptedService {
    pub gate: Semaphore,
    pub parked: AtomicUsize,
    pub changed: Notify,
}

impl Default for ScriptedService {
    fn default() -> ScriptedService {
        ScriptedService {
            gate: Semaphore::new(0),
            parked: AtomicUsize::new(0),
            changed: Notify::new(),
        }
    }
}

impl ScriptedService {
    pub async fn parked(&self, count: usize) {
        loop {
            let changed = self.changed.notified();
            if self.parked.load(Ordering::SeqCst) == count {
                return;
            }
            tokio::time::timeout(SOON, changed)
                .await
                .expect("requests are parked or dropped");
        }
    }
}

struct Parked<'a>(&'a ScriptedService);

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.parked.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

impl Forwarded for ScriptedService {
    async fn handle(&self, from: u64, request: Bytes, _deadline: Instant) -> Bytes {
        if request == "park" {
            self.parked.fetch_add(1, Ordering::SeqCst);
            self.changed.notify_waiters();
            let _parked = Parked(self);
            let _permit = self.gate.acquire().await;
        }
        format!(
            "{} from {}",
            String::from_utf8_lossy(&request),
            from & 0xffff_ffff
        )
        .into()
    }
}

pub fn vote(term: u64, n: u64) -> Vote {
    Vote::new_committed(term, id(n))
}

pub fn log_id(term: u64, index: u64) -> LogId {
    crate::raft::transport::wire::LogId { term, index }.into()
}

pub fn append(index: u64, payload: &Bytes) -> AppendEntriesRequest<TypeConfig> {
    let entry = Entry {
        log_id: log_id(1, index),
        payload: openraft::EntryPayload::Normal(EntryBytes(payload.clone())),
    };
    AppendEntriesRequest {
        vote: vote(1, 1),
        prev_log_id: index.checked_sub(1).map(|before| log_id(1, before)),
        entries: vec![entry],
        leader_commit: None,
    }
}

pub fn snapshot_of(data: &Bytes) -> SnapshotOf<TypeConfig, Bytes> {
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(1, 100)),
        last_membership: Default::default(),
    };
    openraft::Snapshot {
        meta,
        snapshot: data.clone(),
    }
}
