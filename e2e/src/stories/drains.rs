//! Nodes are drained and uncordoned under load: each in turn, and one that has two voters.

use super::Story;
use super::made::loaded;
use crate::store::{KUBECTL_LIMIT, READY_LIMIT, Store, says};
use anyhow::{Context, Result, bail, ensure};
use crds::names::label;
use crds::{ConditionType, Reason, TaskStoreCluster};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, EvictParams, ListParams};
use std::time::Instant;

const TOO_MANY_REQUESTS: u16 = 429;
/// On so many nodes five members need one node twice.
const NODES: usize = 4;

pub async fn all_nodes(story: Story) -> Result<()> {
    let (store, load) = loaded(&story, 3).await?;
    let status = store.get().await?.status.context("no status")?;
    let id = status.identity.context("no identity")?.cluster_id;
    // Other stories' pods stay where they are.
    let selector = format!("--pod-selector={}={id}", label::CLUSTER_ID);
    for node in &schedulable(&story).await? {
        load.take_gap_ms();
        let start = Instant::now();
        let drain = ["drain", node, &selector, KUBECTL_LIMIT];
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

/// A node is drained for good and its volume cannot follow: the spec lets another member take the place at once.
pub async fn replaced(story: Story) -> Result<()> {
    let (store, load) = loaded(&story, 3).await?;
    store
        .patch(r#"{"replacement": {"onDrain": "Replace"}}"#)
        .await?;
    let leader = store.leader().await?;
    let before = store.get().await?.status.context("no status")?.members;
    let drained = before.iter().find(|member| member.pod != leader);
    let drained = drained.context("no follower")?;
    let node = drained.node.as_deref().context("it runs on a node")?;
    load.take_gap_ms();
    let start = Instant::now();
    story.cluster.kubectl(&["cordon", node]).await?;
    let gone = async {
        let kube = story.cluster.client().await?;
        let pods: Api<Pod> = Api::namespaced(kube, &store.namespace);
        pods.evict(&drained.pod, &EvictParams::default()).await?;
        let is_replaced = |cluster: &TaskStoreCluster| {
            let status = cluster.status.as_ref();
            let known = status.and_then(|status| status.membership.as_ref());
            known
                .is_some_and(|known| known.voters.len() == 3 && !known.voters.contains(&drained.id))
        };
        store
            .until("another voter", READY_LIMIT, is_replaced)
            .await?;
        let seconds = start.elapsed().as_secs_f64();
        story.figures.add("drain_to_new_voter_seconds", seconds);
        store.healed(3, READY_LIMIT).await.map(drop)
    };
    let gone = gone.await;
    story.cluster.kubectl(&["uncordon", node]).await?;
    gone?;
    story
        .figures
        .add("drain_replaced_write_gap_ms", load.take_gap_ms());
    load.finish().await.map(drop)
}

/// Nodes that may take pods.
async fn schedulable(story: &Story) -> Result<Vec<String>> {
    let nodes: Api<Node> = Api::all(story.cluster.client().await?);
    let open = nodes.list(&ListParams::default()).await?.items.into_iter();
    let open = open.filter(|node| {
        let spec = node.spec.clone().unwrap_or_default();
        spec.unschedulable != Some(true) && spec.taints.unwrap_or_default().is_empty()
    });
    Ok(open.filter_map(|node| node.metadata.name).collect())
}

async fn mark(story: &Story, how: &str, nodes: &[String]) -> Result<()> {
    for node in nodes {
        story.cluster.kubectl(&[how, node]).await?;
    }
    Ok(())
}

/// With five members on four nodes one node has two voters: a drain gets one of them, waits for the
/// other while a condition says so, and both are back after the node is uncordoned.
pub async fn two_voters_on_a_node(story: Story) -> Result<()> {
    // Further nodes are closed while the members are placed.
    let nodes = schedulable(&story).await?;
    let others = nodes.get(NODES..).unwrap_or_default();
    mark(&story, "cordon", others).await?;
    let made = loaded(&story, 5).await;
    mark(&story, "uncordon", others).await?;
    let (store, load) = made?;
    let status = store.get().await?.status.context("no status")?;
    let on = |node: &str| -> Vec<String> {
        let members = status.members.iter();
        members
            .filter(|member| member.node.as_deref() == Some(node))
            .map(|member| member.pod.clone())
            .collect()
    };
    let nodes = status
        .members
        .iter()
        .filter_map(|member| member.node.as_deref());
    let node = nodes
        .max_by_key(|node| on(node).len())
        .context("no member has a node")?;
    let pods = on(node);
    ensure!(pods.len() > 1, "every member has a node of its own");

    story.cluster.kubectl(&["cordon", node]).await?;
    let waited = one_goes_one_waits(&story, &store, &pods).await;
    story.cluster.kubectl(&["uncordon", node]).await?;
    waited?;
    store.healed(5, READY_LIMIT).await?;
    story
        .figures
        .add("two_voters_drain_write_gap_ms", load.take_gap_ms());
    load.finish().await.map(drop)
}

async fn one_goes_one_waits(story: &Story, store: &Store, pods: &[String]) -> Result<()> {
    let kube = story.cluster.client_without_retries().await?;
    let api: Api<Pod> = Api::namespaced(kube, &store.namespace);
    api.evict(&pods[0], &EvictParams::default())
        .await
        .context("the first eviction")?;
    match api.evict(&pods[1], &EvictParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == TOO_MANY_REQUESTS => {}
        other => bail!("the second eviction was not refused: {other:?}"),
    }
    let waits =
        |cluster: &TaskStoreCluster| says(cluster, ConditionType::Degraded, Reason::DrainWaiting);
    store
        .until("a condition about the drain", READY_LIMIT, waits)
        .await?;
    match api.evict(&pods[1], &EvictParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == TOO_MANY_REQUESTS => Ok(()),
        other => bail!("the second eviction was not refused for long: {other:?}"),
    }
}
