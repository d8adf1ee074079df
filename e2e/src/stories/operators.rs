//! What an operator must live with: its own words in status are gone, or another operator acts beside it.

use super::Story;
use super::made::loaded;
use crate::images::workspace;
use crate::install;
use crate::store::{READY_LIMIT, Store};
use anyhow::{Context, Result, ensure};
use crds::TaskStoreCluster;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use kube::runtime::wait::await_condition;
use std::collections::BTreeSet;

/// The release of the second operator; its objects are named after it.
const SECOND: &str = "second";
const SECOND_LEASE: &str = "second-taskstore-operator";

/// A backup tool or `kubectl replace` takes the whole status: it is found again, and nothing is restarted.
pub async fn status_lost(story: Story) -> Result<()> {
    let (store, load) = loaded(&story, 3).await?;
    let (before, pods) = (identity(&store.get().await?), pod_uids(&store).await?);
    let volumes = ["get", "persistentvolumeclaims", "-o", "name"];
    let kept = story.kubectl(&volumes).await?;
    let removal = r#"[{"op": "remove", "path": "/status"}]"#;
    let name = format!("taskstorecluster/{}", store.name);
    story
        .kubectl(&[
            "patch",
            &name,
            "--subresource=status",
            "--type=json",
            "-p",
            removal,
        ])
        .await?;
    let found = store.ready(3, READY_LIMIT).await?;
    ensure!(
        before.is_some() && identity(&found) == before,
        "the identity was {before:?} and is {:?}",
        identity(&found)
    );
    ensure!(
        pod_uids(&store).await? == pods,
        "pods were made again for a lost status"
    );
    ensure!(
        story.kubectl(&volumes).await? == kept,
        "there are other volumes than before"
    );
    load.goes_on(100).await?;
    load.finish().await.map(drop)
}

/// Two releases have a Lease each, so both operators act on every cluster, also while it is scaled.
pub async fn two_at_once(story: Story) -> Result<()> {
    let values = story
        .cluster
        .helm(&[
            "get",
            "values",
            install::RELEASE,
            "--namespace",
            install::NAMESPACE,
            "--output=yaml",
        ])
        .await?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), values)?;
    let (chart, file) = (
        workspace().join("charts/taskstore"),
        file.path().to_string_lossy(),
    );
    let in_namespace = ["--namespace", &story.namespace];
    let chart = chart.to_string_lossy();
    let mut install = vec!["install", SECOND, &chart, "--values", &file, "--wait"];
    install.extend(in_namespace);
    let installed = story.cluster.helm(&install).await;
    let told = match installed {
        Ok(_) => scaled_by_two(&story).await,
        Err(error) => Err(error),
    };
    let mut remove = vec!["uninstall", SECOND, "--ignore-not-found", "--wait"];
    remove.extend(in_namespace);
    story.cluster.helm(&remove).await?;
    told
}

async fn scaled_by_two(story: &Story) -> Result<()> {
    let (store, load) = loaded(story, 3).await?;
    let leases: Api<Lease> = Api::namespaced(store.kube.clone(), &story.namespace);
    let held = |lease: Option<&Lease>| {
        let spec = lease.and_then(|lease| lease.spec.as_ref());
        spec.and_then(|spec| spec.holder_identity.as_deref())
            .is_some_and(|holder| !holder.is_empty())
    };
    tokio::time::timeout(READY_LIMIT, await_condition(leases, SECOND_LEASE, held))
        .await
        .context("the second operator never leads")??;
    let before = identity(&store.get().await?);
    for replicas in [5, 3] {
        let resource = format!("taskstorecluster/{}", store.name);
        let size = format!("--replicas={replicas}");
        story.kubectl(&["scale", &resource, &size]).await?;
        let healed = store.healed(replicas, READY_LIMIT).await?;
        ensure!(
            identity(&healed) == before,
            "the identity changed from {before:?} to {:?}",
            identity(&healed)
        );
        let voters = healed.status.and_then(|status| status.membership);
        let voters = voters.context("no membership")?.voters.len();
        ensure!(
            i32::try_from(voters)? == replicas,
            "{voters} voters for {replicas} replicas"
        );
        let gap = load.take_gap_ms();
        story.figures.add("two_operators_write_gap_ms", gap);
        load.goes_on(50).await?;
    }
    load.finish().await.map(drop)
}

/// Who the cluster is, for life.
fn identity(cluster: &TaskStoreCluster) -> Option<(String, u16)> {
    let identity = cluster.status.as_ref()?.identity.as_ref()?;
    Some((identity.cluster_id.clone(), identity.incarnation))
}

async fn pod_uids(store: &Store) -> Result<BTreeSet<String>> {
    let pods = store.pods().await?;
    Ok(pods
        .into_iter()
        .filter_map(|pod| pod.metadata.uid)
        .collect())
}
