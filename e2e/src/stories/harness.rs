//! Stories about the local cluster itself: what all others stand on.

use super::Story;
use crate::local;
use anyhow::{Context, Result, ensure};
use std::process::Stdio;
use std::time::Instant;

/// A pod with a volume; the sandbox program serves as its only container.
fn pod(name: &str, node: &str, class: &str) -> String {
    let image = local::layout::PAUSE_IMAGE;
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
            "--timeout=60s",
        ])
        .await
        .map(drop)
}

/// Volumes of both classes are made and mounted, and a sized one grows.
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
            "--timeout=30s",
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
            "--timeout=90s",
        ])
        .await?;
    let start = Instant::now();
    local::start(node).await?;
    story
        .cluster
        .kubectl(&[
            "wait",
            "--for=condition=Ready",
            &format!("node/{}", node.name),
            "--timeout=90s",
        ])
        .await?;
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
            "--timeout=90s",
        ])
        .await?;
    local::mend(node).await?;
    story
        .cluster
        .kubectl(&["wait", "--for=condition=Ready", &name, "--timeout=90s"])
        .await?;
    Ok(())
}

/// A second `up` finds the cluster and changes nothing.
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
    Ok(())
}

/// `up` is killed at several moments; `down` leaves nothing each time, and a last `up` works.
pub async fn killed_up_leaves_nothing(story: Story) -> Result<()> {
    local::down().await?;
    // Not by its path: another build may have replaced the file since this program started.
    let own = format!("/proc/{}/exe", std::process::id());
    for milliseconds in [150, 700, 2_000, 5_000] {
        let mut up = crate::process::program(&own, ["cluster", "up"]);
        let mut child = up
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start the harness itself")?;
        tokio::time::sleep(std::time::Duration::from_millis(milliseconds)).await;
        child.kill().await?;
        local::down()
            .await
            .with_context(|| format!("after a kill at {milliseconds} ms"))?;
        let left = local::leftovers()?;
        ensure!(
            left.is_empty(),
            "after a kill at {milliseconds} ms these are left: {left:?}"
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
