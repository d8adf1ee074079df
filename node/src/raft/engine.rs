//! Starts the engine: our log, our state machine and our network under openraft's core.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::config::{self, Timings};
use super::consensus::{Consensus, Raft};
use super::door::Door;
use super::network::NetworkFactory;
use super::succession;
use super::transport::peers::Peers;
use super::transport::server::{Forwarded, PeerServer};
use super::transport::wire::Facts;
use crate::storage::log::disk::Disk;
use crate::storage::log_store::LogStore;
use crate::storage::machine::Machine;
use crate::storage::snapshot::SnapshotHandle;
use crate::storage::store::Store;

/// Starts Raft on what the start table has chosen. It replays the log in the background. A fenced member stands
/// for no election.
pub async fn start<D: Disk>(
    peers: &Arc<Peers>,
    timings: Timings,
    log: LogStore<D>,
    store: Arc<Store>,
    fenced: watch::Receiver<bool>,
) -> Result<Consensus, String> {
    let me = peers.me();
    let config = config::openraft(&me.cluster_id, timings).map_err(|error| error.to_string())?;
    let network: NetworkFactory<SnapshotHandle> = NetworkFactory::new(peers.clone());
    let raft = Raft::new(me.member_id, config, network, log, Machine::new(store))
        .await
        .map_err(|error| error.to_string())?;
    succession::watch(raft.clone(), peers, fenced.clone());
    let consensus = Consensus::new(raft);
    consensus.stand_for_election(!*fenced.borrow());
    tokio::spawn(forget_removed(consensus.clone(), peers.clone()));
    Ok(consensus)
}

/// Closes the connections to members that are in no configuration any more, until the engine ends.
async fn forget_removed(consensus: Consensus, peers: Arc<Peers>) {
    let mut watch = consensus.watch_metrics();
    let mut known = None;
    loop {
        let membership = watch.current().membership_config;
        if known != *membership.log_id() {
            known = *membership.log_id();
            peers.retain(|id| membership.get_node(&id).is_some());
        }
        if !watch.changed().await {
            return;
        }
    }
}

/// Serves the other members until `stop`: Raft's messages, snapshots, forwarded requests.
pub fn serve_peers<F: Forwarded>(
    listener: TcpListener,
    peers: Arc<Peers>,
    consensus: &Consensus,
    store: Arc<Store>,
    facts: impl Fn() -> Facts + Send + Sync + 'static,
    forwarded: Arc<F>,
    stop: CancellationToken,
) -> tokio::task::JoinHandle<()> {
    let raft = Arc::new(Door {
        raft: consensus.raft().clone(),
        sink: store,
        facts,
    });
    let server = PeerServer {
        peers,
        raft,
        forwarded,
    };
    tokio::spawn(server.serve(listener, stop))
}
