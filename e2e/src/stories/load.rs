//! Steady load beside a story, and the check that ends every story: nothing acknowledged is lost,
//! nothing is settled twice.

use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use taskstore_api::{TaskStoreClient, v1};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::store::Store;

const PRODUCERS: usize = 3;
const WORKERS: usize = 2;
/// Rest of a producer after each task: the stories share a small machine.
const REST: Duration = Duration::from_millis(15);
const QUEUE: &str = "load";
const CLAIM_TASKS: u32 = 50;
/// Short, so that tasks of a claim whose answer was lost come back within the story.
const LEASE_MS: u64 = 10_000;
/// A call goes on through any failure that a story makes; one that is given up fails the story.
const CALL_DEADLINE: Duration = Duration::from_secs(90);
const DRAIN_LIMIT: Duration = Duration::from_secs(90);
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Producers and workers at work on a store.
pub struct Load {
    seen: Arc<Seen>,
    phase: watch::Sender<Phase>,
    producers: JoinSet<Result<()>>,
    workers: JoinSet<Result<()>>,
    client: TaskStoreClient,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Create,
    Drain,
    End,
}

/// What the store acknowledged, and when it was last heard of.
struct Seen {
    namespace: String,
    created: Mutex<BTreeSet<String>>,
    /// Tokens under which a task's result was accepted.
    settled: Mutex<BTreeMap<String, BTreeSet<u64>>>,
    silence: Mutex<(Instant, Duration)>,
}

/// What a load left behind: to be looked at again, after a deletion for example.
pub struct Ledger(Arc<Seen>);

impl Load {
    /// Starts; the store's namespace keeps two loads of one story apart. Returns once the first
    /// task is acknowledged.
    pub async fn start(store: &Store, namespace: &str) -> Result<Self> {
        let seen = Arc::new(Seen {
            namespace: namespace.to_owned(),
            created: Mutex::default(),
            settled: Mutex::default(),
            silence: Mutex::new((Instant::now(), Duration::ZERO)),
        });
        let phase = watch::Sender::new(Phase::Create);
        let (mut producers, mut workers) = (JoinSet::new(), JoinSet::new());
        let client = store.client().await?.with_deadline(CALL_DEADLINE);
        client
            .create(task(&seen, "first".to_owned()))
            .await
            .context("the first task")?;
        seen.created("first".to_owned());
        for number in 0..PRODUCERS {
            let client = store.client().await?.with_deadline(CALL_DEADLINE);
            producers.spawn(produce(seen.clone(), client, phase.subscribe(), number));
        }
        for _ in 0..WORKERS {
            let client = store.client().await?.with_deadline(CALL_DEADLINE);
            workers.spawn(work(seen.clone(), client, phase.subscribe()));
        }
        Ok(Self {
            seen,
            phase,
            producers,
            workers,
            client,
        })
    }

    /// The longest time between two acknowledged creates since the last look.
    pub fn take_gap_ms(&self) -> f64 {
        let mut silence = lock(&self.seen.silence);
        // A silence that goes on counts as far as it went.
        let open = silence.0.elapsed();
        let longest = std::mem::take(&mut silence.1).max(open);
        longest.as_secs_f64() * 1e3
    }

    /// Waits until so many more tasks are acknowledged: the store works on.
    pub async fn goes_on(&self, tasks: usize) -> Result<()> {
        let goal = lock(&self.seen.created).len() + tasks;
        let wait = async {
            while lock(&self.seen.created).len() < goal {
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        tokio::time::timeout(DRAIN_LIMIT, wait)
            .await
            .context("the store takes no more tasks")
    }

    /// Stops creating, lets the workers finish, and checks everything that was acknowledged.
    pub async fn finish(mut self) -> Result<Ledger> {
        self.phase.send_replace(Phase::Drain);
        while let Some(end) = self.producers.join_next().await {
            end??;
        }
        let ledger = Ledger(self.seen);
        let empty = async {
            loop {
                let stats = ledger.stats(&self.client).await?;
                let left = stats.scheduled + stats.available + stats.running + stats.retryable;
                if left == 0 {
                    return Ok::<_, anyhow::Error>(());
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        tokio::time::timeout(DRAIN_LIMIT, empty)
            .await
            .context("tasks are left over that no worker gets")??;
        self.phase.send_replace(Phase::End);
        while let Some(end) = self.workers.join_next().await {
            end??;
        }
        ledger.check(&self.client).await?;
        Ok(ledger)
    }
}

impl Ledger {
    /// How many tasks the store acknowledged.
    pub fn tasks(&self) -> usize {
        lock(&self.0.created).len()
    }

    async fn stats(&self, client: &TaskStoreClient) -> Result<v1::QueueStatsResponse> {
        let request = v1::QueueStatsRequest {
            namespace: self.0.namespace.clone(),
            queue: QUEUE.to_owned(),
        };
        client.queue_stats(request).await.context("queue stats")
    }

    /// Reads all tasks back and compares them with what was acknowledged.
    pub async fn check(&self, client: &TaskStoreClient) -> Result<()> {
        let mut held = BTreeMap::new();
        let mut request = v1::ListRequest {
            namespace: self.0.namespace.clone(),
            queue: QUEUE.to_owned(),
            page_size: 1_000,
            view: v1::View::Full.into(),
            ..v1::ListRequest::default()
        };
        loop {
            let page = client.list(request.clone()).await.context("list")?;
            for task in page.tasks {
                let id = task.id.clone();
                ensure!(
                    held.insert(id.clone(), task).is_none(),
                    "{id} is listed twice"
                );
            }
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        let lost = missing(&lock(&self.0.created), &held);
        ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        for (id, task) in &held {
            ensure!(
                task.state() == v1::TaskState::Completed && task.result == id.as_bytes(),
                "{id} ended as {:?} with another result",
                task.state()
            );
            ensure!(lock(&self.0.created).contains(id), "nobody created {id}");
        }
        for (id, tokens) in lock(&self.0.settled).iter() {
            let kept = held.get(id).map(|task| task.lease_token);
            ensure!(
                tokens.len() == 1 && tokens.first() == kept.as_ref(),
                "{id} was settled under {tokens:?}, its row says {kept:?}"
            );
        }
        let stats = self.stats(client).await?;
        ensure!(
            stats.completed_total == held.len() as u64 && stats.discarded_total == 0,
            "{} tasks were completed {} times, {} discarded",
            held.len(),
            stats.completed_total,
            stats.discarded_total
        );
        Ok(())
    }
}

fn missing(created: &BTreeSet<String>, held: &BTreeMap<String, v1::Task>) -> Vec<String> {
    created
        .iter()
        .filter(|id| !held.contains_key(*id))
        .cloned()
        .collect()
}

impl Seen {
    fn created(&self, id: String) {
        lock(&self.created).insert(id);
        let mut silence = lock(&self.silence);
        let now = Instant::now();
        silence.1 = silence.1.max(now - silence.0);
        silence.0 = now;
    }
}

fn task(seen: &Seen, id: String) -> v1::CreateRequest {
    let task = v1::NewTask {
        payload: id.clone().into(),
        id,
        lease_ms: LEASE_MS,
        ..v1::NewTask::default()
    };
    v1::CreateRequest {
        namespace: seen.namespace.clone(),
        queue: QUEUE.to_owned(),
        task: Some(task),
    }
}

async fn produce(
    seen: Arc<Seen>,
    client: TaskStoreClient,
    mut phase: watch::Receiver<Phase>,
    producer: usize,
) -> Result<()> {
    for number in 0_u64.. {
        let id = format!("{producer}-{number}");
        client
            .create(task(&seen, id.clone()))
            .await
            .context("create")?;
        seen.created(id);
        tokio::select! {
            _ = phase.wait_for(|phase| *phase != Phase::Create) => return Ok(()),
            () = tokio::time::sleep(REST) => {}
        }
    }
    Ok(())
}

async fn work(
    seen: Arc<Seen>,
    client: TaskStoreClient,
    mut phase: watch::Receiver<Phase>,
) -> Result<()> {
    loop {
        let claim = v1::ClaimRequest {
            namespace: seen.namespace.clone(),
            queues: vec![QUEUE.to_owned()],
            tasks_max: CLAIM_TASKS,
            wait_ms: 1_000,
            ..v1::ClaimRequest::default()
        };
        let claimed = tokio::select! {
            claimed = client.claim(claim) => claimed,
            _ = phase.wait_for(|phase| *phase == Phase::End) => return Ok(()),
        };
        let tasks = claimed.context("claim")?.tasks;
        if !tasks.is_empty() {
            settle(&seen, &client, tasks).await?;
        }
    }
}

async fn settle(seen: &Seen, client: &TaskStoreClient, tasks: Vec<v1::ClaimedTask>) -> Result<()> {
    let mut leases = Vec::with_capacity(tasks.len());
    let mut settles = Vec::with_capacity(tasks.len());
    for claimed in tasks {
        let id = claimed.task.context("a claim without its task")?.id;
        let complete = v1::CompleteRequest {
            lease: Some(v1::Lease {
                namespace: seen.namespace.clone(),
                id: id.clone(),
                lease_token: claimed.lease_token,
            }),
            result: id.clone().into(),
        };
        leases.push((id, claimed.lease_token));
        settles.push(v1::Settle {
            action: Some(v1::settle::Action::Complete(complete)),
        });
    }
    let answer = client
        .settle_batch(v1::SettleBatchRequest { settles })
        .await
        .context("complete")?;
    ensure!(
        answer.results.len() == leases.len(),
        "{} settles got {} answers",
        leases.len(),
        answer.results.len()
    );
    for ((id, token), item) in leases.into_iter().zip(answer.results) {
        match item.result {
            Some(v1::settle_result::Result::Settled(_)) => {
                lock(&seen.settled).entry(id).or_default().insert(token);
            }
            Some(v1::settle_result::Result::Error(error)) if error.reason == "LEASE_LOST" => {}
            other => bail!("{id} could not be completed: {other:?}"),
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
