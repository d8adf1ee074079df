//! Watches the disk. A member that is nearly full says so; the leader then refuses creates, while settles
//! go on and make room. Beside the log's own high water, so much of the volume must be free that the image
//! has room to grow under churn, from 1.7 to 2.5 times its payloads, while what is there is settled.

use std::sync::Arc;
use std::time::Duration;

use crate::limits::FREE_BYTES_MIN;
use crate::member::Member;
use crate::storage::log_store::LogStore;
use crate::storage::store::Store;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs until it is aborted. The log is believed at once, the file system when it is asked.
pub async fn run(member: Arc<Member>, log: LogStore, store: Arc<Store>) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut log_is_high = false;
    loop {
        tokio::select! {
            _ = look.tick() => {}
            goes_on = log.high_water_left(log_is_high) => if !goes_on { return },
        }
        match log.disk() {
            Ok(disk) => {
                log_is_high = disk.is_high();
                member.set_log_disk(disk);
                let payload_bytes = store.read(|state| state.payload_bytes());
                let is_high =
                    log_is_high || disk.filesystem_free_bytes < free_bytes_min(payload_bytes);
                member.set_disk_high_water(is_high);
            }
            Err(error) => {
                tracing::warn!(%error, "the disk's free space is unknown");
                look.tick().await;
            }
        }
    }
}

fn free_bytes_min(payload_bytes: u64) -> u64 {
    FREE_BYTES_MIN + payload_bytes / 5 * 4
}
