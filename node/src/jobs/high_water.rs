//! Watches the disk. A member that is nearly full says so; the leader then refuses creates, while settles
//! go on and make room.

use std::sync::Arc;
use std::time::Duration;

use crate::limits::FREE_BYTES_MIN;
use crate::member::Member;
use crate::storage::log_store::LogStore;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs until it is aborted.
pub async fn run(member: Arc<Member>, log: LogStore) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        match log.disk() {
            Ok(disk) => {
                member.set_log_disk(disk);
                member.set_disk_high_water(
                    disk.is_high() || disk.filesystem_free_bytes < FREE_BYTES_MIN,
                );
            }
            Err(error) => tracing::warn!(%error, "the disk's free space is unknown"),
        }
    }
}
