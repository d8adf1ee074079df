//! When to cut a snapshot and what to purge behind it. The policy is ours: openraft's own is off, because
//! an error from it ends the node, and a full disk must only delay a snapshot.
//!
//! A snapshot is due when the log since the last one exceeds max(256 MiB, half the state), and at most a
//! quarter of the log's budget. Purge stays behind the older of the two kept snapshots, and behind
//! followers that lag while half of the budget is free.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::metrics::Metrics;
use crate::raft::consensus::Consensus;
use crate::storage::log_store::LogStore;
use crate::storage::snapshot::{self, SnapshotHandle};
use crate::storage::store::Store;

/// How often the policy looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Log that may pile up whatever the size of the state, in bytes.
const LOG_BYTES_MIN: u64 = 256 << 20;

/// The newest snapshot, cut now or before when nothing is new.
type Cut = Result<SnapshotHandle, String>;

/// Orders snapshots from the job.
#[derive(Clone)]
pub struct Snapshots {
    orders: mpsc::Sender<oneshot::Sender<Cut>>,
}

impl Snapshots {
    /// Starts the job; it ends with its last handle.
    pub fn start(
        consensus: Consensus,
        store: Arc<Store>,
        log: LogStore,
        metrics: Arc<Metrics>,
    ) -> Snapshots {
        let (orders, incoming) = mpsc::channel(1);
        tokio::spawn(
            Job {
                consensus,
                store,
                log,
                metrics,
                used_after_cut: 0,
            }
            .run(incoming),
        );
        Snapshots { orders }
    }

    /// Cuts a snapshot now; answers when it is durable.
    pub async fn cut_now(&self) -> Cut {
        let (reply, cut) = oneshot::channel();
        self.orders
            .send(reply)
            .await
            .map_err(|_| "the member is stopping".to_string())?;
        cut.await
            .map_err(|_| "the member is stopping".to_string())?
    }
}

struct Job {
    consensus: Consensus,
    store: Arc<Store>,
    log: LogStore,
    metrics: Arc<Metrics>,
    /// Bytes of the log in use right after the last snapshot and purge.
    used_after_cut: u64,
}

impl Job {
    async fn run(mut self, mut incoming: mpsc::Receiver<oneshot::Sender<Cut>>) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = incoming.recv() => {
                    let Some(reply) = order else { return };
                    let _ = reply.send(self.cut().await);
                }
                _ = look.tick() => {
                    if self.is_due() && let Err(reason) = self.cut().await {
                        tracing::warn!(reason, "snapshot delayed");
                    }
                    self.purge().await;
                }
            }
        }
    }

    fn is_due(&mut self) -> bool {
        let Ok(disk) = self.log.disk() else {
            return false;
        };
        // A purge frees whole segments some time after the cut.
        self.used_after_cut = self.used_after_cut.min(disk.used_bytes);
        let state_bytes = self
            .store
            .snapshots()
            .newest()
            .map_or(0, |newest| newest.bytes);
        let threshold = LOG_BYTES_MIN
            .max(state_bytes / 2)
            .min(disk.budget_bytes / 4);
        disk.used_bytes - self.used_after_cut > threshold
    }

    async fn cut(&mut self) -> Cut {
        let consensus = self.consensus.clone();
        let flushed = async move |index| match consensus.flushed(index).await {
            true => Ok(()),
            false => Err(io::Error::other("the member is stopping")),
        };
        let cut = self
            .store
            .cut_snapshot(flushed)
            .await
            .map_err(|error| error.to_string())?;
        if cut.is_some() {
            self.metrics.snapshots.inc();
            // The engine only learns of the finished file.
            self.consensus.learn_of_snapshot().await;
        }
        self.purge().await;
        self.used_after_cut = self.log.disk().map_or(0, |disk| disk.used_bytes);
        self.store
            .snapshots()
            .newest()
            .ok_or_else(|| "nothing is applied yet".to_string())
    }

    /// Followers that lag hold a purge back until half of the budget is used: then they get a snapshot.
    async fn purge(&self) {
        let Ok(files) = snapshot::list(self.store.snapshots().dir()) else {
            return;
        };
        let [_, older, ..] = files.as_slice() else {
            return;
        };
        let mut upto = older.position.index;
        let has_room = self
            .log
            .disk()
            .is_ok_and(|disk| disk.used_bytes < disk.budget_bytes / 2);
        if has_room && let Some(slowest) = self.consensus.slowest_follower() {
            upto = upto.min(slowest);
        }
        self.consensus.purge(upto).await;
    }
}
