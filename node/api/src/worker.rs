//! A worker: claims, runs a handler, extends while it runs, settles.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::TaskStoreClient;
use crate::error::CallError;
use crate::v1;

/// Rest after a claim that failed for good, such as a queue name that is refused.
const CLAIM_REST: Duration = Duration::from_secs(1);
/// Tasks of one claim; more come with the next.
const CLAIM_TASKS_MAX: usize = 1_000;

#[derive(Debug, Clone)]
pub struct Worker {
    pub client: TaskStoreClient,
    pub namespace: String,
    /// Tried in order.
    pub queues: Vec<String>,
    /// Tasks run at a time.
    pub parallel: usize,
    /// 0: each task's own.
    pub lease_ms: u64,
    pub wait_ms: u64,
    /// Shown where people look at tasks.
    pub name: String,
}

/// How a task failed.
#[derive(Debug, Clone, Default)]
pub struct Failure {
    pub error: String,
    /// Overrides the back-off.
    pub retry_after_ms: Option<u64>,
    /// No further attempt.
    pub discard: bool,
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure {
            error: error.to_string(),
            ..Failure::default()
        }
    }
}

impl Worker {
    /// Works until `stop`, then finishes what runs. The handler may run more than once for a task: when
    /// a lease runs out, its run is dropped and its effects through the store are fenced.
    pub async fn run<H, F>(&self, handler: H, stop: impl Future<Output = ()>)
    where
        H: Fn(v1::Task) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Bytes, Failure>> + Send + 'static,
    {
        let slots = Arc::new(Semaphore::new(self.parallel.max(1)));
        let mut running = JoinSet::new();
        tokio::pin!(stop);
        loop {
            let claim = async {
                // One slot at least; then all that are free, so that a claim brings as much as fits.
                let first = slots
                    .clone()
                    .acquire_owned()
                    .await
                    .expect("the semaphore is never closed");
                let free = slots.available_permits().min(CLAIM_TASKS_MAX - 1) as u32;
                let rest = slots.clone().try_acquire_many_owned(free).ok();
                let sent = Instant::now();
                let claimed = self.claim(1 + rest.as_ref().map_or(0, |_| free)).await;
                (sent, claimed, [Some(first), rest])
            };
            let (sent, claimed, slots) = tokio::select! {
                claimed = claim => claimed,
                () = &mut stop => break,
            };
            let mut slots = Slots(slots);
            match claimed {
                Ok(tasks) => {
                    for task in tasks {
                        let slot = slots.take();
                        let one = OneTask {
                            client: self.client.clone(),
                            sent,
                            claimed: task,
                        };
                        let handler = handler.clone();
                        running.spawn(async move {
                            one.run(handler).await;
                            drop(slot);
                        });
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a claim failed");
                    tokio::time::sleep(CLAIM_REST).await;
                }
            }
            while running.try_join_next().is_some() {}
        }
        while running.join_next().await.is_some() {}
    }

    async fn claim(&self, tasks_max: u32) -> Result<Vec<v1::ClaimedTask>, CallError> {
        let request = v1::ClaimRequest {
            namespace: self.namespace.clone(),
            queues: self.queues.clone(),
            tasks_max,
            wait_ms: self.wait_ms,
            lease_ms: self.lease_ms,
            worker: self.name.clone(),
            ..v1::ClaimRequest::default()
        };
        Ok(self.client.claim(request).await?.tasks)
    }
}

/// The slots of one claim; those of tasks that did not come are free again when this is dropped.
struct Slots([Option<OwnedSemaphorePermit>; 2]);

impl Slots {
    fn take(&mut self) -> Option<OwnedSemaphorePermit> {
        let [first, rest] = &mut self.0;
        first
            .take()
            .or_else(|| rest.as_mut().and_then(|rest| rest.split(1)))
    }
}

struct OneTask {
    client: TaskStoreClient,
    sent: Instant,
    claimed: v1::ClaimedTask,
}

impl OneTask {
    async fn run<H, F>(self, handler: H)
    where
        H: Fn(v1::Task) -> F,
        F: Future<Output = Result<Bytes, Failure>> + Send + 'static,
    {
        let task = self.claimed.task.clone().unwrap_or_default();
        let lease = v1::Lease {
            namespace: task.namespace.clone(),
            id: task.id.clone(),
            lease_token: self.claimed.lease_token,
        };
        let id = task.id.clone();
        let mut work = JoinSet::new();
        work.spawn(handler(task));
        let outcome = tokio::select! {
            outcome = work.join_next() => outcome,
            () = self.hold(&lease) => {
                tracing::warn!(id, "the lease was lost; the run is dropped");
                return;
            }
        };
        let settled = match outcome {
            Some(Ok(Ok(result))) => {
                let request = v1::CompleteRequest {
                    lease: Some(lease),
                    result,
                };
                self.client.complete(request).await
            }
            Some(Ok(Err(failure))) => self.client.fail(fail_request(lease, failure)).await,
            Some(Err(_)) | None => {
                let failure = Failure {
                    error: "the handler panicked".to_owned(),
                    ..Failure::default()
                };
                self.client.fail(fail_request(lease, failure)).await
            }
        };
        if let Err(error) = settled {
            tracing::warn!(%error, id, "a task could not be settled");
        }
    }

    /// Extends at every third of the lease, counted from when the request was sent. Returns once the
    /// lease is lost.
    async fn hold(&self, lease: &v1::Lease) {
        let mut lease_ms = self.claimed.lease_ms;
        let mut since = self.sent;
        loop {
            let (due, end) = (since + ms(lease_ms) / 3, since + ms(lease_ms));
            tokio::time::sleep_until(due).await;
            let sent = Instant::now();
            let request = v1::ExtendRequest {
                lease: Some(lease.clone()),
                lease_ms,
            };
            match tokio::time::timeout_at(end, self.client.extend(request)).await {
                Ok(Ok(extended)) => (since, lease_ms) = (sent, extended.lease_ms),
                Ok(Err(error)) if error.is_lease_lost() => return,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "an extend failed");
                    // Whatever it was, the lease runs on until its end.
                    tokio::time::sleep_until(end).await;
                    return;
                }
                Err(_) => return,
            }
        }
    }
}

fn fail_request(lease: v1::Lease, failure: Failure) -> v1::FailRequest {
    v1::FailRequest {
        lease: Some(lease),
        error: failure.error,
        retry_after_ms: failure.retry_after_ms,
        discard: failure.discard,
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
