//! Starts and stops the namespaces that play machines: the control plane's and each worker's.

use super::layout::{
    BUCKETS, CONTROL, CONTROL_NAME, S3, S3_ACCESS_KEY_ID, S3_NAME, S3_PORT, SERVICES, STATE,
    Worker, containerd_socket, home, namespace_file, state,
};
use super::{cgroups, network};
use crate::process::{output, program};
use anyhow::{Context, Result};
use std::process::Stdio;

pub const CONTROL_DAEMONS: &[&str] = &[
    "init",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "coredns",
    "kube-proxy",
    "local-provisioner",
];
pub const S3_DAEMONS: &[&str] = &["init", "versitygw"];
pub const WORKER_DAEMONS: &[&str] = &["init", "containerd", "kubelet", "kube-proxy"];

/// Shares the machine's mounts: the provisioner's are to be seen by all nodes.
const SHARING_UNSHARE: &str = "unshare --pid --fork --kill-child";
const WORKER_UNSHARE: &str =
    "unshare --pid --fork --kill-child --mount --propagation slave --mount-proc --uts --ipc";

pub async fn start_control() -> Result<()> {
    let environment = [
        ("NODE", CONTROL_NAME),
        ("ADDRESS", CONTROL),
        ("SERVICES", SERVICES),
    ];
    boot(
        CONTROL_NAME,
        CONTROL_DAEMONS,
        SHARING_UNSHARE,
        "control.sh",
        &environment,
    )
    .await
}

/// Its namespace must exist; the buckets are as they were left.
pub async fn start_s3() -> Result<()> {
    let listen = format!("{S3}:{S3_PORT}");
    let environment = [
        ("LISTEN", listen.as_str()),
        ("BUCKETS", BUCKETS),
        ("ACCESS_KEY_ID", S3_ACCESS_KEY_ID),
    ];
    boot(S3_NAME, S3_DAEMONS, SHARING_UNSHARE, "s3.sh", &environment).await
}

/// A worker's namespace must exist; its disk is as it was left.
pub async fn start_worker(worker: &Worker) -> Result<()> {
    let environment = [
        ("NODE", worker.name),
        ("ADDRESS", worker.address),
        ("ZONE", worker.zone),
    ];
    boot(
        worker.name,
        WORKER_DAEMONS,
        WORKER_UNSHARE,
        "worker.sh",
        &environment,
    )
    .await
}

/// A power cut: the cable first, so that nobody hears a dying process close its connections.
pub async fn kill(name: &str) -> Result<()> {
    network::unplug(name).await?;
    cgroups::kill(Some(name)).await?;
    network::remove_namespace(name).await?;
    cgroups::remove(Some(name))
}

/// Daemons of a machine that do not run now.
pub fn missing(name: &str, daemons: &[&'static str]) -> Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    for daemon in daemons {
        if cgroups::processes(Some(&format!("{name}/{daemon}")))?.is_empty() {
            missing.push(*daemon);
        }
    }
    Ok(missing)
}

/// Imports an image archive into one node's runtime.
pub async fn import(worker: &Worker, archive: &std::path::Path) -> Result<()> {
    let mut ctr = program("ctr", ["--namespace", "k8s.io", "--address"]);
    ctr.arg(containerd_socket(worker.name))
        .args(["images", "import"])
        .arg(archive);
    output(&mut ctr).await.map(drop)
}

async fn boot(
    name: &str,
    daemons: &[&str],
    unshare: &str,
    script: &str,
    environment: &[(&str, &str)],
) -> Result<()> {
    let cgroup = cgroups::create(name, daemons)?;
    // In the cgroup before anything else: from its first moment on the machine can be found and killed.
    let enter = format!(
        "echo 0 >{cgroup}/init/cgroup.procs && exec setsid nsenter --net={net} {unshare} bash {STATE}/config/{script}",
        cgroup = cgroup.display(),
        net = namespace_file(name).display(),
    );
    let log = std::fs::File::create(home(name).join("logs/init.log"))?;
    let mut command = program("setsid", ["--fork", "sh", "-c", &enter]);
    command
        .env("STATE", state())
        .env("CGROUP", &cgroup)
        .env("HOME_FOLDER", home(name))
        .envs(environment.iter().copied())
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let done = command
        .status()
        .await
        .with_context(|| format!("start {name}"))?;
    anyhow::ensure!(
        done.success(),
        "starting {name} failed, see {}",
        home(name).join("logs/init.log").display()
    );
    Ok(())
}
