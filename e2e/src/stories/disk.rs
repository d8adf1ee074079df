//! One member's disk fills up: the store takes no more tasks, finishes those it has, and goes on when
//! there is room again.

use super::Story;
use super::load::Load;
use super::made::on_class;
use crate::local;
use crate::store::{READY_LIMIT, Store};
use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::Api;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use taskstore_api::{CallError, TaskStoreClient, v1};

const NAMESPACE: &str = "disk";
const QUEUE: &str = "tasks";
const TASKS: u32 = 20;
/// The work of this story lasts less.
const LEASE_MS: u64 = 600_000;
const REASON: &str = "DISK_HIGH_WATER";
const ASK_AGAIN: Duration = Duration::from_millis(200);

pub async fn full_on_one_member(story: Story) -> Result<()> {
    let store = Store::open(&story.cluster, &story.namespace, "store").await?;
    story
        .apply(&on_class(&store.name, 3, "local-sized"))
        .await?;
    store.ready(3, READY_LIMIT).await?;
    let client = store.client().await?;
    for number in 0..TASKS {
        create(&client, &number.to_string())
            .await
            .context("create before the disk is full")?;
    }
    let claim = v1::ClaimRequest {
        namespace: NAMESPACE.to_owned(),
        queues: vec![QUEUE.to_owned()],
        tasks_max: TASKS,
        ..v1::ClaimRequest::default()
    };
    let claimed = client.claim(claim).await.context("claim")?.tasks;
    ensure!(
        claimed.len() == TASKS as usize,
        "only {} tasks were claimed",
        claimed.len()
    );

    let filled = local::fill(&volume(&store).await?)?;
    let start = Instant::now();
    let more = AtomicU64::new(0);
    let refused = until(|| async {
        let id = format!("more-{}", more.load(Ordering::Relaxed));
        match create(&client, &id).await {
            Err(error) if error.reason() == REASON => Ok(true),
            Err(error) => Err(error).context("create on a disk that fills up"),
            Ok(_) => {
                more.fetch_add(1, Ordering::Relaxed);
                Ok(false)
            }
        }
    })
    .await;
    refused.context("creates are never refused")?;
    let seconds = start.elapsed().as_secs_f64();
    story.figures.add("full_disk_noticed_seconds", seconds);
    for claimed in claimed {
        let id = claimed.task.context("a claim without its task")?.id;
        let complete = v1::CompleteRequest {
            lease: Some(v1::Lease {
                namespace: NAMESPACE.to_owned(),
                id: id.clone(),
                lease_token: claimed.lease_token,
            }),
            result: id.clone().into(),
        };
        let done = client.complete(complete).await;
        done.with_context(|| format!("complete {id} while a disk is full"))?;
    }
    match create(&client, "one-more").await {
        Err(error) if error.reason() == REASON => {}
        other => bail!("the disk is still full, yet a create got {other:?}"),
    }

    let start = Instant::now();
    std::fs::remove_file(&filled).context("make room again")?;
    let taken = until(|| async {
        match create(&client, "room-again").await {
            Ok(_) => Ok(true),
            Err(error) if error.reason() == REASON => Ok(false),
            Err(error) => Err(error).context("create when there is room again"),
        }
    })
    .await;
    taken.context("creates are refused for ever")?;
    let seconds = start.elapsed().as_secs_f64();
    story.figures.add("free_disk_noticed_seconds", seconds);
    let request = v1::QueueStatsRequest {
        namespace: NAMESPACE.to_owned(),
        queue: QUEUE.to_owned(),
    };
    let stats = client.queue_stats(request).await.context("queue stats")?;
    let (done, waiting) = (stats.completed_total, stats.available);
    let taken = more.into_inner() + 1;
    ensure!(
        done == u64::from(TASKS) && waiting == taken,
        "{done} of {TASKS} tasks are completed, {waiting} of {taken} wait"
    );
    store.healed(3, READY_LIMIT).await?;
    let load = Load::start(&store, "load").await?;
    load.goes_on(50).await?;
    load.finish().await.map(drop)
}

async fn create(client: &TaskStoreClient, id: &str) -> Result<v1::CreateResponse, CallError> {
    let task = v1::NewTask {
        id: id.to_owned(),
        lease_ms: LEASE_MS,
        ..v1::NewTask::default()
    };
    let request = v1::CreateRequest {
        namespace: NAMESPACE.to_owned(),
        queue: QUEUE.to_owned(),
        task: Some(task),
    };
    client.create(request).await
}

async fn until<F: Future<Output = Result<bool>>>(met: impl Fn() -> F) -> Result<()> {
    let start = Instant::now();
    while !met().await? {
        ensure!(start.elapsed() < READY_LIMIT, "not within {READY_LIMIT:?}");
        tokio::time::sleep(ASK_AGAIN).await;
    }
    Ok(())
}

/// Where a follower's volume lies on this machine.
async fn volume(store: &Store) -> Result<PathBuf> {
    let leader = store.leader().await?;
    let status = store.get().await?.status.context("no status")?;
    let member = status.members.into_iter().find(|one| one.pod != leader);
    let uid = member
        .context("three members have a follower")?
        .pvc_uid
        .context("a member has a volume")?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(store.kube.clone(), &store.namespace);
    let claims = claims.list(&Default::default()).await?.items;
    let claim = claims
        .into_iter()
        .find(|claim| claim.metadata.uid.as_ref() == Some(&uid))
        .context("the member's claim is gone")?;
    let name = claim.spec.and_then(|spec| spec.volume_name);
    let volumes: Api<PersistentVolume> = Api::all(store.kube.clone());
    let volume = volumes
        .get(&name.context("the claim is not bound")?)
        .await?;
    let local = volume.spec.and_then(|spec| spec.local);
    Ok(local.context("the volume is not a local one")?.path.into())
}
