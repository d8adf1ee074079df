//! A cluster is deleted and made again: what we made goes, the volumes stay and are taken up.

use super::Story;
use super::load::Load;
use super::made::{loaded, small};
use crate::store::{KUBECTL_LIMIT, READY_LIMIT};
use anyhow::{Context, Result, ensure};
use std::time::Instant;

pub async fn delete_and_create(story: Story) -> Result<()> {
    let (store, load) = loaded(&story, 3).await?;
    let ledger = load.finish().await?;
    let identity = |cluster: crds::TaskStoreCluster| {
        let identity = cluster.status?.identity?;
        Some((identity.cluster_id, identity.incarnation))
    };
    let before = identity(store.get().await?).context("no identity")?;
    let volumes = ["get", "persistentvolumeclaims", "-o", "name"];
    let kept = story.kubectl(&volumes).await?;

    let start = Instant::now();
    let delete = ["delete", "taskstorecluster", &store.name, KUBECTL_LIMIT];
    story.kubectl(&delete).await?;
    story
        .kubectl(&["wait", "--for=delete", "pods", "--all", KUBECTL_LIMIT])
        .await?;
    let seconds = start.elapsed().as_secs_f64();
    story.figures.add("delete_seconds", seconds);
    ensure!(
        story.kubectl(&volumes).await? == kept,
        "volumes went with the cluster"
    );

    let start = Instant::now();
    story.apply(&small(&store.name, 3)).await?;
    let adopted = store.ready(3, READY_LIMIT).await?;
    let seconds = start.elapsed().as_secs_f64();
    story.figures.add("adoption_to_ready_seconds", seconds);
    ensure!(
        identity(adopted).as_ref() == Some(&before),
        "the new cluster is not the old one"
    );
    ledger
        .check(&store.client().await?)
        .await
        .with_context(|| format!("{} tasks of before the deletion", ledger.tasks()))?;
    let load = Load::start(&store, "later").await?;
    load.goes_on(100).await?;
    load.finish().await.map(drop)
}
