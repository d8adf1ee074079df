//! A fenced member answers no client and leads nothing; it keeps its seat, votes and replicates. The fence is
//! stamped on its disk, so a restart does not lift it.

use std::sync::Arc;
use std::time::Duration;

use crate::member::Member;
use crate::member::running::Running;
use crate::raft::consensus::Role;

/// A leader that is fenced, or told to stop, waits this long for another member to take over.
pub const HAND_OVER_PATIENCE: Duration = Duration::from_secs(3);
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Keeps this member out of office as long as it is fenced; runs until it is aborted.
pub async fn run(member: Arc<Member>, running: Arc<Running>) {
    let mut fenced = member.watch_fenced();
    let mut role = running.consensus.watch_role();
    let mut is_told = false;
    loop {
        let is_fenced = *fenced.borrow_and_update();
        running.consensus.stand_for_election(!is_fenced);
        let leads = matches!(*role.borrow_and_update(), Role::Leads { .. });
        if is_fenced && leads {
            match running.hand_over(None, HAND_OVER_PATIENCE).await {
                Ok(successor) => {
                    is_told = false;
                    tracing::info!(successor, "fenced: leadership handed over");
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(%error, "fenced, and nobody takes over; it is tried on");
                    }
                    tokio::time::sleep(TRY_AGAIN).await;
                    continue;
                }
            }
        }
        let told = tokio::select! {
            told = fenced.changed() => told,
            told = role.changed() => told,
        };
        if told.is_err() {
            return;
        }
    }
}
