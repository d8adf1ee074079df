//! A member is lost for good, and another takes its place without anybody's help: its node has no power any
//! more, or its volume was deleted.

use super::Story;
use super::load::Load;
use super::made::small;
use crate::local;
use crate::store::{READY_LIMIT, Store, is_ready, operator_node};
use anyhow::{Context, Result, ensure};
use crds::TaskStoreCluster;
use crds::names::{self, MemberId};
use crds::status::MemberStatus;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams};
use std::time::Instant;

/// The shortest that the rules allow.
const AFTER_SECONDS: f64 = 10.0;

/// The power of a follower's node is cut: a new voter comes elsewhere while the kubelet of the old one is
/// silent. When the node is back, the old pod finds no way in.
pub async fn node_lost(story: Story) -> Result<()> {
    let (store, load) = impatient(&story).await?;
    let lost = follower(&store).await?;
    let node = lost.node.as_deref().context("a member runs on a node")?;
    let node = local::node(node)?;
    load.take_gap_ms();
    local::kill(node).await?;
    replaced(&story, &store, "node_lost", &lost).await?;
    load.goes_on(50).await?;
    let gap = load.take_gap_ms();
    story.figures.add("node_lost_write_gap_ms", gap);
    let old = store.pods_api().get(&lost.pod).await?;
    ensure!(
        old.metadata.deletion_timestamp.is_some(),
        "the old pod is not told to end"
    );
    retired(&store, &lost).await?;

    let before = voters(&store.get().await?);
    story.start_node(node).await?;
    store.pod_gone(&lost.pod).await?;
    load.goes_on(50).await?;
    retired(&store, &lost).await?;
    let healed = store.healed(3, READY_LIMIT).await?;
    ensure!(
        voters(&healed) == before,
        "the voters were {before:?} and are {:?}",
        voters(&healed)
    );
    load.finish().await.map(drop)
}

/// A follower's claim is deleted and its pod with it: a new voter comes, on a volume of its own.
pub async fn volume_lost(story: Story) -> Result<()> {
    let (store, load) = impatient(&story).await?;
    let lost = follower(&store).await?;
    load.take_gap_ms();
    store
        .claims()
        .delete(&lost.pod, &DeleteParams::default())
        .await
        .context("delete the claim")?;
    store
        .pods_api()
        .delete(&lost.pod, &DeleteParams::default())
        .await
        .context("delete the pod")?;
    replaced(&story, &store, "volume_lost", &lost).await?;
    store.healed(3, READY_LIMIT).await?;
    load.goes_on(50).await?;
    let gap = load.take_gap_ms();
    story.figures.add("volume_lost_write_gap_ms", gap);
    let old = store.pods_api().get_opt(&lost.pod).await?;
    ensure!(old.is_none(), "{} was made again", lost.pod);
    let volume = store.claims().get_opt(&lost.pod).await?;
    ensure!(volume.is_none(), "the volume of {} was made again", lost.id);
    load.finish().await.map(drop)
}

/// Three members under load that are replaced soon.
async fn impatient(story: &Story) -> Result<(Store, Load)> {
    let store = Store::open(&story.cluster, &story.namespace, "store").await?;
    let after = format!("  replacement: {{ after: {AFTER_SECONDS}s }}\n");
    story.apply(&(small(&store.name, 3) + &after)).await?;
    store.ready(3, READY_LIMIT).await?;
    let load = Load::start(&store, "load").await?;
    load.goes_on(100).await?;
    Ok((store, load))
}

/// One whose node the acting operator is not on.
async fn follower(store: &Store) -> Result<MemberStatus> {
    let leader = store.leader().await?;
    let busy = operator_node(&store.kube).await?;
    let status = store.get().await?.status.context("no status")?;
    let mut members = status.members.into_iter();
    members
        .find(|member| member.pod != leader && member.node != busy)
        .context("no follower has a node of its own")
}

/// Waits until a new voter has the place of a lost one, and is Ready.
async fn replaced(story: &Story, store: &Store, name: &str, lost: &MemberStatus) -> Result<()> {
    let start = Instant::now();
    let is_missed = |cluster: &TaskStoreCluster| {
        let mut members = cluster.status.iter().flat_map(|status| &status.members);
        members.any(|member| member.id == lost.id && member.lost_since.is_some())
    };
    store
        .until("the loss is noticed", READY_LIMIT, is_missed)
        .await?;
    let noticed = start.elapsed().as_secs_f64();
    story
        .figures
        .add(&format!("{name}_noticed_seconds"), noticed);
    let is_exchanged = |cluster: &TaskStoreCluster| {
        let voters = voters(cluster);
        voters.len() == 3 && !voters.contains(&lost.id)
    };
    let exchanged = store
        .until("a new voter", READY_LIMIT, is_exchanged)
        .await?;
    let seconds = start.elapsed().as_secs_f64() - noticed;
    ensure!(
        // The time of the loss is kept in whole seconds, rounded up.
        seconds > AFTER_SECONDS - 1.0,
        "replaced after only {seconds} s"
    );
    let figure = format!("{name}_after_to_voter_seconds");
    story.figures.add(&figure, seconds - AFTER_SECONDS);
    store.ready(3, READY_LIMIT).await?;
    for voter in voters(&exchanged) {
        let pod = store
            .pods_api()
            .get(&names::pod(&store.name, voter))
            .await?;
        ensure!(is_ready(&pod), "voter {voter} is not Ready");
    }
    Ok(())
}

/// Its volume is kept and never used again, and its certificate is gone.
async fn retired(store: &Store, lost: &MemberStatus) -> Result<()> {
    ensure!(
        store.is_retired(&lost.pod).await?,
        "the volume of {} is not retired",
        lost.id
    );
    let secrets: Api<Secret> = Api::namespaced(store.kube.clone(), &store.namespace);
    let name = names::member_secret(&store.name, lost.id);
    let secret = secrets.get_opt(&name).await?;
    ensure!(secret.is_none(), "the certificate {name} is still there");
    Ok(())
}

fn voters(cluster: &TaskStoreCluster) -> Vec<MemberId> {
    let status = cluster.status.as_ref();
    let membership = status.and_then(|status| status.membership.as_ref());
    membership.map_or_else(Vec::new, |known| known.voters.clone())
}
