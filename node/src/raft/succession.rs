//! A dead leader is followed at once. When its connections closed and a new one was refused, its process
//! is gone: a voter that saw this gives up the lease it had granted and asks for a pre-vote, instead of
//! waiting for the lease and an election time-out to pass.
//!
//! The others grant pre-vote and vote only once their own lease is gone too, and a leader that a quorum
//! still answers refuses both: a quorum must have seen the death itself. The cost of a mistake is that this
//! one voter's lease stays off until the next term, so it would help to elect another a little earlier.
//! Reads confirm with a quorum and trust no lease.

use std::sync::Arc;
use std::time::Duration;

use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::TransferLeaderRequest;
use openraft::storage::RaftStateMachine;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::consensus::RaftMetrics;
use super::transport::peers::{PeerEvent, Peers};
use crate::storage::types::TypeConfig;

/// Voters ask one after the other, so that they do not split the vote.
const RANK_PAUSE: Duration = Duration::from_millis(50);
/// Whoever has not seen the death yet refuses: it is asked again.
const ROUNDS: u32 = 3;
const ROUND_PAUSE: Duration = Duration::from_millis(150);

/// Watches until `peers` is dropped.
pub fn watch<SM: RaftStateMachine<TypeConfig>>(
    raft: Raft<TypeConfig, SM>,
    peers: &Arc<Peers>,
    fenced: watch::Receiver<bool>,
) {
    tokio::spawn(run(raft, peers.events(), fenced));
}

async fn run<SM: RaftStateMachine<TypeConfig>>(
    raft: Raft<TypeConfig, SM>,
    mut events: Receiver<PeerEvent>,
    fenced: watch::Receiver<bool>,
) {
    loop {
        match events.recv().await {
            Ok(PeerEvent::PeerDown(_)) if *fenced.borrow() => {}
            Ok(PeerEvent::PeerDown(dead)) => succeed(&raft, dead).await,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Asks for the office of `dead`, a few times. Returns when that is done, whatever came of it.
pub async fn succeed<SM: RaftStateMachine<TypeConfig>>(raft: &Raft<TypeConfig, SM>, dead: u64) {
    let seen = raft.metrics().borrow_watched().clone();
    let Some(rank) = rank(&seen, dead) else {
        return;
    };
    // Named for the dead leader itself, the request does nothing but to end the lease of its vote.
    let end_of_lease = TransferLeaderRequest::new(seen.vote, dead, None);
    if raft.handle_transfer_leader(end_of_lease).await.is_err() {
        return;
    }
    tracing::info!(leader = dead, "the leader is down: its lease is over");
    tokio::time::sleep(RANK_PAUSE * rank).await;
    for _ in 0..ROUNDS {
        let followed = raft.metrics().borrow_watched().vote != seen.vote;
        if followed || raft.trigger().elect(true).await.is_err() {
            return;
        }
        tokio::time::sleep(ROUND_PAUSE).await;
    }
}

/// This member's place among the voters that `dead` leaves behind; none if it did not lead, or if this
/// member has no vote.
fn rank(metrics: &RaftMetrics, dead: u64) -> Option<u32> {
    if metrics.current_leader != Some(dead) || metrics.id == dead {
        return None;
    }
    let voters = metrics.membership_config.membership().voter_ids();
    let rank = voters
        .filter(|voter| *voter != dead)
        .position(|voter| voter == metrics.id)?;
    u32::try_from(rank).ok()
}
