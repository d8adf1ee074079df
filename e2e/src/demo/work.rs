//! Producers and workers of the demo, and the look at what the store holds in the end.

use super::index::{self, Finding, Totals};
use super::tally::{Call, Tally};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use taskstore_api::{TaskStoreClient, v1};
use tokio::sync::Semaphore;

/// Namespace and queue within the store.
pub const NAMESPACE: &str = "debian";
pub const QUEUE: &str = "packages";
const BATCH: usize = 50;
/// One batch of creates, in payload bytes; the store takes three times as much.
const BATCH_BYTES: usize = 1 << 20;
/// Tasks that wait or run at a time: producers stay a little ahead of the workers, so that both are
/// at work when something is killed.
const BACKLOG: usize = 4_000;
/// A call goes on through any failure that this demo makes.
const CALL_DEADLINE: Duration = Duration::from_secs(120);

/// What producers and workers share.
pub struct Job {
    pub stanzas: Vec<String>,
    pub tally: Tally,
    next: AtomicUsize,
    room: Semaphore,
}

impl Job {
    pub fn new(stanzas: Vec<String>) -> Arc<Self> {
        Arc::new(Self {
            tally: Tally::new(stanzas.len()),
            stanzas,
            next: AtomicUsize::new(0),
            room: Semaphore::new(BACKLOG),
        })
    }

    /// Numbers of the next batch; none when all are taken. Tasks are numbered from 1.
    fn take(&self) -> Option<std::ops::Range<usize>> {
        let take = |start: usize| {
            let mut bytes = 0;
            let fits = self.stanzas[start.min(self.stanzas.len())..]
                .iter()
                .take(BATCH)
                .take_while(|stanza| {
                    bytes += stanza.len();
                    bytes <= BATCH_BYTES
                })
                .count();
            let left = self.stanzas.len().saturating_sub(start);
            (left > 0).then(|| start + fits.max(1))
        };
        let mut end = 0;
        let start = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |start| {
                let next = take(start)?;
                end = next;
                Some(next)
            })
            .ok()?;
        Some(start + 1..end + 1)
    }
}

/// Creates tasks until the index is used up.
pub async fn produce(job: Arc<Job>, client: TaskStoreClient) -> Result<()> {
    let client = client.with_deadline(CALL_DEADLINE);
    while let Some(numbers) = job.take() {
        let count = u32::try_from(numbers.len())?;
        job.room.acquire_many(count).await?.forget();
        let task = |number: usize| v1::NewTask {
            id: number.to_string(),
            kind: "package".to_owned(),
            payload: job.stanzas[number - 1].clone().into(),
            content_type: "text/plain".to_owned(),
            ..v1::NewTask::default()
        };
        let request = v1::CreateBatchRequest {
            namespace: NAMESPACE.to_owned(),
            queue: QUEUE.to_owned(),
            tasks: numbers.map(task).collect(),
        };
        let began = Instant::now();
        let answer = client.create_batch(request).await.context("create")?;
        job.tally.answered(Call::Create, began);
        ensure!(
            answer.results.len() == count as usize,
            "{count} creates got {} answers",
            answer.results.len()
        );
        for item in answer.results {
            match item.result {
                Some(v1::create_result::Result::Created(_)) => job.tally.created(1),
                other => bail!("a task was refused: {other:?}"),
            }
        }
    }
    Ok(())
}

/// Claims, reads and completes until every task is settled.
pub async fn work(job: Arc<Job>, client: TaskStoreClient, name: String) -> Result<()> {
    let client = client.with_deadline(CALL_DEADLINE);
    let mut settled = job.tally.settled.subscribe();
    let all = job.stanzas.len() as u64;
    loop {
        let claim = v1::ClaimRequest {
            namespace: NAMESPACE.to_owned(),
            queues: vec![QUEUE.to_owned()],
            tasks_max: BATCH as u32,
            wait_ms: 10_000,
            worker: name.clone(),
            ..v1::ClaimRequest::default()
        };
        let began = Instant::now();
        let claimed = tokio::select! {
            claimed = client.claim(claim) => claimed.context("claim")?.tasks,
            _ = settled.wait_for(|settled| *settled == all) => return Ok(()),
        };
        job.tally.answered(Call::Claim, began);
        if !claimed.is_empty() {
            settle(&job, &client, claimed).await?;
        }
    }
}

async fn settle(job: &Job, client: &TaskStoreClient, claimed: Vec<v1::ClaimedTask>) -> Result<()> {
    let mut settles = Vec::with_capacity(claimed.len());
    let mut kept = Vec::with_capacity(claimed.len());
    for claimed in claimed {
        let task = claimed.task.context("a claim without its task")?;
        let finding = index::read(&String::from_utf8_lossy(&task.payload));
        kept.push((number(&task.id)?, claimed.lease_token));
        let complete = v1::CompleteRequest {
            lease: Some(v1::Lease {
                namespace: NAMESPACE.to_owned(),
                id: task.id,
                lease_token: claimed.lease_token,
            }),
            result: serde_json::to_vec(&finding)?.into(),
        };
        settles.push(v1::Settle {
            action: Some(v1::settle::Action::Complete(complete)),
        });
    }
    let began = Instant::now();
    let answer = client
        .settle_batch(v1::SettleBatchRequest { settles })
        .await
        .context("complete")?;
    job.tally.answered(Call::Complete, began);
    ensure!(
        answer.results.len() == kept.len(),
        "{} settles got {} answers",
        kept.len(),
        answer.results.len()
    );
    for ((number, token), item) in kept.into_iter().zip(answer.results) {
        match item.result {
            Some(v1::settle_result::Result::Settled(_)) => {
                job.tally.settled(number, token);
                job.room.add_permits(1);
            }
            // Someone else has it now: our result was not taken.
            Some(v1::settle_result::Result::Error(error)) if error.reason == "LEASE_LOST" => {
                job.tally.lease_lost();
            }
            other => bail!("task {number} could not be completed: {other:?}"),
        }
    }
    Ok(())
}

fn number(id: &str) -> Result<usize> {
    id.parse().with_context(|| format!("a foreign task: {id}"))
}

/// What the store itself holds in the end.
#[derive(Debug, Default)]
pub struct Held {
    /// Tasks with a result.
    pub completed: u64,
    pub totals: Totals,
    pub abandonments: u64,
    pub stats: v1::QueueStatsResponse,
}

/// Reads all results back, page by page.
pub async fn held(client: &TaskStoreClient) -> Result<Held> {
    let mut held = Held::default();
    let mut seen = BTreeSet::new();
    let mut request = v1::ListRequest {
        namespace: NAMESPACE.to_owned(),
        queue: QUEUE.to_owned(),
        states: vec![v1::TaskState::Completed.into()],
        page_size: 1_000,
        view: v1::View::Full.into(),
        ..v1::ListRequest::default()
    };
    loop {
        let page = client.list(request.clone()).await.context("list")?;
        for task in page.tasks {
            let number = number(&task.id)?;
            ensure!(seen.insert(number), "task {number} is listed twice");
            let finding: Finding = serde_json::from_slice(&task.result)
                .with_context(|| format!("the result of task {number}"))?;
            held.totals.add(number, &finding);
            held.completed += 1;
            held.abandonments += u64::from(task.abandonments);
        }
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    held.stats = client
        .queue_stats(v1::QueueStatsRequest {
            namespace: NAMESPACE.to_owned(),
            queue: QUEUE.to_owned(),
        })
        .await
        .context("queue stats")?;
    Ok(held)
}
