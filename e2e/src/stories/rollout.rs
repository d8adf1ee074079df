//! A changed spec reaches running members under load: one at a time, the leader last.

use super::Story;
use super::history::History;
use super::made::loaded;
use crate::images;
use crate::store::{READY_LIMIT, Store, is_ready};
use anyhow::{Context, Result, ensure};
use crds::conditions::get;
use crds::names::annotation;
use crds::{ConditionType, TaskStoreCluster};
use k8s_openapi::api::core::v1::Pod;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// The same program under another tag: pods, their UIDs and nodes stay, only containers restart.
pub async fn image_of_three(story: Story) -> Result<()> {
    roll_image(&story, 3).await
}

/// The same with five.
pub async fn image_of_five(story: Story) -> Result<()> {
    roll_image(&story, 5).await
}

async fn roll_image(story: &Story, replicas: u32) -> Result<()> {
    let product = images::product().await?;
    let other = images::again(&product.node).await?;
    story.cluster.load(&other.archive).await?;
    let image = other.reference.as_str();
    let (store, load) = loaded(story, replicas).await?;
    let before = places(&store).await?;
    let leader = store.leader().await?;
    load.take_gap_ms();
    let seen = roll(&store, replicas, &format!(r#"{{"image": "{image}"}}"#)).await?;
    let gap = load.take_gap_ms();
    let figure = format!("rolling_image_change_of_{replicas}");
    story
        .figures
        .add(&format!("{figure}_seconds"), seen.seconds);
    story.figures.add(&format!("{figure}_write_gap_ms"), gap);
    ensure!(
        places(&store).await? == before,
        "pods or their nodes changed: {before:?} and now {:?}",
        places(&store).await?
    );
    for pod in store.pods().await? {
        let spec = pod.spec.as_ref().context("a pod has a spec")?;
        ensure!(
            spec.containers[0].image.as_deref() == Some(image) && restarts(&pod) == 1,
            "{:?} was restarted {} times",
            spec.containers[0].image,
            restarts(&pod)
        );
    }
    seen.judge(replicas, &leader)?;
    load.goes_on(50).await?;
    load.finish().await.map(drop)
}

/// Other resources: every pod is made again, with its volume and identity.
pub async fn resources(story: Story) -> Result<()> {
    let (store, load) = loaded(&story, 3).await?;
    let (before, volumes) = (places(&store).await?, volumes(&store.get().await?));
    let leader = store.leader().await?;
    load.take_gap_ms();
    let change = r#"{"resources": {"requests": {"cpu": "30m", "memory": "64Mi"}}}"#;
    let seen = roll(&store, 3, change).await?;
    let gap = load.take_gap_ms();
    story
        .figures
        .add("rolling_change_of_3_seconds", seen.seconds);
    story.figures.add("rolling_change_of_3_write_gap_ms", gap);
    let after = places(&store).await?;
    ensure!(
        before.keys().eq(after.keys())
            && before
                .values()
                .all(|(uid, _)| after.values().all(|(now, _)| now != uid)),
        "not every pod was made again under its name: {before:?} and now {after:?}"
    );
    ensure!(
        self::volumes(&store.get().await?) == volumes,
        "members or volumes changed from {volumes:?}"
    );
    seen.judge(3, &leader)?;
    load.goes_on(50).await?;
    load.finish().await.map(drop)
}

/// An image that is nowhere stops at the first member, says why, and a good one goes on from there.
pub async fn bad_image_then_fix(story: Story) -> Result<()> {
    let (store, load) = loaded(&story, 3).await?;
    let good = image_of_first(&store).await?;
    let history = History::start(&store).await?;
    let bad = "taskstore.local/taskstore:nowhere";
    store.patch(&format!(r#"{{"image": "{bad}"}}"#)).await?;
    let says_why = |cluster: &TaskStoreCluster| {
        let conditions = cluster.status.iter().flat_map(|status| &status.conditions);
        let progressing = get(
            &conditions.cloned().collect::<Vec<_>>(),
            ConditionType::Progressing,
        )
        .cloned();
        progressing.is_some_and(|known| known.status == "True" && known.message.contains("Image"))
    };
    let stopped = store
        .until("a condition about the image", READY_LIMIT, says_why)
        .await?;
    let conditions = stopped.status.unwrap_or_default().conditions;
    let words = get(&conditions, ConditionType::Progressing).map(|known| known.message.clone());
    crate::progress::say(&format!(
        "bad-image-then-fix: {}",
        words.unwrap_or_default()
    ));
    load.goes_on(100).await?;
    let named = |pod: &Pod| image_in(pod) == Some(bad);
    let changed = store.pods().await?.iter().filter(|pod| named(pod)).count();
    ensure!(changed == 1, "{changed} members got the bad image");
    let start = Instant::now();
    store.patch(r#"{"image": null}"#).await?;
    store.healed(3, READY_LIMIT).await?;
    story
        .figures
        .add("bad_image_fixed_seconds", start.elapsed().as_secs_f64());
    for pod in store.pods().await? {
        ensure!(
            image_in(&pod) == Some(good.as_str()),
            "{:?} runs",
            image_in(&pod)
        );
    }
    let down = most_down(&history, 3);
    ensure!(down == 1, "{down} members were down at once");
    story
        .figures
        .add("bad_image_then_fix_write_gap_ms", load.take_gap_ms());
    load.finish().await.map(drop)
}

struct Seen {
    seconds: f64,
    history: History,
}

/// Patches the spec and waits until nothing is left to do.
async fn roll(store: &Store, replicas: u32, change: &str) -> Result<Seen> {
    let history = History::start(store).await?;
    let start = Instant::now();
    store.patch(change).await?;
    store.healed(i32::try_from(replicas)?, READY_LIMIT).await?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Seen { seconds, history })
}

impl Seen {
    /// One member down at a time, each once, and who led at first as the last.
    fn judge(&self, replicas: u32, leader: &str) -> Result<()> {
        let replicas = usize::try_from(replicas)?;
        let down = most_down(&self.history, replicas);
        ensure!(
            down == 1,
            "{down} members were down at once:{}",
            told(&self.history)
        );
        let order = turns(&self.history);
        let different: BTreeSet<&String> = order.iter().collect();
        ensure!(
            order.len() == replicas && different.len() == replicas,
            "members took their turns in this order: {order:?}"
        );
        ensure!(
            order.last().map(String::as_str) == Some(leader),
            "{leader} led, and the order was {order:?}"
        );
        Ok(())
    }
}

/// Pods whose turn a rollout recorded, in their order.
fn turns(history: &History) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for (_, cluster) in history.clusters.all() {
        let name = cluster.metadata.name.clone().unwrap_or_default();
        let operation = cluster.status.and_then(|status| status.operation);
        let member = operation.and_then(|operation| operation.members.first().copied());
        let Some(member) = member else { continue };
        let pod = crds::names::pod(&name, member);
        if order.last() != Some(&pod) {
            order.push(pod);
        }
    }
    order
}

/// So many members were down at one moment: their container had not yet come to be Ready, was gone, or was
/// told to go. Once it was Ready it counts as up while it runs: after a restart in the same pod the kubelet
/// takes Ready back for a moment, until its startup probe has run for the new container as well.
fn most_down(history: &History, replicas: usize) -> usize {
    let mut was_ready = BTreeSet::new();
    let mut up: BTreeMap<String, bool> = BTreeMap::new();
    let mut writes = history.pods.all();
    writes.sort_by_key(|(at, _)| *at);
    let mut most = 0;
    for (_, pod) in writes {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let is_leaving = pod.metadata.deletion_timestamp.is_some();
        let running = running_container(&pod).filter(|_| !is_leaving);
        if is_ready(&pod) {
            was_ready.extend(running.clone());
        }
        let is_up = running.is_some_and(|container| was_ready.contains(&container));
        up.insert(name, is_up);
        if up.len() == replicas {
            most = most.max(up.values().filter(|is_up| !**is_up).count());
        }
    }
    most
}

/// Not one that a changed image is about to replace.
fn running_container(pod: &Pod) -> Option<String> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let known = containers.first()?;
    let is_running = known.state.as_ref()?.running.is_some();
    let annotations = pod.metadata.annotations.as_ref();
    let replaced = annotations.and_then(|known| known.get(annotation::REPLACED_CONTAINER));
    let container = known.container_id.clone();
    container.filter(|id| is_running && Some(id) != replaced)
}

/// Every write of a pod, as far as its turn is told by it.
fn told(history: &History) -> String {
    let mut writes = history.pods.all();
    writes.sort_by_key(|(at, _)| *at);
    let lines = writes.iter().map(|(at, pod)| {
        let status = pod.status.as_ref();
        let containers = status.and_then(|status| status.container_statuses.as_ref());
        let containers: Vec<_> = containers
            .into_iter()
            .flatten()
            .map(|known| (&known.container_id, known.ready, &known.state))
            .collect();
        let replaced = (pod.metadata.annotations.as_ref())
            .and_then(|known| known.get(annotation::REPLACED_CONTAINER));
        format!(
            "\n  {at}: {:?} ready={} replaced={replaced:?} {containers:?}",
            pod.metadata.name,
            is_ready(pod)
        )
    });
    lines.collect()
}

/// UID and node of each pod.
async fn places(store: &Store) -> Result<BTreeMap<String, (String, String)>> {
    let pods = store.pods().await?.into_iter();
    let place = |pod: Pod| {
        let node = pod.spec.and_then(|spec| spec.node_name);
        let (name, uid) = (pod.metadata.name, pod.metadata.uid);
        (
            name.unwrap_or_default(),
            (uid.unwrap_or_default(), node.unwrap_or_default()),
        )
    };
    Ok(pods.map(place).collect())
}

fn volumes(cluster: &TaskStoreCluster) -> Vec<(String, Option<String>)> {
    let members = cluster.status.iter().flat_map(|status| &status.members);
    members
        .map(|member| (member.pod.clone(), member.pvc_uid.clone()))
        .collect()
}

fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    containers
        .into_iter()
        .flatten()
        .map(|container| container.restart_count)
        .sum()
}

fn image_in(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.containers.first()?.image.as_deref()
}

async fn image_of_first(store: &Store) -> Result<String> {
    let pods = store.pods().await?;
    let image = pods.first().and_then(image_in);
    Ok(image.context("a pod has an image")?.to_owned())
}
