//! Stories about the local cluster itself: what all others stand on.

use super::Story;
use crate::bucket;
use crate::local::{self, Buckets, layout};
use crate::progress::say;
use crate::store::{KUBECTL_LIMIT, READY_LIMIT};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A pod with a volume; the sandbox program serves as its only container.
fn pod(name: &str, node: &str, class: &str) -> String {
    let image = layout::PAUSE_IMAGE;
    format!(
        "apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{ name: {name} }}
spec: {{ accessModes: [ReadWriteOnce], storageClassName: {class}, resources: {{ requests: {{ storage: 32Mi }} }} }}
---
apiVersion: v1
kind: Pod
metadata: {{ name: {name}, labels: {{ app: {name} }} }}
spec:
  nodeSelector: {{ kubernetes.io/hostname: {node} }}
  terminationGracePeriodSeconds: 1
  tolerations: [{{ operator: Exists }}]
  securityContext: {{ runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532, seccompProfile: {{ type: RuntimeDefault }} }}
  containers:
  - name: main
    image: {image}
    securityContext: {{ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{ drop: [ALL] }} }}
    volumeMounts: [{{ name: data, mountPath: /data }}]
  volumes: [{{ name: data, persistentVolumeClaim: {{ claimName: {name} }} }}]
"
    )
}

async fn ready(story: &Story, name: &str) -> Result<()> {
    story
        .kubectl(&[
            "wait",
            "--for=condition=Ready",
            &format!("pod/{name}"),
            KUBECTL_LIMIT,
        ])
        .await
        .map(drop)
}

/// Volumes of both classes are made and mounted, and a sized one grows, where the kernel lets us.
pub async fn pods_find_each_other(story: Story) -> Result<()> {
    let start = Instant::now();
    story.apply(&pod("folder", "worker-1", "local")).await?;
    story
        .apply(&pod("sized", "worker-2", "local-sized"))
        .await?;
    ready(&story, "folder").await?;
    ready(&story, "sized").await?;
    story
        .figures
        .add("two_pods_ready_seconds", start.elapsed().as_secs_f64());
    if !local::may_grow_volumes()? {
        say(
            "pods-find-each-other: no volume is grown, root on this machine lacks CAP_SYS_RESOURCE",
        );
        return Ok(());
    }
    story
        .kubectl(&[
            "patch",
            "pvc/sized",
            "--patch",
            r#"{"spec":{"resources":{"requests":{"storage":"64Mi"}}}}"#,
        ])
        .await?;
    story
        .kubectl(&[
            "wait",
            "--for=jsonpath={.status.capacity.storage}=64Mi",
            "pvc/sized",
            KUBECTL_LIMIT,
        ])
        .await?;
    Ok(())
}

/// A node loses its power and comes back: its pod runs again, on the same volume.
pub async fn node_returns(story: Story) -> Result<()> {
    let node = local::node("worker-2")?;
    story
        .apply(&pod("survivor", node.name, "local-sized"))
        .await?;
    ready(&story, "survivor").await?;
    let uid = story
        .kubectl(&["get", "pvc/survivor", "-o", "jsonpath={.spec.volumeName}"])
        .await?;
    local::kill(node).await?;
    story
        .cluster
        .kubectl(&[
            "wait",
            "--for=condition=Ready=Unknown",
            &format!("node/{}", node.name),
            KUBECTL_LIMIT,
        ])
        .await?;
    let start = Instant::now();
    story.start_node(node).await?;
    ready(&story, "survivor").await?;
    story.figures.add(
        "node_return_to_pod_ready_seconds",
        start.elapsed().as_secs_f64(),
    );
    let restarts = story
        .kubectl(&[
            "get",
            "pod/survivor",
            "-o",
            "jsonpath={.status.containerStatuses[0].restartCount}",
        ])
        .await?;
    ensure!(
        restarts.trim() != "0",
        "the pod was never restarted: its node did not go down"
    );
    let now = story
        .kubectl(&["get", "pvc/survivor", "-o", "jsonpath={.spec.volumeName}"])
        .await?;
    ensure!(uid == now, "the volume changed from {uid} to {now}");
    Ok(())
}

/// A node that hears nobody is noticed, and is Ready again when the cut ends.
pub async fn node_is_cut_off(story: Story) -> Result<()> {
    let node = local::node("worker-3")?;
    let name = format!("node/{}", node.name);
    local::cut(node).await?;
    story
        .cluster
        .kubectl(&[
            "wait",
            "--for=condition=Ready=Unknown",
            &name,
            KUBECTL_LIMIT,
        ])
        .await?;
    local::mend(node).await?;
    story
        .cluster
        .kubectl(&["wait", "--for=condition=Ready", &name, KUBECTL_LIMIT])
        .await?;
    Ok(())
}

/// A second `up` finds the cluster and changes nothing; its nodes promise no more than the machine has.
pub async fn up_twice(story: Story) -> Result<()> {
    let uid = [
        "get",
        "namespace/kube-system",
        "-o",
        "jsonpath={.metadata.uid}",
    ];
    let before = story.cluster.kubectl(&uid).await?;
    ensure!(
        local::up().await? == local::Found::Running,
        "the running cluster was not found"
    );
    ensure!(
        before == story.cluster.kubectl(&uid).await?,
        "this is another cluster than before"
    );
    let nodes: Api<Node> = Api::all(story.cluster.client().await?);
    let mut promised_milli = 0;
    for node in nodes.list(&ListParams::default()).await?.items {
        let status = node.status.context("a node has a status")?;
        let cpu = status.allocatable.unwrap_or_default().remove("cpu");
        promised_milli += milli(&cpu.context("a node promises CPU")?.0)?;
    }
    let has_milli = std::thread::available_parallelism()?.get() * 1000;
    ensure!(
        promised_milli > 0 && promised_milli <= has_milli,
        "the nodes promise {promised_milli} of {has_milli} thousandths of a CPU"
    );
    Ok(())
}

/// `500m` or `2`: how the API server writes CPUs.
fn milli(cpu: &str) -> Result<usize> {
    Ok(match cpu.strip_suffix('m') {
        Some(milli) => milli.parse()?,
        None => cpu.parse::<usize>()? * 1000,
    })
}

/// A moment of `up`, by what is on the machine then.
type Moment = (&'static str, fn() -> bool);

const MOMENTS: [Moment; 4] = [
    ("its first namespace", || {
        layout::namespace_file(layout::FABRIC).exists()
    }),
    ("the control plane's first process", || {
        layout::home(layout::CONTROL_NAME)
            .join("logs/init.log")
            .exists()
    }),
    ("the API server's first answer", || {
        layout::home(layout::WORKERS[0].name)
            .join("logs/init.log")
            .exists()
    }),
    ("the first containerd", || {
        layout::containerd_socket(layout::WORKERS[0].name).exists()
    }),
];
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// `down` keeps a bucket that it is told to keep. `up` is killed at several moments; `down` leaves nothing each
/// time, and a last `up` works.
pub async fn killed_up_leaves_nothing(story: Story) -> Result<()> {
    bucket::make()?;
    local::down(Buckets::Stay).await?;
    ensure!(
        local::leftovers()? == [format!("folder {}", layout::BUCKETS)] && bucket::folder().exists(),
        "besides a bucket, which was to be kept, these are left: {:?}",
        local::leftovers()?
    );
    // Not by its path: another build may have replaced the file since this program started.
    let own = format!("/proc/{}/exe", std::process::id());
    for (name, moment) in MOMENTS {
        let mut up = crate::process::program(&own, ["cluster", "up"]);
        let mut child = up
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start the harness itself")?;
        let start = Instant::now();
        while !moment() {
            ensure!(start.elapsed() < READY_LIMIT, "`up` never gets to {name}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        child.kill().await?;
        ensure!(
            !local::leftovers()?.is_empty(),
            "a kill at {name} leaves nothing to remove"
        );
        local::down(Buckets::Go)
            .await
            .with_context(|| format!("after a kill at {name}"))?;
        let left = local::leftovers()?;
        ensure!(
            left.is_empty(),
            "after a kill at {name} these are left: {left:?}"
        );
    }
    let start = Instant::now();
    ensure!(
        local::up().await? == local::Found::Made,
        "a cluster was there after down"
    );
    story
        .figures
        .add("cluster_up_seconds", start.elapsed().as_secs_f64());
    Ok(())
}
