//! Members that a test starts, stops and starts again on the same volume and address.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::Raft;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::cables::Cables;
use crate::raft::certs::Authority;
use crate::raft::config::{Timings, openraft};
use crate::raft::consensus::Consensus;
use crate::raft::door::Door;
use crate::raft::loopback::own_address;
use crate::raft::membership::Guard;
use crate::raft::network::NetworkFactory;
use crate::raft::succession;
use crate::raft::transport::peers::Peers;
use crate::raft::transport::server::{Forwarded, PeerServer};
use crate::raft::transport::tls::TlsStore;
use crate::raft::transport::wire::Facts;
use crate::raft::transport::{Me, Options};
use crate::storage::log::recovery::recover;
use crate::storage::log::{Geometry, LogHooks, disk::SystemDisk, segment};
use crate::storage::log_store::{LogOptions, LogStore};
use crate::storage::machine::Machine;
use crate::storage::snapshot::SnapshotIdentity;
use crate::storage::store::Store;
use crate::storage::types::{EntryBytes, MemberName, TypeConfig};
use crate::task::command::{Command, Create, Entry};
use crate::task::state::Bounds;
use crate::task::tests::{START_MS, name, task};

pub const SOON: Duration = Duration::from_secs(60);
const CLUSTER: &str = "0c9d5e6e-1111-4222-8333-444455556666";
const LOG: Geometry = Geometry {
    segment_bytes: 256 << 10,
    segments: 64,
};

pub fn id(n: u64) -> u64 {
    (1 << 32) | n
}

/// A loaded machine must not cost a leader its office in the middle of a test.
const CALM: Timings = Timings {
    heartbeat_ms: 100,
    election_ms_min: 1_000,
    election_ms_max: 1_500,
};

/// What runs above Raft on each member.
pub trait Above: Send + Sync + Sized + 'static {
    fn start(
        consensus: Consensus,
        store: Arc<Store>,
        peers: Arc<Peers>,
        own: watch::Receiver<Facts>,
    ) -> Self;

    /// Answers what another member has forwarded.
    fn answer(&self, request: Bytes, deadline: Instant) -> impl Future<Output = Bytes> + Send;
}

impl Above for () {
    fn start(_: Consensus, _: Arc<Store>, _: Arc<Peers>, _: watch::Receiver<Facts>) {}

    async fn answer(&self, request: Bytes, _deadline: Instant) -> Bytes {
        request
    }
}

pub type Cluster = ClusterOf<()>;

pub struct ClusterOf<S> {
    timings: Timings,
    /// Laid for some clusters only.
    pub cables: Cables,
    authority: Authority,
    volumes: BTreeMap<u64, Volume>,
    pub running: BTreeMap<u64, Member<S>>,
}

struct Volume {
    dir: TempDir,
    name: MemberName,
    /// Held while the member is down, so that nobody else takes the address.
    address: Option<TcpListener>,
}

pub struct Member<S> {
    pub raft: Raft<TypeConfig, Machine>,
    pub store: Arc<Store>,
    pub peers: Arc<Peers>,
    pub consensus: Consensus,
    pub above: Arc<S>,
    /// What the member says of itself.
    pub own: watch::Sender<Facts>,
    log: LogStore,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

struct FromPeers<S>(Arc<S>);

impl<S: Above> Forwarded for FromPeers<S> {
    async fn handle(&self, _from: u64, request: Bytes, deadline: Instant) -> Bytes {
        self.0.answer(request, deadline).await
    }
}

impl<S: Above> ClusterOf<S> {
    pub fn new(timings: Timings) -> ClusterOf<S> {
        ClusterOf {
            timings,
            cables: Cables::default(),
            authority: Authority::new(CLUSTER).unwrap(),
            volumes: BTreeMap::new(),
            running: BTreeMap::new(),
        }
    }

    /// Members 1 to `size`, initialized, with a leader.
    pub async fn start(size: u64) -> ClusterOf<S> {
        ClusterOf::start_with(size, CALM).await
    }

    pub async fn start_with(size: u64, timings: Timings) -> ClusterOf<S> {
        let mut cluster = ClusterOf::new(timings);
        for n in 1..=size {
            cluster.add(n).await;
        }
        cluster.initialize().await;
        cluster
    }

    /// The same with cables between the members.
    pub async fn wired(size: u64) -> ClusterOf<S> {
        let mut cluster = ClusterOf::new(CALM);
        for n in 1..=size {
            cluster.prepare(n).await;
        }
        let names = (1..=size).map(|n| (n, cluster.name(n))).collect();
        cluster.cables = Cables::between(&names).await;
        for n in 1..=size {
            cluster.run(n).await;
        }
        cluster.initialize().await;
        cluster
    }

    async fn initialize(&self) {
        let voters: BTreeMap<u64, MemberName> = self
            .running
            .keys()
            .map(|n| (id(*n), self.name(*n)))
            .collect();
        for member in self.running.values() {
            match member.raft.initialize(voters.clone()).await {
                // One that was initialized before has asked for its vote already.
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(other) => panic!("initialize: {other}"),
            }
        }
        self.member(1).raft.trigger().elect(false).await.unwrap();
        self.leader().await;
    }

    pub fn name(&self, n: u64) -> MemberName {
        self.volumes[&n].name.clone()
    }

    pub fn member(&self, n: u64) -> &Member<S> {
        &self.running[&n]
    }

    /// A member on a new, empty volume.
    pub async fn add(&mut self, n: u64) {
        self.prepare(n).await;
        self.run(n).await;
    }

    async fn prepare(&mut self, n: u64) {
        let dir = tempfile::tempdir().unwrap();
        segment::format(&dir.path().join("log"), LOG, segment::Space::All).unwrap();
        self.authority
            .member(id(n))
            .unwrap()
            .write_to(&dir.path().join("tls"))
            .unwrap();
        let listener = TcpListener::bind((own_address(), 7402)).await.unwrap();
        let name = MemberName(listener.local_addr().unwrap().to_string());
        self.volumes.insert(
            n,
            Volume {
                dir,
                name,
                address: Some(listener),
            },
        );
    }

    pub async fn run(&mut self, n: u64) {
        let volume = self.volumes.get_mut(&n).unwrap();
        let dir = volume.dir.path();
        let recovered = recover(&dir.join("log"), LOG, 7, SystemDisk).unwrap();
        let panics =
            Arc::new(|what: &'static str, error: &std::io::Error| panic!("{what}: {error}"));
        let log = LogStore::start(
            recovered,
            LogOptions::default(),
            LogHooks::only_fatal(panics),
        )
        .unwrap();
        let identity = SnapshotIdentity {
            cluster_id: CLUSTER.into(),
            incarnation: 1,
        };
        let store = Store::open(dir, identity, None, Bounds::default()).unwrap();

        let tls = Arc::new(TlsStore::load(&dir.join("tls")).unwrap());
        let me = Me {
            cluster_id: CLUSTER.into(),
            incarnation: 1,
            member_id: id(n),
            name: volume.name.clone(),
        };
        let options = Options {
            detours: self.cables.of(n),
            ..Options::default()
        };
        let peers = Peers::new(me, tls, options);
        let raft = Raft::new(
            id(n),
            openraft(CLUSTER, self.timings).unwrap(),
            NetworkFactory::new(Arc::clone(&peers)),
            log.clone(),
            Machine::new(Arc::clone(&store)),
        )
        .await
        .unwrap();
        succession::watch(raft.clone(), &peers, watch::channel(false).1);
        let consensus = Consensus::new(raft.clone());
        let (own, said) = watch::channel(Facts {
            ready: true,
            ..Facts::default()
        });
        let above = Arc::new(S::start(
            consensus.clone(),
            Arc::clone(&store),
            Arc::clone(&peers),
            said.clone(),
        ));
        let door = Door {
            raft: raft.clone(),
            sink: Arc::clone(&store),
            facts: move || said.borrow().clone(),
        };
        let server = PeerServer {
            peers: Arc::clone(&peers),
            raft: Arc::new(door),
            forwarded: Arc::new(FromPeers(Arc::clone(&above))),
        };
        let stop = CancellationToken::new();
        let listener = match volume.address.take() {
            Some(listener) => listener,
            None => TcpListener::bind(&volume.name.0).await.unwrap(),
        };
        let server = tokio::spawn(server.serve(listener, stop.clone()));
        self.running.insert(
            n,
            Member {
                raft,
                store,
                peers,
                consensus,
                above,
                own,
                log,
                stop,
                server,
            },
        );
    }

    /// As a kill does to the others: its sockets close at once.
    pub async fn stop(&mut self, n: u64) {
        let member = self.running.remove(&n).unwrap();
        member.stop.cancel();
        member.server.await.unwrap();
        member.peers.retain(|_| false);
        member.raft.shutdown().await.unwrap();
        member.log.close();
    }

    /// The number of a member that leads in the highest term, once it has applied an entry of its own.
    pub async fn leader(&self) -> u64 {
        let all: Vec<u64> = self.running.keys().copied().collect();
        self.leader_among(&all).await
    }

    pub async fn leader_among(&self, numbers: &[u64]) -> u64 {
        let leads = async {
            loop {
                for n in numbers {
                    let member = self.member(*n);
                    let Ok(leader) = member.raft.as_leader() else {
                        continue;
                    };
                    let term = leader.term();
                    let newest = self
                        .running
                        .values()
                        .all(|m| m.raft.metrics().borrow_watched().current_term <= term);
                    if newest && member.raft.client_write(tick()).await.is_ok() {
                        return *n;
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON, leads).await.expect("a leader")
    }

    /// Creates a task through a member that leads; answers with the entry's index.
    pub async fn write(&self, leader: u64, text: &str) -> u64 {
        let written = self.member(leader).raft.client_write(create(text));
        let written = timeout(SOON, written).await.expect("committed");
        written.unwrap().log_id.index
    }

    pub async fn applied(&self, n: u64, index: u64) {
        let wait = self.member(n).raft.wait(Some(SOON));
        wait.applied_index_at_least(Some(index), format!("member {n} applies {index}"))
            .await
            .unwrap();
    }

    /// What a change would be decided on now.
    pub fn guard(&self, leader: u64) -> Guard {
        let metrics = self.member(leader).raft.metrics();
        let metrics = metrics.borrow_watched();
        Guard {
            membership: *metrics.membership_config.log_id(),
            term: metrics.current_term,
        }
    }
}

pub fn tick() -> EntryBytes {
    entry(Command::Tick)
}

pub fn create(text: &str) -> EntryBytes {
    entry(Command::Create(Create {
        namespace: name("ns"),
        queue: name("q"),
        tasks: vec![task(text)],
    }))
}

fn entry(command: Command) -> EntryBytes {
    let entry = Entry {
        lease_time_ms: 0,
        wall_time_ms: START_MS,
        commands: vec![command],
    };
    EntryBytes(postcard::to_stdvec(&entry).unwrap().into())
}
