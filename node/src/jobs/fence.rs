//! A fenced member answers no client and leads nothing; it keeps its seat, votes and replicates. The fence is
//! stamped on its disk, so a restart does not lift it.

use std::sync::Arc;
use std::time::Duration;

use crate::member::Member;
use crate::member::running::Running;
use crate::raft::consensus::Role;

/// How long one try to hand over may take, and the rest before the next.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(3);
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Keeps this member out of office as long as it is fenced; runs until it is aborted.
pub async fn run(member: Arc<Member>, running: Arc<Running>) {
    let mut fenced = member.watch_fenced();
    let mut role = running.consensus.watch_role();
    loop {
        let is_fenced = *fenced.borrow_and_update();
        running.consensus.stand_for_election(!is_fenced);
        let leads = matches!(*role.borrow_and_update(), Role::Leads { .. });
        if is_fenced && leads {
            match running.hand_over(None, HAND_OVER_PATIENCE).await {
                Ok(successor) => tracing::info!(successor, "fenced: leadership handed over"),
                Err(error) => {
                    tracing::warn!(%error, "fenced, and leadership was not handed over");
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
