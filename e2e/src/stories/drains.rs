//! Every node is drained and uncordoned in turn, under load, with three members.

use super::Story;
use super::made::loaded;
use crate::store::READY_LIMIT;
use anyhow::{Context, Result};
use crds::names::label;
use std::time::Instant;

pub async fn all_nodes(story: Story) -> Result<()> {
    let (store, load) = loaded(&story, 3).await?;
    let status = store.get().await?.status.context("no status")?;
    let id = status.identity.context("no identity")?.cluster_id;
    // Other stories' pods stay where they are.
    let selector = format!("--pod-selector={}={id}", label::CLUSTER_ID);
    let nodes = story
        .cluster
        .kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"])
        .await?;
    for node in nodes.split_whitespace() {
        load.take_gap_ms();
        let start = Instant::now();
        let drain = ["drain", node, &selector, "--timeout=120s"];
        let drained = story.cluster.kubectl(&drain).await;
        story.cluster.kubectl(&["uncordon", node]).await?;
        drained?;
        let seconds = start.elapsed().as_secs_f64();
        store.healed(3, READY_LIMIT).await?;
        story.figures.add("node_drain_seconds", seconds);
        story
            .figures
            .add("node_drain_write_gap_ms", load.take_gap_ms());
    }
    load.finish().await.map(drop)
}
