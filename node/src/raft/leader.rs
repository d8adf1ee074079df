//! The leader as long as it is heard. The engine names the last one until there is another: a member that a
//! majority has left would name a dead one for ever.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::transport::peers::Peers;

/// The leader whose heartbeat was accepted within `silence`. Followed until `peers` is dropped.
pub fn heard(peers: &Arc<Peers>, silence: Duration) -> watch::Receiver<Option<u64>> {
    let mut led_by = peers.led_by();
    let (sender, heard) = watch::channel(None);
    tokio::spawn(async move {
        loop {
            let leader = match timeout(silence, led_by.changed()).await {
                Ok(Ok(())) => *led_by.borrow_and_update(),
                Ok(Err(_)) => return,
                Err(_) => None,
            };
            sender.send_if_modified(|known| std::mem::replace(known, leader) != leader);
        }
    });
    heard
}
