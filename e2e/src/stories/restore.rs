//! Everything of a store is gone but its bucket: it is restored to its last second, and beside that to an earlier
//! one. Before, a drill has said that this would work.

use super::Story;
use super::load::Load;
use super::made::small;
use super::recover::{check_held, create, hold};
use crate::bucket;
use crate::store::{KUBECTL_LIMIT, READY_LIMIT, Store};
use anyhow::{Context, Result, ensure};
use crds::conditions::is_true;
use crds::restore::RestorePhase;
use crds::status::Identity;
use crds::{
    ConditionType, TaskStoreBackup, TaskStoreCluster, TaskStoreRestore, TaskStoreRestoreStatus,
};
use jiff::Timestamp;
use kube::api::Api;
use kube::runtime::wait::await_condition;
use std::time::{Duration, Instant};
use taskstore_api::{TaskStoreClient, v1};
use tokio::time::timeout;

/// So far apart that each is in a second of its own, also by the store's clock.
const APART: Duration = Duration::from_millis(1_500);
const EARLY: &str = "early";
const LATE: &str = "late";

pub async fn namespace_lost(story: Story) -> Result<()> {
    bucket::make()?;
    bucket::secret(&story.cluster, &story.namespace).await?;
    let store = Store::open(&story.cluster, &story.namespace, "store").await?;
    story.apply(&small(&store.name, 3)).await?;
    store.ready(3, READY_LIMIT).await?;
    let policy = format!("{{\"backup\": {{\"destination\": {}}}}}", place(&story)?);
    store.patch(&policy).await?;
    let load = Load::start(&store, "load").await?;
    load.goes_on(100).await?;
    back_up(&story, "first").await?;
    drilled(&store).await?;
    load.goes_on(100).await?;
    let ledger = load.finish().await?;
    let client = store.client().await?.with_deadline(READY_LIMIT);
    create(&client, EARLY).await?;
    tokio::time::sleep(APART).await;
    let between = Timestamp::now();
    tokio::time::sleep(APART).await;
    create(&client, LATE).await?;
    let held = hold(&client).await?;
    tokio::time::sleep(APART).await;
    let after = Timestamp::now();
    create(&client, "last").await?;
    let was = shipped_past(&store, after).await?;

    let delete = ["delete", "namespace", &story.namespace, KUBECTL_LIMIT];
    story.cluster.kubectl(&delete).await?;
    let create_namespace = ["create", "namespace", &story.namespace];
    story.cluster.kubectl(&create_namespace).await?;
    bucket::secret(&story.cluster, &story.namespace).await?;

    let start = Instant::now();
    restore(&story, &was, "latest", "store", 3, None).await?;
    let seconds = start.elapsed().as_secs_f64();
    story.figures.add("restore_to_serving_seconds", seconds);
    let store = Store::open(&story.cluster, &story.namespace, "store").await?;
    let restored = store.ready(3, READY_LIMIT).await?;
    let seconds = start.elapsed().as_secs_f64();
    story.figures.add("restore_to_whole_seconds", seconds);
    let status = restored.status.context("no status")?;
    let is = status.identity.context("no identity")?;
    ensure!(
        is.incarnation == was.incarnation + 1 && is.cluster_id != was.cluster_id,
        "{is:?} is restored from {was:?}"
    );
    let client = store.client().await?.with_deadline(READY_LIMIT);
    ledger.check(&client).await.context("after the restore")?;
    check_held(&client, &held).await?;
    let after = Load::start(&store, "after").await?;
    after.goes_on(50).await?;
    after.finish().await?;

    restore(&story, &was, "earlier", "before", 1, Some(between)).await?;
    let earlier = Store::open(&story.cluster, &story.namespace, "before").await?;
    earlier.ready(1, READY_LIMIT).await?;
    let client = earlier.client().await?.with_deadline(READY_LIMIT);
    ledger
        .check(&client)
        .await
        .context("at an earlier moment")?;
    let found = (
        waiting(&client, EARLY).await?,
        waiting(&client, LATE).await?,
    );
    ensure!(
        found == (1, 0),
        "{found:?} tasks of before and after {between}"
    );

    refused(&story, &was).await
}

/// As JSON, which is YAML too.
fn place(story: &Story) -> Result<String> {
    let place = serde_json::json!({
        "url": bucket::url(&story.namespace),
        "endpoint": bucket::endpoint(),
        "pathStyle": true,
        "caBundle": bucket::ca_pem()?,
        "credentials": { "name": bucket::SECRET },
    });
    Ok(place.to_string())
}

async fn back_up(story: &Story, name: &str) -> Result<()> {
    let start = Instant::now();
    story
        .apply(&format!(
            "apiVersion: taskstore.dev/v1alpha1
kind: TaskStoreBackup
metadata: {{ name: {name} }}
spec: {{ cluster: store }}
"
        ))
        .await?;
    let backups: Api<TaskStoreBackup> =
        Api::namespaced(story.cluster.client().await?, &story.namespace);
    let ended = |found: Option<&TaskStoreBackup>| {
        let status = found.and_then(|found| found.status.as_ref());
        status.is_some_and(|status| status.phase.is_final())
    };
    let ended = timeout(READY_LIMIT, await_condition(backups, name, ended)).await;
    let status = ended
        .context("the backup does not end")??
        .and_then(|found| found.status);
    ensure!(
        status
            .as_ref()
            .is_some_and(|status| status.checksum.is_some()),
        "the backup ended as {status:?}"
    );
    let seconds = start.elapsed().as_secs_f64();
    story.figures.add("backup_seconds", seconds);
    is_seen_completed(story, &format!("taskstorebackup/{name}")).await
}

/// As people wait for it.
async fn is_seen_completed(story: &Story, what: &str) -> Result<()> {
    let completed = "--for=jsonpath={.status.phase}=Completed";
    story
        .kubectl(&["wait", what, completed, KUBECTL_LIMIT])
        .await
        .map(drop)
}

async fn drilled(store: &Store) -> Result<()> {
    let passed = |cluster: &TaskStoreCluster| {
        let conditions = cluster.status.as_ref().map(|status| &status.conditions);
        conditions.is_some_and(|all| is_true(all, ConditionType::BackupVerified))
    };
    let found = store
        .until("a drill restores the backup", READY_LIMIT, passed)
        .await?;
    let backup = found.status.and_then(|status| status.backup);
    let drill = backup
        .and_then(|backup| backup.last_drill)
        .context("no drill")?;
    let restorable = drill.restorable.context("it restored nothing")?;
    ensure!(restorable.tasks >= 100, "it restored {restorable:?}");
    let gone = store.pods_api();
    let drill = crds::names::drill(&store.name);
    let gone = await_condition(
        gone,
        &drill,
        |pod: Option<&k8s_openapi::api::core::v1::Pod>| pod.is_none(),
    );
    timeout(READY_LIMIT, gone)
        .await
        .context("its pod stays")??;
    Ok(())
}

/// Waits until a restore could go to the second of this moment; answers who the store is.
async fn shipped_past(store: &Store, moment: Timestamp) -> Result<Identity> {
    let is_past = |cluster: &TaskStoreCluster| {
        let backup = cluster
            .status
            .as_ref()
            .and_then(|status| status.backup.as_ref());
        let to = backup.and_then(|backup| backup.recoverable_to.as_ref());
        to.is_some_and(|to| to.0.as_second() >= moment.as_second())
    };
    let found = store
        .until("the log is shipped", READY_LIMIT, is_past)
        .await?;
    found
        .status
        .and_then(|status| status.identity)
        .context("no identity")
}

fn order(
    story: &Story,
    of: &Identity,
    name: &str,
    cluster: &str,
    replicas: u32,
    upto: Option<Timestamp>,
) -> Result<String> {
    let upto = upto.map_or("{}".into(), |time| format!("{{ time: \"{time:.0}\" }}"));
    Ok(format!(
        "apiVersion: taskstore.dev/v1alpha1
kind: TaskStoreRestore
metadata: {{ name: {name} }}
spec:
  source:
    bucket:
      destination: {}
      lineage: {{ clusterId: {}, incarnation: {} }}
  upto: {upto}
  cluster:
    name: {cluster}
    spec:
      replicas: {replicas}
      storage: {{ size: 1Gi, logBudget: 256Mi }}
      resources: {{ requests: {{ cpu: 20m, memory: 64Mi }} }}
",
        place(story)?,
        of.cluster_id,
        of.incarnation
    ))
}

/// What it says once it is over.
async fn ordered(story: &Story, name: &str, order: &str) -> Result<TaskStoreRestoreStatus> {
    story.apply(order).await?;
    let restores: Api<TaskStoreRestore> =
        Api::namespaced(story.cluster.client().await?, &story.namespace);
    let is_over = |found: Option<&TaskStoreRestore>| {
        let status = found.and_then(|found| found.status.as_ref());
        status.is_some_and(|status| status.phase.is_final())
    };
    let ended = timeout(
        READY_LIMIT,
        await_condition(restores.clone(), name, is_over),
    )
    .await;
    match ended {
        Ok(found) => {
            let status = found?.and_then(|found| found.status);
            status.context("the restore is gone")
        }
        Err(_) => {
            let status = restores.get(name).await.map(|found| found.status);
            anyhow::bail!("the restore {name} does not end; its status is {status:?}")
        }
    }
}

async fn restore(
    story: &Story,
    of: &Identity,
    name: &str,
    cluster: &str,
    replicas: u32,
    upto: Option<Timestamp>,
) -> Result<()> {
    let order = order(story, of, name, cluster, replicas, upto)?;
    let status = ordered(story, name, &order).await?;
    is_seen_completed(story, &format!("taskstorerestore/{name}")).await?;
    ensure!(
        status.phase == RestorePhase::Completed && status.restored.is_some(),
        "the restore ended as {status:?}"
    );
    Ok(())
}

async fn waiting(client: &TaskStoreClient, queue: &str) -> Result<u64> {
    let request = v1::QueueStatsRequest {
        namespace: super::recover::HELD_NAMESPACE.to_owned(),
        queue: queue.to_owned(),
    };
    let stats = client.queue_stats(request).await.context("queue stats")?;
    Ok(stats.available)
}

/// There is no such store in the bucket: the words say so, and nothing begins empty.
async fn refused(story: &Story, of: &Identity) -> Result<()> {
    let other = Identity {
        incarnation: of.incarnation + 5,
        ..of.clone()
    };
    let order = order(story, &other, "wrong", "wrong", 1, None)?;
    let status = ordered(story, "wrong", &order).await?;
    let message = status.message.clone().unwrap_or_default();
    ensure!(
        status.phase == RestorePhase::Failed && message.contains("a backup in s3://"),
        "the restore ended as {status:?}"
    );
    let wrong = Store::open(&story.cluster, &story.namespace, "wrong").await?;
    let status = wrong.get().await?.status.context("no status")?;
    ensure!(
        !is_true(&status.conditions, ConditionType::Ready),
        "it serves what nobody has restored"
    );
    Ok(())
}
