//! The leader is fenced under load: another one leads, the fenced one keeps its seat and serves nobody, and comes
//! back when the fence is lifted.

use super::Story;
use super::made::loaded;
use crate::store::{READY_LIMIT, is_ready};
use anyhow::{Context, Result, ensure};
use crds::TaskStoreCluster;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::wait::await_condition;
use std::time::Instant;

pub async fn leader_fenced(story: Story) -> Result<()> {
    let (store, load) = loaded(&story, 3).await?;
    let leader = store.leader().await?;
    let before = store.get().await?.status.context("no status")?;
    let fenced = before.members.iter().find(|member| member.pod == leader);
    let fenced = fenced.context("the leader is a member")?.id;
    load.take_gap_ms();
    let start = Instant::now();
    store.patch(&format!(r#"{{"fenced": [{fenced}]}}"#)).await?;
    let unready = |pod: Option<&Pod>| pod.is_some_and(|pod| !is_ready(pod));
    let unready = await_condition(store.pods_api(), &leader, unready);
    tokio::time::timeout(READY_LIMIT, unready)
        .await
        .context("the fenced member stays Ready")??;
    let another = |cluster: &TaskStoreCluster| {
        let status = cluster.status.as_ref();
        let now = status.and_then(|status| status.leader.as_ref());
        now.is_some_and(|now| *now != leader)
    };
    let found = store.until("another leader", READY_LIMIT, another).await?;
    let seconds = start.elapsed().as_secs_f64();
    story.figures.add("fence_seconds", seconds);
    load.goes_on(50).await?;
    story
        .figures
        .add("fence_leader_write_gap_ms", load.take_gap_ms());
    let voters = |cluster: TaskStoreCluster| {
        let known = cluster.status.and_then(|status| status.membership);
        known.map(|known| known.voters)
    };
    ensure!(
        voters(found) == before.membership.map(|known| known.voters),
        "the fenced member lost its seat"
    );
    store.patch(r#"{"fenced": []}"#).await?;
    store.pod_ready(&leader, READY_LIMIT).await?;
    store.healed(3, READY_LIMIT).await?;
    load.goes_on(50).await?;
    load.finish().await.map(drop)
}
