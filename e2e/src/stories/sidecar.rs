//! Members beside an app: what crashes or changes there takes no member down, and no voter away.

use super::Story;
use super::load::Load;
use crate::store::{READY_LIMIT, Store, is_ready};
use crate::{images, local};
use anyhow::{Context, Result, ensure};
use crds::names::MEMBER_CONTAINER;
use crds::status::Membership;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Instant;
use taskstore_api::{TaskStoreClient, v1};
use tokio::time::timeout;

const APP: &str = "app";
/// What each pod's init container tells the store, by the pod's name.
const STARTED: &str = "started";

/// The app's process is killed beside every member, its image changes, and the pod of the leader is deleted.
pub async fn app_crashes_and_changes(story: Story) -> Result<()> {
    let product = images::product().await?;
    let other = images::again(&product.node).await?;
    story.cluster.load(&other.archive).await?;
    let store = Store::open(&story.cluster, &story.namespace, "store").await?;
    let start = Instant::now();
    story
        .apply(&beside(&store.name, &product.node.reference).to_string())
        .await?;
    store.healed(3, READY_LIMIT).await?;
    let seconds = start.elapsed().as_secs_f64();
    story.figures.add("sidecar_ready_seconds", seconds);
    let client = store.client().await?;
    let told = told(&client).await?;
    ensure!(told == 3, "{told} apps told the store that they started");
    let load = Load::start(&store, "load").await?;
    load.goes_on(100).await?;

    let (members, voters) = (members(&store).await?, membership(&store).await?);
    load.take_gap_ms();
    for pod in store.pods().await? {
        crash_app(&store, &pod).await?;
    }
    store.healed(3, READY_LIMIT).await?;
    untouched(&store, &members, &voters, "the app crashed").await?;

    let start = Instant::now();
    let template = template(&product.node.reference, &other.reference);
    store
        .patch(&json!({ "template": template }).to_string())
        .await?;
    store.healed(3, READY_LIMIT).await?;
    let seconds = start.elapsed().as_secs_f64();
    story
        .figures
        .add("sidecar_app_image_change_seconds", seconds);
    untouched(&store, &members, &voters, "the app's image changed").await?;
    for pod in store.pods().await? {
        let spec = pod.spec.as_ref().context("a pod has a spec")?;
        let image = spec.containers[0].image.as_deref();
        ensure!(
            image == Some(other.reference.as_str()) && is_ready(&pod),
            "beside {:?} runs {image:?}",
            pod.metadata.name
        );
    }
    let gap = load.take_gap_ms();
    story.figures.add("sidecar_app_trouble_write_gap_ms", gap);

    load.goes_on(50).await?;
    load.take_gap_ms();
    let leader = store.leader().await?;
    store.delete_pod(&leader).await?;
    store.healed(3, READY_LIMIT).await?;
    let gap = load.take_gap_ms();
    story
        .figures
        .add("sidecar_leader_pod_deleted_write_gap_ms", gap);
    ensure!(
        membership(&store).await?.voters == voters.voters,
        "the voters changed from {:?}",
        voters.voters
    );
    load.goes_on(50).await?;
    load.finish().await.map(drop)
}

/// Works on its local member for as long as it runs, and says once that it starts. It knows the member by what
/// the operator puts into its environment and by nothing else.
fn template(init_image: &str, image: &str) -> Value {
    let security = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    let resources = json!({
        "requests": {"cpu": "10m", "memory": "32Mi"},
        "limits": {"cpu": "50m", "memory": "128Mi"},
    });
    let pod = json!({"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
    json!({"spec": {
        "terminationGracePeriodSeconds": 1,
        "initContainers": [{
            "name": "tell", "image": init_image, "env": [pod],
            "args": ["task", "create", STARTED, "--id=$(POD)", "--namespace=apps"],
            "securityContext": security,
        }],
        "containers": [{
            "name": APP, "image": image,
            "args": [
                "bench", "--existing", "--rows=cycle", "--clients=1", "--payload-bytes=64",
                "--seconds=86400", "--dir=/scratch",
            ],
            "resources": resources,
            "securityContext": security,
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        }],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    }})
}

fn beside(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "taskstore.dev/v1alpha1",
        "kind": "TaskStoreCluster",
        "metadata": {"name": name},
        "spec": {
            "replicas": 3,
            "storage": {"size": "1Gi", "logBudget": "256Mi"},
            "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
            "template": template(image, image),
        },
    })
}

async fn told(client: &TaskStoreClient) -> Result<u64> {
    let request = v1::QueueStatsRequest {
        namespace: "apps".to_owned(),
        queue: STARTED.to_owned(),
    };
    let stats = client.queue_stats(request).await.context("queue stats")?;
    Ok(stats.available)
}

/// Kills the app's process and waits until the kubelet has started it anew.
async fn crash_app(store: &Store, pod: &Pod) -> Result<()> {
    let name = pod.metadata.name.clone().context("a pod has a name")?;
    let uid = pod.metadata.uid.as_deref().context("a pod has a UID")?;
    let id = container_id(pod, APP).with_context(|| format!("no app runs in {name}"))?;
    let (_, bare) = id
        .split_once("://")
        .context("a container id has a scheme")?;
    local::kill_container(uid, bare).await?;
    let is_back = |found: Option<&Pod>| {
        found.is_some_and(|found| {
            let now = container_id(found, APP);
            is_ready(found) && now.is_some_and(|now| now != id)
        })
    };
    timeout(
        READY_LIMIT,
        await_condition(store.pods_api(), &name, is_back),
    )
    .await
    .with_context(|| format!("the app in {name} did not come back"))??;
    Ok(())
}

/// Container and restarts of each pod's member.
async fn members(store: &Store) -> Result<BTreeMap<String, (Option<String>, i32)>> {
    let pods = store.pods().await?;
    let member = |pod: &Pod| {
        let status = container(pod, MEMBER_CONTAINER)?;
        let name = pod.metadata.name.clone()?;
        Some((name, (status.container_id.clone(), status.restart_count)))
    };
    Ok(pods.iter().filter_map(member).collect())
}

async fn membership(store: &Store) -> Result<Membership> {
    let status = store.get().await?.status.unwrap_or_default();
    status.membership.context("the store has a membership")
}

/// The same containers, never restarted, and not one change of the membership.
async fn untouched(
    store: &Store,
    before: &BTreeMap<String, (Option<String>, i32)>,
    voters: &Membership,
    what: &str,
) -> Result<()> {
    let now = members(store).await?;
    ensure!(
        now == *before && now.len() == 3 && now.values().all(|(_, restarts)| *restarts == 0),
        "{what}, and members went from {before:?} to {now:?}"
    );
    let after = membership(store).await?;
    ensure!(
        after == *voters,
        "{what}, and the membership went from {voters:?} to {after:?}"
    );
    Ok(())
}

fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten())
        .find(|known| known.name == name)
}

fn container_id(pod: &Pod, name: &str) -> Option<String> {
    container(pod, name)?.container_id.clone()
}
