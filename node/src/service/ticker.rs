//! Proposes a tick when something is due: the leader sleeps until the earliest deadline of the state.
//! With nothing due there is no entry.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::clock::{SAMPLE_EVERY, unix_ms};
use super::proposer::Proposer;
use crate::raft::consensus::{Consensus, Role};
use crate::storage::store::Store;
use crate::task::command::Command;

/// Two ticks are never closer than this, so that a crowd of deadlines shares entries.
const TICK_PAUSE: Duration = Duration::from_millis(20);
/// The longest sleep: the system clock may step meanwhile.
const SLEEP_MAX: Duration = Duration::from_millis(4 * SAMPLE_EVERY.as_millis() as u64);

/// Runs until the engine ends.
pub async fn run(consensus: Consensus, state: Arc<Store>, proposer: Proposer) {
    let mut role = consensus.watch_role();
    let mut progress = state.progress();
    loop {
        let Ok(office) = role
            .wait_for(|role| matches!(role, Role::Leads { .. }))
            .await
            .map(|role| *role)
        else {
            return;
        };
        let begun = Instant::now();
        let lease_begun = state.read(|state, _| state.lease_time_ms());
        while consensus.role() == office {
            // Entries are stamped with a clock that can only be behind this estimate, by a sample at most.
            let lease_now = lease_begun + begun.elapsed().as_millis() as u64;
            let due = progress.borrow_and_update().deadlines;
            let lease = due.lease_time_ms.map(|at| at.saturating_sub(lease_now));
            let wall = due
                .wall_time_ms
                .map(|at| at.saturating_sub(unix_ms(SystemTime::now())));
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
}
