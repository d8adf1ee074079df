//! Proposes a tick when something is due: the leader sleeps until the earliest deadline of the state.
//! With nothing due there is no entry.

use std::sync::Arc;
use std::time::Duration;

use super::clock::Clock;
use super::proposer::Proposer;
use crate::raft::consensus::{Consensus, Role};
use crate::storage::store::Store;
use crate::task::command::Command;

/// Two ticks are never closer than this, so that a crowd of deadlines shares entries.
const TICK_PAUSE: Duration = Duration::from_millis(20);
/// The longest sleep: the system clock may step meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Runs until the engine ends. What is due is decided by the clock that stamps entries, so a tick is
/// proposed only when its entry moves something.
pub async fn run(consensus: Consensus, state: Arc<Store>, clock: Clock, proposer: Proposer) {
    let mut role = consensus.watch_role();
    let mut progress = state.progress();
    loop {
        let leads = role.wait_for(|role| matches!(role, Role::Leads { .. }));
        if leads.await.is_err() {
            return;
        }
        let due = progress.borrow_and_update().deadlines;
        let Some(now) = clock.stamp() else { continue };
        let lease = due
            .lease_time_ms
            .map(|at| at.saturating_sub(now.lease_time_ms));
        let wall = due
            .wall_time_ms
            .map(|at| at.saturating_sub(now.wall_time_ms));
        match lease.into_iter().chain(wall).min() {
            Some(0) => {
                if let Ok(outcome) = proposer.propose(Command::Tick) {
                    let _ = outcome.await;
                }
            }
            wait_ms => {
                let sleep = wait_ms
                    .map_or(SLEEP_MAX, Duration::from_millis)
                    .min(SLEEP_MAX);
                tokio::select! {
                    _ = tokio::time::sleep(sleep) => {}
                    changed = progress.changed() => if changed.is_err() { return },
                    changed = role.changed() => if changed.is_err() { return },
                }
            }
        }
        tokio::time::sleep(TICK_PAUSE).await;
    }
}
