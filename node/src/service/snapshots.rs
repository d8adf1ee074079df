//! When to cut a snapshot and what to purge behind it. The policy is ours: openraft's own is off, because
//! an error from it ends the node, and a full disk must only delay a snapshot.
//!
//! A snapshot is due when the log behind the newest one exceeds max(256 MiB, half the state), and at most a
//! quarter of the log's budget. Purge stays behind the older of the two kept snapshots, and behind
//! followers that lag and what this member has shipped to a bucket while half of the budget is free; a log
//! that is nearly full is purged behind the newest one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::raft::consensus::Consensus;
use crate::storage::log_store::{LogDisk, LogStore};
use crate::storage::snapshot::SnapshotHandle;
use crate::storage::store::Store;

/// How often the policy looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a failure the next try waits, twice as long each time.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
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
        shipped: watch::Receiver<Option<u64>>,
    ) -> Snapshots {
        let (orders, incoming) = mpsc::channel(1);
        tokio::spawn(
            Job {
                consensus,
                store,
                log,
                metrics,
                shipped,
                retry_after: RETRY_AFTER_MIN,
                not_before: Instant::now(),
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
    /// None: nothing is shipped.
    shipped: watch::Receiver<Option<u64>>,
    retry_after: Duration,
    not_before: Instant,
}

impl Job {
    async fn run(mut self, mut incoming: mpsc::Receiver<oneshot::Sender<Cut>>) {
        self.verify().await;
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = incoming.recv() => {
                    let Some(reply) = order else { return };
                    let _ = reply.send(self.cut().await);
                }
                _ = look.tick() => {
                    if Instant::now() >= self.not_before && self.is_due() {
                        self.try_cut().await;
                    }
                    self.purge().await;
                }
            }
        }
    }

    /// A start from the image has taken the snapshots on trust.
    async fn verify(&self) {
        let store = self.store.clone();
        let verified = tokio::task::spawn_blocking(move || store.snapshots().verify());
        if let Ok(Err(error)) = verified.await {
            tracing::warn!(%error, "the snapshots cannot be verified: nothing is purged behind them");
        }
    }

    fn is_due(&self) -> bool {
        if self.store.snapshots().newest().is_none() && self.log.is_purged() {
            return true;
        }
        let Ok(disk) = self.log.disk() else {
            return false;
        };
        let newest = self.store.snapshots().newest();
        let state_bytes = newest.as_ref().map_or(0, |newest| newest.bytes);
        let next = newest.map_or(0, |newest| newest.position().index + 1);
        due(self.log.bytes_from(next), state_bytes, disk.usable_bytes)
    }

    async fn try_cut(&mut self) {
        match self.cut().await {
            Ok(_) => self.retry_after = RETRY_AFTER_MIN,
            Err(reason) => {
                tracing::warn!(reason, retry_after = ?self.retry_after, "snapshot delayed");
                self.not_before = Instant::now() + self.retry_after;
                self.retry_after = longer(self.retry_after);
            }
        }
    }

    async fn cut(&self) -> Cut {
        let cut = self
            .store
            .cut_snapshot(|log_id| self.log.flushed(log_id))
            .await
            .map_err(|error| error.to_string())?;
        if cut.is_some() {
            self.metrics.snapshots.inc();
            // The engine only learns of the finished file.
            self.consensus.learn_of_snapshot().await;
        }
        self.purge().await;
        self.store
            .snapshots()
            .newest()
            .ok_or_else(|| "nothing is applied yet".to_string())
    }

    async fn purge(&self) {
        let Ok(disk) = self.log.disk() else {
            return;
        };
        let kept: Vec<u64> = self
            .store
            .snapshots()
            .positions()
            .iter()
            .map(|position| position.index)
            .collect();
        let waiting = [self.consensus.slowest_follower(), *self.shipped.borrow()];
        let slowest = waiting.into_iter().flatten().min();
        if let Some(upto) = purge_upto(&kept, disk, slowest) {
            self.consensus.purge(upto).await;
        }
    }
}

/// Whether so much log behind the newest snapshot asks for another one.
fn due(behind_bytes: u64, state_bytes: u64, usable_bytes: u64) -> bool {
    let threshold = LOG_BYTES_MIN.max(state_bytes / 2).min(usable_bytes / 4);
    behind_bytes > threshold
}

/// Up to which index the log may go, given those of the good snapshots, newest first. Whoever still reads it
/// holds it back until half of the log is used: then a follower gets a snapshot, and a bucket a new chain.
fn purge_upto(kept: &[u64], disk: LogDisk, slowest_reader: Option<u64>) -> Option<u64> {
    let behind = match disk.is_high() {
        true => kept.first(),
        false => kept.get(1),
    };
    let has_room = disk.used_bytes < disk.usable_bytes / 2;
    let held_back = slowest_reader.filter(|_| has_room).unwrap_or(u64::MAX);
    behind.map(|index| held_back.min(*index))
}

fn longer(retry_after: Duration) -> Duration {
    (retry_after * 2).min(RETRY_AFTER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_snapshot_is_due_by_the_log_behind_the_newest_one() {
        let rows = [
            // behind, state, usable, due
            (0, 0, 4_096, false),
            (256, 0, 4_096, false),
            (257, 0, 4_096, true),
            // Half of a large state.
            (257, 1_000, 4_096, false),
            (501, 1_000, 4_096, true),
            // A quarter of a small log, whatever the state.
            (14, 0, 56, false),
            (15, 0, 56, true),
            (15, 1_000, 56, true),
        ];
        for (behind, state, usable, expected) in rows {
            assert_eq!(
                due(behind * MIB, state * MIB, usable * MIB),
                expected,
                "{behind} MiB behind a state of {state} in {usable}"
            );
        }
    }

    #[test]
    fn the_log_is_purged_behind_the_older_snapshot_and_slow_followers_while_there_is_room() {
        let rows = [
            // snapshots, percent used, slowest follower, purged up to
            (&[][..], 10, None, None),
            (&[][..], 95, None, None),
            (&[90][..], 10, None, None),
            (&[90][..], 60, None, None),
            (&[90, 50][..], 10, None, Some(50)),
            (&[90, 50][..], 10, Some(70), Some(50)),
            (&[90, 50][..], 49, Some(20), Some(20)),
            (&[90, 50][..], 50, Some(20), Some(50)),
            // Nearly full: one snapshot is enough, and nobody holds it back.
            (&[90][..], 80, None, Some(90)),
            (&[90, 50][..], 80, Some(20), Some(90)),
        ];
        for (kept, percent, slowest, expected) in rows {
            let disk = LogDisk {
                budget_bytes: 110 * MIB,
                usable_bytes: 100 * MIB,
                used_bytes: percent * MIB,
                filesystem_free_bytes: 0,
            };
            assert_eq!(
                purge_upto(kept, disk, slowest),
                expected,
                "{kept:?} at {percent} % with {slowest:?}"
            );
        }
    }

    #[test]
    fn a_failing_cut_waits_twice_as_long_each_time_up_to_a_minute() {
        let waits: Vec<u64> =
            std::iter::successors(Some(RETRY_AFTER_MIN), |wait| Some(longer(*wait)))
                .take(8)
                .map(|wait| wait.as_secs())
                .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
