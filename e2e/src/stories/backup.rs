//! Backups to a real S3 server under load: keys that may not write, a backup by hand whose member dies in the
//! middle, the schedule, the log behind them, and what need not be kept.

use super::Story;
use super::made::loaded;
use crate::bucket;
use crate::store::{READY_LIMIT, Store, says};
use anyhow::{Context, Result, ensure};
use crds::backup::{BackupPhase, TaskStoreBackupSpec};
use crds::conditions::get;
use crds::{ConditionType, Reason, TaskStoreBackup, TaskStoreBackupStatus, names};
use kube::api::{Api, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;
use tokio::time::timeout;

pub async fn backed_up(story: Story) -> Result<()> {
    bucket::make()?;
    bucket::secret(&story.cluster, &story.namespace).await?;
    let wrong = [
        "create",
        "secret",
        "generic",
        "wrong",
        "--from-literal=AWS_ACCESS_KEY_ID=taskstore-local",
        "--from-literal=AWS_SECRET_ACCESS_KEY=wrong",
    ];
    story.kubectl(&wrong).await?;
    let (store, load) = loaded(&story, 3).await?;
    let folder = bucket::folder().join(&story.namespace);

    refused_with_wrong_keys(&store).await?;
    ensure!(!folder.exists(), "a check with wrong keys left something");
    let start = Instant::now();
    let right = json!({"destination": {"credentials": {"name": bucket::SECRET}}});
    store.patch(&json!({ "backup": right }).to_string()).await?;
    store
        .until("the destination is accepted", READY_LIMIT, |cluster| {
            says(
                cluster,
                ConditionType::BackupReady,
                Reason::DestinationAccepted,
            )
        })
        .await?;
    let seconds = start.elapsed().as_secs_f64();
    story.figures.add("backup_accepted_seconds", seconds);
    store.healed(3, READY_LIMIT).await?;

    let seconds = by_hand(&store, "by-hand").await?;
    story.figures.add("backup_by_hand_seconds", seconds);
    member_dies(&store).await?;
    load.goes_on(50).await?;
    schedule_and_retention(&store, &folder).await?;
    store.patch(r#"{"backup": null}"#).await?;
    store
        .until("nobody ships the log any more", READY_LIMIT, |cluster| {
            let status = cluster.status.as_ref();
            status.is_some_and(|status| status.backup.is_none())
        })
        .await?;
    fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    load.finish().await.map(drop)
}

async fn refused_with_wrong_keys(store: &Store) -> Result<()> {
    let backup = json!({
        "destination": {
            "url": bucket::url(&store.namespace),
            "endpoint": bucket::endpoint(),
            "pathStyle": true,
            "caBundle": bucket::ca_pem()?,
            "credentials": {"name": "wrong"},
        },
    });
    store
        .patch(&json!({ "backup": backup }).to_string())
        .await?;
    let cluster = store
        .until("the destination is refused", READY_LIMIT, |cluster| {
            says(
                cluster,
                ConditionType::BackupReady,
                Reason::DestinationRefused,
            )
        })
        .await?;
    let conditions = cluster.status.unwrap_or_default().conditions;
    let said = get(&conditions, ConditionType::BackupReady).context("it was just said")?;
    ensure!(
        said.message.contains("right to write"),
        "no right is named: {}",
        said.message
    );
    Ok(())
}

fn backups(store: &Store) -> Api<TaskStoreBackup> {
    Api::namespaced(store.kube.clone(), &store.namespace)
}

async fn create(store: &Store, name: &str) -> Result<()> {
    let spec = TaskStoreBackupSpec {
        cluster: store.name.clone(),
    };
    let backup = TaskStoreBackup::new(name, spec);
    backups(store)
        .create(&PostParams::default(), &backup)
        .await?;
    Ok(())
}

/// Waits for a state of a backup; when it does not come, the error shows its status.
async fn until(
    store: &Store,
    name: &str,
    met: impl Fn(&TaskStoreBackupStatus) -> bool,
) -> Result<TaskStoreBackupStatus> {
    let met = |found: Option<&TaskStoreBackup>| {
        let status = found.and_then(|found| found.status.as_ref());
        status.is_some_and(|status| met(status) || status.phase == BackupPhase::Failed)
    };
    let wait = timeout(READY_LIMIT, await_condition(backups(store), name, met)).await;
    let Ok(found) = wait else {
        let status = backups(store).get(name).await?.status;
        anyhow::bail!("the backup {name} stays {status:?}");
    };
    let status = found?.and_then(|found| found.status);
    let status = status.with_context(|| format!("the backup {name} is gone"))?;
    ensure!(
        status.phase != BackupPhase::Failed,
        "the backup {name} has failed: {status:?}"
    );
    Ok(status)
}

async fn completed(store: &Store, name: &str) -> Result<TaskStoreBackupStatus> {
    until(store, name, |status| status.phase == BackupPhase::Completed).await
}

async fn by_hand(store: &Store, name: &str) -> Result<f64> {
    let start = Instant::now();
    create(store, name).await?;
    let status = completed(store, name).await?;
    let seconds = start.elapsed().as_secs_f64();
    let identity = store.get().await?.status.and_then(|status| status.identity);
    let identity = identity.context("the cluster has an identity")?;
    let lineage = status.lineage.context("it is somewhere")?;
    ensure!(
        (lineage.cluster_id, lineage.incarnation) == (identity.cluster_id, identity.incarnation),
        "it is in the folder of another store"
    );
    ensure!(
        status.bytes > Some(0) && status.tasks > Some(0),
        "it is empty"
    );
    Ok(seconds)
}

/// So slow that there is a middle, in which the member that writes it is killed.
async fn member_dies(store: &Store) -> Result<()> {
    store
        .patch(r#"{"backup": {"bytesPerSecondMax": "64Ki"}}"#)
        .await?;
    create(store, "in-trouble").await?;
    let status = until(store, "in-trouble", |status| status.member.is_some()).await?;
    let member = status.member.context("a member writes it")?;
    if status.phase != BackupPhase::Completed {
        store.kill(&names::pod(&store.name, member)).await?;
    }
    completed(store, "in-trouble").await?;
    store
        .patch(r#"{"backup": {"bytesPerSecondMax": null}}"#)
        .await?;
    store.healed(3, READY_LIMIT).await.map(drop)
}

/// Each minute one, of which two are kept; the log goes on behind them.
async fn schedule_and_retention(store: &Store, folder: &std::path::Path) -> Result<()> {
    let (lineage, before) = {
        let status = store.get().await?.status.unwrap_or_default();
        let identity = status.identity.context("the cluster has an identity")?;
        let incarnation = identity.incarnation.to_string();
        let lineage: PathBuf = [&identity.cluster_id, &incarnation].iter().collect();
        (folder.join(lineage), status.backup.unwrap_or_default())
    };
    ensure!(
        lineage.join("backups/by-hand/manifest.json").exists(),
        "by-hand is not in the bucket"
    );
    let each_minute = r#"{"backup": {"schedule": "* * * * *", "keep": {"count": 2}}}"#;
    store.patch(each_minute).await?;
    let gone = |found: Option<&TaskStoreBackup>| found.is_none();
    timeout(
        READY_LIMIT,
        await_condition(backups(store), "by-hand", gone),
    )
    .await
    .context("by-hand is kept for ever")??;
    ensure!(
        !lineage.join("backups/by-hand").exists(),
        "by-hand is in the bucket, and its object is gone"
    );
    let cluster = store
        .until(
            "the log is shipped beyond what it was",
            READY_LIMIT,
            |cluster| {
                let status = cluster
                    .status
                    .as_ref()
                    .and_then(|status| status.backup.as_ref());
                status.is_some_and(|now| now.recoverable_to > before.recoverable_to)
            },
        )
        .await?;
    let now = cluster.status.and_then(|status| status.backup);
    let now = now.context("it was just there")?;
    ensure!(
        now.last_success > before.last_success,
        "no run of the schedule was completed"
    );
    Ok(())
}
