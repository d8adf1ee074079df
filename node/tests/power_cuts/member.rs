//! One machine: a volume that outlives its power, and the member that runs on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::storage::RaftLogStorage;
use taskstore::metrics::Metrics;
use taskstore::raft::certs::Authority;
use taskstore::raft::config::Timings;
use taskstore::raft::consensus::Consensus;
use taskstore::raft::engine;
use taskstore::raft::loopback::own_address;
use taskstore::raft::transport::peers::Peers;
use taskstore::raft::transport::server::Forwarded;
use taskstore::raft::transport::tls::TlsStore;
use taskstore::raft::transport::wire::Facts;
use taskstore::raft::transport::{Me, Options, PEER_PORT};
use taskstore::service::Service;
use taskstore::storage::identity::Identity;
use taskstore::storage::log::Geometry;
use taskstore::storage::log_store::{LogOptions, LogStore};
use taskstore::storage::start::StartError;
use taskstore::storage::store::Store;
use taskstore::storage::types::MemberName;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::copy::copy_files;
use crate::faults::{FaultDisk, scratch};
use crate::volume;

pub const CLUSTER: &str = "0c9d5e6e-1111-4222-8333-444455556666";
const GEOMETRY: Geometry = Geometry {
    segment_bytes: 128 << 10,
    segments: 12,
};
/// Short, and not so short that a busy machine never keeps a leader.
const TIMINGS: Timings = Timings {
    heartbeat_ms: 50,
    election_ms_min: 150,
    election_ms_max: 300,
};
const LOG: &str = "store-1/log";
const SYNC_TAKES_MAX: Duration = Duration::from_millis(5);
/// Some disks lag behind what the others have committed.
const SLOW_SYNC_TAKES_MAX: Duration = Duration::from_millis(50);
/// What outlives a power cut.
pub struct Machine {
    pub number: u64,
    volume: TempDir,
    pub name: MemberName,
    tls: Arc<TlsStore>,
}

pub struct Member {
    pub log: LogStore<FaultDisk>,
    pub store: Arc<Store>,
    pub consensus: Consensus,
    pub service: Arc<Service>,
    /// What this start found.
    pub found: Found,
    disk: FaultDisk,
    peers: Arc<Peers>,
    stop: CancellationToken,
    server: JoinHandle<()>,
    _ready: watch::Sender<Facts>,
}

#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// An install was under way.
    pub was_installing: bool,
    pub torn_frames: u32,
    log_end: u64,
}

struct FromPeers(Arc<Service>);

impl Forwarded for FromPeers {
    async fn handle(&self, _from: u64, request: Bytes, deadline: tokio::time::Instant) -> Bytes {
        self.0.answer_peer(request, deadline.into_std()).await
    }
}

fn identity(number: u64) -> Identity {
    Identity {
        cluster_id: CLUSTER.into(),
        incarnation: 1,
        member_id: (1 << 32) | number,
        volume_uid: format!("volume-{number}"),
    }
}

impl Machine {
    /// With an empty volume of its own.
    pub fn new(number: u64, authority: &Authority) -> Machine {
        let tls = scratch();
        let issued = authority.member(identity(number).member_id).unwrap();
        issued.write_to(tls.path()).unwrap();
        let volume = scratch();
        volume::format(volume.path(), &identity(number), GEOMETRY);
        Machine {
            number,
            volume,
            name: MemberName(format!("{}:{PEER_PORT}", own_address())),
            tls: Arc::new(TlsStore::load(tls.path()).unwrap()),
        }
    }

    pub fn member_id(&self) -> u64 {
        identity(self.number).member_id
    }

    /// The volume becomes what the member's disk held when its power went off.
    pub fn lose_power(&mut self, member: &Member, rng: &mut fastrand::Rng) {
        let next = scratch();
        copy_files(self.volume.path(), next.path(), rng);
        let log = next.path().join(LOG);
        fs::create_dir_all(&log).unwrap();
        let names = names(&self.volume.path().join(LOG));
        for (name, bytes) in names.iter().zip(member.disk.cut_now().image) {
            fs::write(log.join(name), bytes).unwrap();
        }
        self.volume = next;
    }

    fn marker(&self) -> PathBuf {
        self.volume.path().join("store-1/snapshots/installing")
    }

    /// Starts on what the disk holds.
    pub async fn boot(&self, seed: u64, is_lying: bool) -> Result<Member, StartError> {
        let identity = identity(self.number);
        let disk = FaultDisk::new(&self.volume.path().join(LOG), seed, 0);
        let is_slow = seed.is_multiple_of(4);
        disk.sync_takes(if is_slow {
            SLOW_SYNC_TAKES_MAX
        } else {
            SYNC_TAKES_MAX
        });
        if is_lying {
            disk.lie();
        }
        let ignore = Arc::new(|_: &'static str, _: &std::io::Error| {});
        let options = LogOptions::default();
        let was_installing = self.marker().exists();
        let opened =
            volume::open(self.volume.path(), &identity, disk.clone(), options, ignore).await?;
        let mut opened = opened.expect("the volume was formatted");
        // As a member does before Raft, and its service first of all.
        opened.make_room().await;
        opened.store.snapshots().verify()?;
        let (mut log, store) = (opened.log, opened.store);
        let log_end = log.get_log_state().await?.last_log_id;
        let found = Found {
            was_installing,
            torn_frames: opened.torn_frames,
            log_end: log_end.map_or(0, |last| last.index),
        };
        let me = Me::new(&identity, self.name.clone());
        let peers = Peers::new(me, self.tls.clone(), Options::default());
        let consensus = engine::start(
            &peers,
            TIMINGS,
            log.clone(),
            store.clone(),
            watch::channel(false).1,
        )
        .await;
        let consensus = consensus.unwrap();
        let (ready, facts) = watch::channel(Facts {
            ready: true,
            ..Facts::default()
        });
        let service = Arc::new(Service::new(
            consensus.clone(),
            store.clone(),
            peers.clone(),
            facts.clone(),
            Arc::new(Metrics::default()),
        ));
        let stop = CancellationToken::new();
        let server = engine::serve_peers(
            TcpListener::bind(&self.name.0).await?,
            peers.clone(),
            &consensus,
            store.clone(),
            move || facts.borrow().clone(),
            Arc::new(FromPeers(service.clone())),
            stop.clone(),
        );
        Ok(Member {
            log,
            store,
            consensus,
            service,
            found,
            disk,
            peers,
            stop,
            server,
            _ready: ready,
        })
    }
}

impl Member {
    /// Nothing of it reaches its disk any more.
    pub fn power_off(&self) {
        self.disk.power_off();
    }

    pub async fn end(self) {
        self.stop.cancel();
        self.server.await.unwrap();
        self.peers.retain(|_| false);
        self.consensus.shutdown().await;
        let log = self.log;
        tokio::task::spawn_blocking(move || log.close())
            .await
            .unwrap();
    }

    pub fn applied(&self) -> u64 {
        self.store
            .applied_state()
            .0
            .map_or(0, |applied| applied.index)
    }

    /// Whether a snapshot of the leader has just been put in the place of the log that this start found.
    pub fn is_installing(&self) -> bool {
        let newest = self.store.snapshots().newest();
        newest.is_some_and(|newest| newest.position().index > self.found.log_end)
    }

    /// Whether it got a snapshot of the leader since it started, while it has cut none itself.
    pub fn has_installed(&self) -> bool {
        let purged = self.consensus.metrics().purged;
        purged.is_some_and(|purged| purged.index > self.found.log_end)
    }

    /// Cuts a snapshot of now and drops the log behind the older one, or behind the newest as a log that is
    /// nearly full does. The power may fail in the middle.
    pub fn cutting(&self, is_nearly_full: bool) {
        let (log, store, consensus) =
            (self.log.clone(), self.store.clone(), self.consensus.clone());
        tokio::spawn(async move {
            let flushed = async |log_id| log.flushed(log_id).await;
            let Ok(Some(cut)) = store.cut_snapshot(flushed).await else {
                return;
            };
            consensus.learn_of_snapshot().await;
            let mut engine = consensus.watch_metrics();
            let index = cut.position().index;
            while engine
                .current()
                .snapshot
                .is_none_or(|known| known.index < index)
            {
                if !engine.changed().await {
                    return;
                }
            }
            let kept = store.snapshots().positions();
            if let Some(upto) = kept.get(usize::from(!is_nearly_full)) {
                consensus.purge(upto.index).await;
            }
        });
    }
}

fn names(directory: &Path) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}
