//! From three members to five and back, with a node drained in each: the drain waits for the change and
//! then ends by itself.

use super::Story;
use super::history::History;
use super::made::loaded;
use crate::store::{READY_LIMIT, Store, is_ready};
use anyhow::{Context, Result, bail, ensure};
use crds::TaskStoreCluster;
use crds::names::{self, label};
use crds::status::{Operation, OperationKind};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use std::time::{Duration, Instant};

const ASK_AGAIN: Duration = Duration::from_millis(500);

pub async fn out_and_in(story: Story) -> Result<()> {
    let (store, load) = loaded(&story, 3).await?;
    for (replicas, name) in [(5, "scale_3_to_5"), (3, "scale_5_to_3")] {
        let quiet = quiet_node(&store).await?;
        // The drain does this too, but later: a new member's volume would be bound to the node for good.
        story.cluster.kubectl(&["cordon", &quiet.node]).await?;
        let drained = scale_and_drain(&story, &store, replicas, name, &quiet).await;
        story.cluster.kubectl(&["uncordon", &quiet.node]).await?;
        drained?;
        let healed = store.healed(replicas, READY_LIMIT).await?;
        let status = healed.status.context("a healed cluster has a status")?;
        let voters = status.membership.unwrap_or_default().voters.len();
        ensure!(
            i32::try_from(voters)? == replicas,
            "{voters} voters for {replicas} replicas"
        );
        pods_left(&store, voters).await?;
        let gap = load.take_gap_ms();
        story.figures.add(&format!("{name}_write_gap_ms"), gap);
        load.goes_on(50).await?;
    }
    load.finish().await.map(drop)
}

/// Retired members' pods go after the change is done.
async fn pods_left(store: &Store, wanted: usize) -> Result<()> {
    let gone = async {
        loop {
            let pods = store.pods().await?.len();
            if pods == wanted {
                return Ok(());
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    };
    tokio::time::timeout(READY_LIMIT, gone)
        .await
        .with_context(|| format!("there are never exactly {wanted} pods"))?
}

async fn scale_and_drain(
    story: &Story,
    store: &Store,
    replicas: i32,
    name: &str,
    quiet: &Quiet,
) -> Result<()> {
    let history = History::start(store).await?;
    let start = Instant::now();
    let resource = format!("taskstorecluster/{}", store.name);
    let size = format!("--replicas={replicas}");
    story.kubectl(&["scale", &resource, &size]).await?;
    let (begun, _) = history
        .clusters
        .first("the scaling begins", READY_LIMIT, |_, cluster| {
            cluster.spec.replicas == replicas && operation(cluster).is_some()
        })
        .await?;
    let id = store.get().await?.status.and_then(|status| status.identity);
    let id = id.context("no identity")?.cluster_id;
    let drain = drain(story, &quiet.node, &id)?;
    let (ended, _) = history
        .clusters
        .first("the scaling ends", READY_LIMIT, |at, cluster| {
            at > begun && operation(cluster).is_none()
        })
        .await?;
    let seconds = start.elapsed().as_secs_f64();
    story.figures.add(&format!("{name}_seconds"), seconds);
    // Some retries of kubectl, and a pod's end.
    let refusals = tokio::time::timeout(READY_LIMIT, drain)
        .await
        .context("the drain does not end by itself")???;
    let figure = format!("{name}_evictions_refused");
    story.figures.add(&figure, refusals as f64);
    let (granted, _) = history
        .pods
        .first("the pod is evicted", READY_LIMIT, |_, pod| {
            leaves(pod, &quiet.pod_uid)
        })
        .await?;
    let closed = |(at, budget): &(u64, PodDisruptionBudget)| {
        *at > begun && *at < ended && allows_none(budget)
    };
    ensure!(
        history.budgets.all().iter().any(closed),
        "the budget was never closed between {begun} and {ended}: {}",
        budgets(&history)
    );
    judge(store, &history, quiet, begun, granted)
}

/// kubectl goes on by itself until all is evicted; in the end it says how often it was refused.
fn drain(
    story: &Story,
    node: &str,
    cluster_id: &str,
) -> Result<tokio::task::JoinHandle<Result<usize>>> {
    // Other stories' pods stay where they are.
    let selector = format!("--pod-selector={}={cluster_id}", label::CLUSTER_ID);
    let mut command = story.cluster.kubectl_command(&[
        "drain",
        node,
        &selector,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
    ]);
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let child = command.spawn().context("start kubectl drain")?;
    Ok(tokio::spawn(async move {
        let done = child.wait_with_output().await?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "kubectl drain failed: {said}");
        Ok(said.matches("will retry after").count())
    }))
}

/// A pod that stays must not be evicted while the voters change. The status says that an operation has ended
/// before the budget opens, so the last status before a grant names none.
fn judge(store: &Store, history: &History, quiet: &Quiet, begun: u64, granted: u64) -> Result<()> {
    ensure!(
        granted > begun,
        "{} was evicted before the change",
        quiet.pod
    );
    let clusters = history.clusters.all();
    let before = clusters.iter().rev().find(|(at, _)| *at < granted);
    let Some(before) = before.and_then(|(_, cluster)| operation(cluster)) else {
        return Ok(());
    };
    let leaving = before
        .members
        .iter()
        .any(|member| names::pod(&store.name, *member) == quiet.pod);
    if before.kind == OperationKind::ScaleIn && leaving {
        return Ok(());
    }
    let pods = history.pods.all();
    let pod = pods
        .iter()
        .rev()
        .find(|(at, pod)| *at < granted && pod.metadata.uid.as_ref() == Some(&quiet.pod_uid));
    // A pod that is not Ready protects nothing: the API server always grants its eviction.
    let Some((_, pod)) = pod.filter(|(_, pod)| is_ready(pod)) else {
        return Ok(());
    };
    bail!(
        "{} was evicted at {granted}, in {before:?}\nits labels: {:?}\nits conditions: {:?}\nbudgets: {}",
        quiet.pod,
        pod.metadata.labels,
        pod.status
            .as_ref()
            .and_then(|status| status.conditions.as_ref()),
        budgets(history)
    )
}

fn leaves(pod: &Pod, uid: &str) -> bool {
    pod.metadata.uid.as_deref() == Some(uid) && pod.metadata.deletion_timestamp.is_some()
}

/// Closed, and the disruption controller has seen that.
fn allows_none(budget: &PodDisruptionBudget) -> bool {
    budget.status.as_ref().is_some_and(|status| {
        status.disruptions_allowed == 0 && status.observed_generation >= budget.metadata.generation
    })
}

fn budgets(history: &History) -> String {
    let all = history.budgets.all();
    let lines = all
        .iter()
        .map(|(at, budget)| format!("\n  {at}: {:?} {:?}", budget.spec, budget.status));
    lines.collect()
}

fn operation(cluster: &TaskStoreCluster) -> Option<&Operation> {
    cluster.status.as_ref()?.operation.as_ref()
}

struct Quiet {
    node: String,
    pod: String,
    pod_uid: String,
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
    let pod = store.pods_api().get(&member.pod).await?;
    Ok(Quiet {
        node: member.node.clone().unwrap_or_default(),
        pod: member.pod.clone(),
        pod_uid: pod.metadata.uid.context("a pod has a UID")?,
    })
}
