//! Creates tasks and leaves them there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use taskstore_api::TaskStoreClient;
use tokio::task::JoinSet;
use tonic::Code;

use super::load::{Load, create};
use crate::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX};

const CLIENTS: usize = 4;
/// A store that cannot keep up answers late.
const PATIENCE: Duration = Duration::from_secs(120);
/// Before a batch that a full store has refused is sent again.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

impl Load {
    /// In batches as large as they may be. Answers how often the store refused one for want of room.
    pub async fn fill(&self, tasks: usize) -> anyhow::Result<u64> {
        let payload = Bytes::from(vec![b'x'; self.payload_bytes]);
        let batch = (BATCH_BYTES_MAX / self.payload_bytes.max(1)).clamp(1, BATCH_ITEMS_MAX);
        let left = Arc::new(AtomicUsize::new(tasks));
        let refused = Arc::new(AtomicU64::new(0));
        let mut running = JoinSet::new();
        for number in 0..CLIENTS {
            let client = TaskStoreClient::connect(&self.endpoints[number % self.endpoints.len()])?;
            let client = client.with_deadline(PATIENCE);
            let (left, refused) = (left.clone(), refused.clone());
            let (queue, payload) = (self.queue.clone(), payload.clone());
            running.spawn(async move {
                let take = |left: usize| (left > 0).then(|| left.saturating_sub(batch));
                while let Ok(left) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
                    let now = batch.min(left);
                    while let Err(error) = create(&client, &queue, now, &payload).await {
                        if error.code != Code::ResourceExhausted {
                            return Err(error);
                        }
                        refused.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(REFUSED_PAUSE).await;
                    }
                }
                Ok(())
            });
        }
        while let Some(one) = running.join_next().await {
            one??;
        }
        Ok(refused.load(Ordering::Relaxed))
    }
}
