//! Clients that work as fast as they are answered, each on a connection of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use taskstore_api::{CallError, Endpoints, TaskStoreClient, v1};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Protocol;
use super::http::HttpClient;

pub const NAMESPACE: &str = "bench";
/// Wait of a claim: another client may have taken the task that this one has made.
const CLAIM_WAIT_MS: u64 = 1_000;
/// Before the next step after one that failed.
const ERROR_PAUSE: Duration = Duration::from_millis(50);
/// Latencies are kept in microseconds, up to two minutes.
const LATENCY_US_MAX: u64 = 120_000_000;

#[derive(Clone)]
pub struct Load {
    pub kind: Kind,
    pub protocol: Protocol,
    pub queue: String,
    pub clients: usize,
    pub batch: usize,
    pub payload_bytes: usize,
    /// One list of endpoints for each client, in turn.
    pub endpoints: Vec<Endpoints>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Create,
    Cycle,
}

/// What the clients have seen.
pub struct Measured {
    /// Tasks created, or carried through to completed.
    pub tasks: u64,
    pub elapsed: Duration,
    pub create_us: Histogram<u64>,
    pub errors: u64,
    /// The first error, for people.
    pub error: Option<String>,
    /// When creates were acknowledged, and how long each took.
    pub acknowledged: Vec<(Instant, Duration)>,
    /// When the clients were told to stop.
    pub ended: Instant,
}

impl Measured {
    fn new() -> Measured {
        let create_us =
            Histogram::new_with_max(LATENCY_US_MAX, 3).expect("the bounds are in order");
        Measured {
            tasks: 0,
            elapsed: Duration::ZERO,
            create_us,
            errors: 0,
            error: None,
            acknowledged: Vec::new(),
            ended: Instant::now(),
        }
    }

    fn add(&mut self, other: Measured) {
        self.tasks += other.tasks;
        self.create_us
            .add(other.create_us)
            .expect("all histograms have the same bounds");
        self.errors += other.errors;
        self.error = self.error.take().or(other.error);
        self.acknowledged.extend(other.acknowledged);
    }

    pub fn per_second(&self) -> f64 {
        self.tasks as f64 / self.elapsed.as_secs_f64()
    }

    /// The longest time without an acknowledged create between `from` and the end.
    pub fn longest_gap(&self, from: Instant) -> Duration {
        let acknowledged = self.acknowledged.iter().map(|(at, _)| *at);
        longest_gap(from, acknowledged.collect(), self.ended)
    }
}

fn longest_gap(from: Instant, mut acknowledged: Vec<Instant>, ended: Instant) -> Duration {
    acknowledged.retain(|at| *at > from && *at < ended);
    acknowledged.extend([from, ended]);
    acknowledged.sort();
    let gaps = acknowledged.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or_default()
}

impl Load {
    /// Works for `seconds`, after a second that is not counted.
    pub async fn run_for(self, seconds: Duration) -> anyhow::Result<Measured> {
        let (counting, counts) = watch::channel(Phase::Warm);
        let mut running = self.start(counts)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        counting.send_replace(Phase::Counts);
        let begin = Instant::now();
        tokio::time::sleep(seconds).await;
        counting.send_replace(Phase::Over);
        let ended = Instant::now();
        let mut all = collect(&mut running).await?;
        (all.elapsed, all.ended) = (ended - begin, ended);
        Ok(all)
    }

    /// Works while `event` goes on, then `after` longer; everything counts.
    pub async fn run_around<T>(
        self,
        before: Duration,
        event: impl Future<Output = anyhow::Result<T>>,
        after: Duration,
    ) -> anyhow::Result<(Measured, T, Instant)> {
        let (counting, counts) = watch::channel(Phase::Counts);
        let mut running = self.start(counts)?;
        let begin = Instant::now();
        tokio::time::sleep(before).await;
        let from = Instant::now();
        let happened = event.await?;
        tokio::time::sleep(after).await;
        counting.send_replace(Phase::Over);
        let ended = Instant::now();
        let mut all = collect(&mut running).await?;
        (all.elapsed, all.ended) = (ended - begin, ended);
        Ok((all, happened, from))
    }

    fn start(self, phase: watch::Receiver<Phase>) -> anyhow::Result<JoinSet<Measured>> {
        let payload = Bytes::from(vec![b'x'; self.payload_bytes]);
        let load = Arc::new(self);
        let mut running = JoinSet::new();
        for number in 0..load.clients {
            let endpoints = &load.endpoints[number % load.endpoints.len()];
            let speaker = match load.protocol {
                Protocol::Grpc => Speaker::Grpc(TaskStoreClient::connect(endpoints)?),
                Protocol::Http => Speaker::Http(Box::new(HttpClient::new(endpoints, &payload)?)),
            };
            let one = Client {
                load: load.clone(),
                speaker,
                payload: payload.clone(),
                phase: phase.clone(),
            };
            running.spawn(one.run());
        }
        Ok(running)
    }
}

async fn collect(running: &mut JoinSet<Measured>) -> anyhow::Result<Measured> {
    let mut all = Measured::new();
    while let Some(one) = running.join_next().await {
        all.add(one?);
    }
    Ok(all)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Warm,
    Counts,
    Over,
}

enum Speaker {
    Grpc(TaskStoreClient),
    Http(Box<HttpClient>),
}

struct Client {
    load: Arc<Load>,
    speaker: Speaker,
    payload: Bytes,
    phase: watch::Receiver<Phase>,
}

impl Client {
    async fn run(mut self) -> Measured {
        let mut seen = Measured::new();
        loop {
            let began = *self.phase.borrow();
            if began == Phase::Over {
                return seen;
            }
            let step = self.step().await;
            if step.is_err() {
                // Without it refused clients would take the processors from the members.
                tokio::time::sleep(ERROR_PAUSE).await;
            }
            let ended = *self.phase.borrow();
            // A step counts when it ends in time: one that the start cut in two stands for one that the
            // end cut in two.
            if ended != Phase::Counts {
                continue;
            }
            match step {
                Ok((tasks, create)) => {
                    seen.tasks += tasks;
                    let _ = seen.create_us.record(create.as_micros() as u64);
                    seen.acknowledged.push((Instant::now(), create));
                }
                Err(error) => {
                    seen.errors += 1;
                    seen.error.get_or_insert_with(|| error.to_string());
                }
            }
        }
    }

    /// The tasks of one step, and how long its create took.
    async fn step(&mut self) -> anyhow::Result<(u64, Duration)> {
        let (queue, batch) = (&self.load.queue, self.load.batch);
        let begin = Instant::now();
        match &mut self.speaker {
            Speaker::Grpc(client) => create(client, queue, batch, &self.payload).await?,
            Speaker::Http(client) => client.create(queue, batch).await?,
        }
        let took = begin.elapsed();
        let tasks = match (self.load.kind, &mut self.speaker) {
            (Kind::Create, _) => batch as u64,
            (Kind::Cycle, Speaker::Grpc(client)) => {
                claim_and_complete(client, queue, batch).await?
            }
            (Kind::Cycle, Speaker::Http(client)) => {
                client
                    .claim_and_complete(queue, batch, CLAIM_WAIT_MS)
                    .await?
            }
        };
        Ok((tasks, took))
    }
}

pub async fn create(
    client: &TaskStoreClient,
    queue: &str,
    batch: usize,
    payload: &Bytes,
) -> Result<(), CallError> {
    let (namespace, queue) = (NAMESPACE.to_owned(), queue.to_owned());
    let task = v1::NewTask {
        payload: payload.clone(),
        ..v1::NewTask::default()
    };
    if batch == 1 {
        client
            .create(v1::CreateRequest {
                namespace,
                queue,
                task: Some(task),
            })
            .await?;
    } else {
        let request = v1::CreateBatchRequest {
            namespace,
            queue,
            tasks: vec![task; batch],
        };
        client.create_batch(request).await?;
    }
    Ok(())
}

/// The number of tasks carried through.
async fn claim_and_complete(
    client: &TaskStoreClient,
    queue: &str,
    batch: usize,
) -> Result<u64, CallError> {
    let claimed = claim(client, queue, batch).await?;
    let count = claimed.len() as u64;
    complete(client, claimed, batch).await?;
    Ok(count)
}

pub async fn claim(
    client: &TaskStoreClient,
    queue: &str,
    batch: usize,
) -> Result<Vec<v1::ClaimedTask>, CallError> {
    let request = v1::ClaimRequest {
        namespace: NAMESPACE.to_owned(),
        queues: vec![queue.to_owned()],
        tasks_max: batch as u32,
        wait_ms: CLAIM_WAIT_MS,
        ..v1::ClaimRequest::default()
    };
    Ok(client.claim(request).await?.tasks)
}

pub async fn complete(
    client: &TaskStoreClient,
    claimed: Vec<v1::ClaimedTask>,
    batch: usize,
) -> Result<(), CallError> {
    let mut completes = claimed.into_iter().map(|claimed| {
        let task = claimed.task.unwrap_or_default();
        let lease = v1::Lease {
            namespace: NAMESPACE.to_owned(),
            id: task.id,
            lease_token: claimed.lease_token,
        };
        v1::CompleteRequest {
            lease: Some(lease),
            result: Bytes::new(),
        }
    });
    if batch > 1 {
        let settle = |complete| v1::Settle {
            action: Some(v1::settle::Action::Complete(complete)),
        };
        let settles: Vec<_> = completes.map(settle).collect();
        if !settles.is_empty() {
            client
                .settle_batch(v1::SettleBatchRequest { settles })
                .await?;
        }
    } else if let Some(complete) = completes.next() {
        client.complete(complete).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_never_comes_back_has_its_gap_until_the_end() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let acknowledged = || [5, 400, 990].map(at).to_vec();
        let gap = |ended| longest_gap(at(1_000), acknowledged(), at(ended));
        assert_eq!(gap(6_000), Duration::from_secs(5));
        let mut later = acknowledged();
        later.extend([at(1_700), at(1_800)]);
        let gap = longest_gap(at(1_000), later, at(2_000));
        assert_eq!(gap, Duration::from_millis(700));
    }
}
