//! Members die one at a time; the others serve on, and the dead come back as who they were.

use super::Story;
use super::made::loaded;
use crate::local;
use crate::store::READY_LIMIT;
use anyhow::{Context, Result, ensure};
use crds::TaskStoreCluster;
use crds::names::MemberId;
use std::time::Instant;

/// A follower's pod crashes and is gone: another comes, with its volume and identity.
pub async fn pod_killed(story: Story) -> Result<()> {
    let (store, load) = loaded(&story, 3).await?;
    let before = identities(&store.get().await?);
    let leader = store.leader().await?;
    let (_, pod, _) = before
        .iter()
        .find(|(_, pod, _)| *pod != leader)
        .context("three members have a follower")?
        .clone();
    load.take_gap_ms();
    let start = Instant::now();
    store.kill(&pod).await?;
    let after = store.healed(3, READY_LIMIT).await?;
    let seconds = start.elapsed().as_secs_f64();
    story.figures.add("pod_kill_to_healed_seconds", seconds);
    let gap = load.take_gap_ms();
    story.figures.add("pod_kill_write_gap_ms", gap);
    ensure!(
        identities(&after) == before,
        "members changed from {before:?} to {:?}",
        identities(&after)
    );
    load.finish().await.map(drop)
}

/// The leader's pod is deleted: it hands over.
pub async fn leader_pod_deleted(story: Story) -> Result<()> {
    let (store, load) = loaded(&story, 3).await?;
    let leader = store.leader().await?;
    load.take_gap_ms();
    store.delete_pod(&leader).await?;
    store.healed(3, READY_LIMIT).await?;
    let gap = load.take_gap_ms();
    story.figures.add("leader_pod_deleted_write_gap_ms", gap);
    load.finish().await.map(drop)
}

/// The leader's process gets SIGKILL: the others elect, clients notice nothing but a pause.
pub async fn leader_killed(story: Story) -> Result<()> {
    let (store, load) = loaded(&story, 3).await?;
    let leader = store.pods_api().get(&store.leader().await?).await?;
    load.take_gap_ms();
    local::kill_pod(&leader.metadata.uid.context("a pod has a UID")?).await?;
    // It may well lead again: its process is started anew at once, in the same pod.
    load.goes_on(50).await?;
    let gap = load.take_gap_ms();
    story.figures.add("leader_kill_write_gap_ms", gap);
    store.healed(3, READY_LIMIT).await?;
    load.finish().await.map(drop)
}

/// Member id, pod and volume of every member.
fn identities(cluster: &TaskStoreCluster) -> Vec<(MemberId, String, Option<String>)> {
    let members = cluster.status.iter().flat_map(|status| &status.members);
    members
        .map(|member| (member.id, member.pod.clone(), member.pvc_uid.clone()))
        .collect()
}
