//! Volumes grow under their running members where their class can, and a condition says so where it cannot.

use super::Story;
use super::made::{loaded, on_class};
use crate::store::{READY_LIMIT, Store, says};
use anyhow::{Context, Result, ensure};
use crds::{ConditionType, Reason, TaskStoreCluster};
use kube::api::ListParams;

const SIZE: &str = "2Gi";
const GROW: &str = r#"{"storage": {"size": "2Gi"}}"#;

pub async fn volumes_grow(story: Story) -> Result<()> {
    let (store, load) = loaded(&story, 3).await?;
    store.patch(GROW).await?;
    let is_grown = |cluster: &TaskStoreCluster| {
        let status = cluster.status.as_ref();
        status.and_then(|status| status.observed_generation) == cluster.metadata.generation
            && says(cluster, ConditionType::Progressing, Reason::Settled)
    };
    store
        .until("volumes have grown", READY_LIMIT, is_grown)
        .await?;
    for claim in store.claims().list(&ListParams::default()).await?.items {
        let size = claim
            .status
            .and_then(|status| status.capacity?.remove("storage"));
        let size = size.context("a claim has a capacity")?;
        ensure!(size.0 == SIZE, "a volume has {}", size.0);
    }
    load.goes_on(50).await?;
    load.finish().await?;

    let fixed = Store::open(&story.cluster, &story.namespace, "fixed").await?;
    story
        .apply(&on_class(&fixed.name, 1, "local-fixed"))
        .await?;
    fixed.ready(1, READY_LIMIT).await?;
    fixed.patch(GROW).await?;
    let refused = |cluster: &TaskStoreCluster| {
        says(
            cluster,
            ConditionType::Degraded,
            Reason::VolumeGrowthRefused,
        )
    };
    fixed
        .until("it says that it cannot", READY_LIMIT, refused)
        .await
        .map(drop)
}
