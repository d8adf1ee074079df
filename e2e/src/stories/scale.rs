//! From three members to five and back, with an eviction asked for in each: it waits for the change.

use super::Story;
use super::made::loaded;
use crate::store::{READY_LIMIT, Store};
use anyhow::{Context, Result, bail, ensure};
use crds::TaskStoreCluster;
use crds::status::{Operation, Step};
use kube::api::EvictParams;
use std::time::{Duration, Instant};

const EVICT_AGAIN: Duration = Duration::from_millis(500);
const TOO_MANY_REQUESTS: u16 = 429;

pub async fn out_and_in(story: Story) -> Result<()> {
    let (store, load) = loaded(&story, 3).await?;
    for (replicas, name) in [(5, "scale_3_to_5"), (3, "scale_5_to_3")] {
        let node = quiet_node(&store).await?;
        // As `kubectl drain` does first; then it asks for evictions until all are granted.
        story.cluster.kubectl(&["cordon", &node.name]).await?;
        let drained = scale_and_drain(&story, &store, replicas, name, &node.pod).await;
        story.cluster.kubectl(&["uncordon", &node.name]).await?;
        drained?;
        let healed = store.healed(replicas, READY_LIMIT).await?;
        let status = healed.status.context("a healed cluster has a status")?;
        let voters = status.membership.unwrap_or_default().voters.len();
        ensure!(
            i32::try_from(voters)? == replicas && store.pods().await?.len() == voters,
            "{voters} voters and {} pods for {replicas} replicas",
            store.pods().await?.len()
        );
        let gap = load.take_gap_ms();
        story.figures.add(&format!("{name}_write_gap_ms"), gap);
        load.goes_on(50).await?;
    }
    load.finish().await.map(drop)
}

async fn scale_and_drain(
    story: &Story,
    store: &Store,
    replicas: i32,
    name: &str,
    pod: &str,
) -> Result<()> {
    let start = Instant::now();
    story
        .kubectl(&[
            "scale",
            &format!("taskstorecluster/{}", store.name),
            &format!("--replicas={replicas}"),
        ])
        .await?;
    let begun = |cluster: &TaskStoreCluster| operation(cluster).is_some();
    store
        .until("the scaling begins", Duration::from_secs(30), begun)
        .await?;
    let refusals = evict(store, pod).await?;
    story
        .figures
        .add(&format!("{name}_evictions_refused"), refusals);
    store
        .until("the scaling ends", READY_LIMIT, |cluster| {
            let status = cluster.status.as_ref();
            operation(cluster).is_none() && status.is_some_and(|status| status.replicas == replicas)
        })
        .await?;
    story
        .figures
        .add(&format!("{name}_seconds"), start.elapsed().as_secs_f64());
    Ok(())
}

/// Asks until the eviction is granted; it must not be while the voters change.
async fn evict(store: &Store, pod: &str) -> Result<f64> {
    let give_up = Instant::now() + READY_LIMIT;
    let mut refusals = 0.0;
    loop {
        match store.pods_api().evict(pod, &EvictParams::default()).await {
            Ok(_) => break,
            Err(kube::Error::Api(status)) if status.code == TOO_MANY_REQUESTS => refusals += 1.0,
            // The scale-in may have taken this very member.
            Err(kube::Error::Api(status)) if status.is_not_found() => break,
            Err(error) => return Err(error).context("evict"),
        }
        if Instant::now() > give_up {
            bail!("the eviction of {pod} was refused {refusals} times and never granted");
        }
        tokio::time::sleep(EVICT_AGAIN).await;
    }
    let cluster = store.get().await?;
    if let Some(operation) = operation(&cluster) {
        ensure!(
            !matches!(operation.step, Step::Promote | Step::Remove),
            "{pod} was evicted in the middle of {operation:?}"
        );
    }
    Ok(refusals)
}

fn operation(cluster: &TaskStoreCluster) -> Option<&Operation> {
    cluster.status.as_ref()?.operation.as_ref()
}

struct Quiet {
    name: String,
    pod: String,
}

/// The node of exactly one member, a founder that does not lead: scaling in takes the newest.
async fn quiet_node(store: &Store) -> Result<Quiet> {
    let leader = store.leader().await?;
    let status = store.get().await?.status.context("no status")?;
    let on = |node: &Option<String>| {
        let members = status.members.iter();
        members.filter(|member| member.node == *node).count()
    };
    let member = status
        .members
        .iter()
        .filter(|member| member.pod != leader && member.node.is_some())
        .min_by_key(|member| (on(&member.node), member.id))
        .context("no member but the leader runs")?;
    Ok(Quiet {
        name: member.node.clone().unwrap_or_default(),
        pod: member.pod.clone(),
    })
}
