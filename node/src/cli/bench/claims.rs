//! Claims of tasks that were created long ago, each timed by itself.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use taskstore_api::TaskStoreClient;
use tokio::task::JoinSet;

use super::load::{Load, claim, complete};

impl Load {
    /// One task at a time, completed at once, by each client for so long. In microseconds.
    pub async fn claims(&self, time: Duration) -> anyhow::Result<Histogram<u64>> {
        let until = Instant::now() + time;
        let mut running = JoinSet::new();
        for number in 0..self.clients {
            let client = TaskStoreClient::connect(&self.endpoints[number % self.endpoints.len()])?;
            let queue = self.queue.clone();
            running.spawn(async move {
                let mut us = Histogram::<u64>::new(3)?;
                while Instant::now() < until {
                    let begin = Instant::now();
                    let claimed = claim(&client, &queue, 1).await?;
                    us.record(begin.elapsed().as_micros() as u64)?;
                    complete(&client, claimed, 1).await?;
                }
                anyhow::Ok(us)
            });
        }
        let mut all = Histogram::new(3)?;
        while let Some(one) = running.join_next().await {
            all.add(one??)?;
        }
        Ok(all)
    }
}
