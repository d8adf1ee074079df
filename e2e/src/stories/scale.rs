//! From three members to five and back, with an eviction asked for in each: it waits for the change.

use super::Story;
use super::made::loaded;
use crate::store::{READY_LIMIT, Store};
use anyhow::{Context, Result, bail, ensure};
use crds::TaskStoreCluster;
use crds::names;
use crds::status::{Operation, OperationKind};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, EvictParams};
use kube::runtime::wait::await_condition;
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
            tokio::time::sleep(EVICT_AGAIN).await;
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
    let budget = names::disruption_budget(&store.name);
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(store.kube.clone(), &store.namespace);
    let closed = |budget: Option<&PodDisruptionBudget>| {
        let status = budget.and_then(|budget| budget.status.as_ref());
        status.is_some_and(|status| status.disruptions_allowed == 0)
    };
    let closing = await_condition(budgets, &budget, closed);
    tokio::time::timeout(READY_LIMIT, closing)
        .await
        .context("the budget is never closed")??;
    let (refusals, was) = evict(store, pod).await?;
    ensure!(
        refusals > 0.0 || was == Was::Leaving,
        "{pod} was evicted although the budget was closed for the change"
    );
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

/// Whose pod was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Was {
    Staying,
    /// The scale-in had removed it already: its pod protects nothing any more.
    Leaving,
}

/// Asks until the eviction is granted; it must not be while the voters change.
async fn evict(store: &Store, pod: &str) -> Result<(f64, Was)> {
    let give_up = Instant::now() + READY_LIMIT;
    let mut refusals = 0.0;
    let kube = store.cluster.client_without_retries().await?;
    let pods: Api<Pod> = Api::namespaced(kube, &store.namespace);
    loop {
        match pods.evict(pod, &EvictParams::default()).await {
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
    let Some(operation) = operation(&cluster) else {
        return Ok((refusals, Was::Staying));
    };
    let mut leaving = operation.members.iter();
    if operation.kind == OperationKind::ScaleIn
        && leaving.any(|member| names::pod(&store.name, *member) == pod)
    {
        return Ok((refusals, Was::Leaving));
    }
    bail!("{pod} was evicted in the middle of {operation:?}")
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
