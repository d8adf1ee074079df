//! A real Kubernetes on this machine: upstream's components, containerd, four workers in three
//! zones, and an S3 server beside it. Every machine of the cluster is a set of namespaces, so each can be
//! killed or cut off, and nothing outlives `down` but buckets, when it is told to keep them.

mod certs;
mod cgroups;
mod config;
pub mod layout;
mod machines;
mod network;
mod sysctl;
mod teardown;

use crate::binaries::{self, Binaries};
use crate::process::{feed, output, program};
use crate::progress::{say, step};
use crate::{cache, host, images};
use anyhow::{Context, Result, bail};
use layout::{CONTROL_NAME, S3_NAME, WORKERS, Worker};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

pub use layout::Worker as Node;
pub use teardown::{Buckets, leftovers};

const API_LIMIT: Duration = Duration::from_secs(90);
const READY_LIMIT: &str = "--timeout=120s";
/// Less room than this is none.
const FILLED_BYTES: u64 = 1 << 20;
const POLL: Duration = Duration::from_millis(100);

/// Whether `up` made the cluster or found it.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Found {
    Made,
    Running,
}

/// Brings the cluster up, whatever was there before: nothing, half of one, or a running one.
pub async fn up() -> Result<Found> {
    host::prepare().await?;
    let binaries = binaries::local().await?;
    let pause = images::from_binary(
        "pause",
        layout::PAUSE_IMAGE,
        &binaries.pause,
        &images::sources().join("kubernetes/pause/Containerfile"),
    )
    .await?;
    let _lock = lock().await?;
    if usable(&binaries)? {
        revive(&pause).await?;
        return Ok(Found::Running);
    }
    if !teardown::leftovers_beside_buckets()?.is_empty() {
        let down = teardown::down(Buckets::Stay);
        step("Remove what an earlier cluster left", down).await?;
    }
    fs::create_dir_all(layout::state())?;
    create(&binaries, &pause).await?;
    fs::write(layout::ready_mark(), mark(&binaries)?)?;
    Ok(Found::Made)
}

/// Takes the cluster down, in whatever state it is.
pub async fn down(buckets: Buckets) -> Result<()> {
    let _lock = lock().await?;
    teardown::down(buckets).await
}

/// One line per machine; an error when the cluster is not whole.
pub async fn status() -> Result<String> {
    if !layout::ready_mark().exists() {
        let left = teardown::leftovers_beside_buckets()?;
        if left.is_empty() {
            bail!("there is no local cluster: `cargo cluster up` makes one");
        }
        bail!(
            "the local cluster is not whole: `cargo cluster up` makes it anew, `cargo cluster down` removes {} things",
            left.len()
        );
    }
    let mut text = String::new();
    let mut whole = machine(&mut text, CONTROL_NAME, machines::CONTROL_DAEMONS)?;
    whole &= machine(&mut text, S3_NAME, machines::S3_DAEMONS)?;
    for worker in &WORKERS {
        whole &= machine(&mut text, worker.name, machines::WORKER_DAEMONS)?;
    }
    let nodes = [
        "get",
        "nodes",
        "--label-columns=topology.kubernetes.io/zone",
        "--request-timeout=5s",
    ];
    match kubectl(&nodes).await {
        Ok(table) => text.push_str(&table),
        Err(error) => bail!("{text}\nthe API server does not answer: {error:#}"),
    }
    if !whole {
        bail!("{text}\nsome daemons do not run: `cargo cluster up` starts them");
    }
    Ok(text)
}

/// Imports an image archive into every node that runs.
pub async fn load(archive: &Path) -> Result<()> {
    let running = WORKERS
        .iter()
        .filter(|worker| layout::namespace_file(worker.name).exists());
    futures::future::try_join_all(running.map(|worker| machines::import(worker, archive))).await?;
    Ok(())
}

pub fn node(name: &str) -> Result<&'static Worker> {
    WORKERS
        .iter()
        .find(|worker| worker.name == name)
        .with_context(|| format!("the local cluster has no node {name}"))
}

/// A power cut: all processes, mounts and connections of the node are gone at once, its disk stays.
pub async fn kill(node: &Worker) -> Result<()> {
    machines::kill(node.name).await
}

/// SIGKILL to every process of a pod: nothing of it hears that it ends.
pub async fn kill_pod(uid: &str) -> Result<()> {
    cgroups::kill_pod(uid).await
}

/// Kills one container of a pod, as if its program had crashed.
pub async fn kill_container(uid: &str, id: &str) -> Result<()> {
    cgroups::kill_container(uid, id).await
}

/// Switches a killed node on again. Its kubelet finds the disk as it was; nothing is waited for.
pub async fn start(node: &Worker) -> Result<()> {
    network::create_worker(node).await?;
    machines::start_worker(node).await
}

/// Whether the kernel lets us resize a mounted file system: in many containers it does not, root or not.
pub fn may_grow_volumes() -> Result<bool> {
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let status = fs::read_to_string("/proc/self/status")?;
    let held = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .context("no CapEff in /proc/self/status")?;
    Ok(u64::from_str_radix(held.trim(), 16)? & CAP_SYS_RESOURCE != 0)
}

/// Fills a volume of class `local-sized` to its last block; returns the file that takes the room.
pub fn fill(volume: &Path) -> Result<PathBuf> {
    use rustix::fs::{FallocateFlags, fallocate, statvfs};
    let path = volume.join("filler");
    let file = fs::File::create_new(&path)?;
    let mut end = 0;
    loop {
        let has = statvfs(volume)?;
        let room = has.f_bavail * has.f_frsize;
        // The list of a large file's extents takes blocks of its own.
        let step = (room / 2).max(has.f_frsize);
        match fallocate(&file, FallocateFlags::empty(), end, step) {
            Ok(()) => end += step,
            Err(_) if room < FILLED_BYTES => return Ok(path),
            Err(error) => return Err(error).with_context(|| format!("fill {}", path.display())),
        }
    }
}

/// Drops every packet between the node's pods or itself and all others, DNS and API server included.
pub async fn cut(node: &Worker) -> Result<()> {
    network::cut(node).await
}

/// Ends `cut` of this node.
pub async fn mend(node: &Worker) -> Result<()> {
    network::mend(node).await
}

/// The local cluster's kubectl, for the harness' own steps.
async fn kubectl(arguments: &[&str]) -> Result<String> {
    output(&mut own_kubectl(arguments)).await
}

fn own_kubectl(arguments: &[&str]) -> tokio::process::Command {
    let mut command = program(layout::state().join("bin/kubectl"), arguments);
    command.env("KUBECONFIG", layout::kubeconfig());
    command
}

async fn create(binaries: &Binaries, pause: &Path) -> Result<()> {
    sysctl::raise()?;
    certs::create()?;
    config::create(binaries)?;
    share_volumes().await?;
    step("Make the network", async {
        network::create().await?;
        for worker in &WORKERS {
            network::create_worker(worker).await?;
        }
        Ok(())
    })
    .await?;
    step("Start the API server", async {
        machines::start_control().await?;
        api_server().await?;
        feed(
            &mut own_kubectl(&["apply", "--server-side", "-f", "-"]),
            &config::objects(),
        )
        .await
    })
    .await?;
    step("Start the S3 server", async {
        machines::start_s3().await?;
        s3_server().await
    })
    .await?;
    step("Start the workers", async {
        for worker in &WORKERS {
            machines::start_worker(worker).await?;
        }
        nodes(pause).await
    })
    .await
}

/// Switches on what was killed: machines as a whole, the control plane's daemons by their own supervisor.
async fn revive(pause: &Path) -> Result<()> {
    if !machines::missing(S3_NAME, &["init"])?.is_empty() {
        say("the S3 server is switched on again");
        machines::kill(S3_NAME).await?;
        network::create_s3().await?;
        machines::start_s3().await?;
    }
    for worker in &WORKERS {
        if machines::missing(worker.name, machines::WORKER_DAEMONS)?.is_empty() {
            mend(worker).await?;
            continue;
        }
        say(&format!("{} is switched on again", worker.name));
        machines::kill(worker.name).await?;
        start(worker).await?;
    }
    api_server().await?;
    s3_server().await?;
    nodes(pause).await?;
    // A drain that was killed half-way leaves its node closed to all that comes later.
    let all: Vec<&str> = std::iter::once("uncordon")
        .chain(WORKERS.iter().map(|worker| worker.name))
        .collect();
    kubectl(&all).await.map(drop)
}

/// Waits until every node has the sandbox image and is Ready.
async fn nodes(pause: &Path) -> Result<()> {
    for worker in &WORKERS {
        wait_for(&format!("containerd of {}", worker.name), || async {
            machines::import(worker, pause).await
        })
        .await?;
    }
    for worker in &WORKERS {
        let name = format!("node/{}", worker.name);
        wait_for(&name, || async { kubectl(&["get", &name]).await }).await?;
    }
    kubectl(&[
        "wait",
        "--for=condition=Ready",
        "nodes",
        "--all",
        READY_LIMIT,
    ])
    .await?;
    Ok(())
}

async fn api_server() -> Result<()> {
    wait_for("the API server", || async {
        kubectl(&["get", "--raw", "/readyz", "--request-timeout=2s"]).await
    })
    .await?;
    Ok(())
}

async fn s3_server() -> Result<()> {
    let server = (layout::S3, layout::S3_PORT);
    wait_for("the S3 server", || async {
        Ok(TcpStream::connect(server).await?)
    })
    .await?;
    Ok(())
}

/// Tries until it works; the last error is told when it never does.
async fn wait_for<T, F: Future<Output = Result<T>>>(
    what: &str,
    attempt: impl Fn() -> F,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match attempt().await {
            Err(error) if start.elapsed() > API_LIMIT => {
                return Err(error).with_context(|| {
                    format!(
                        "{what} did not come up in {} s; logs are in {}/nodes/*/logs",
                        API_LIMIT.as_secs(),
                        layout::STATE
                    )
                });
            }
            Err(_) => tokio::time::sleep(POLL).await,
            Ok(done) => return Ok(done),
        }
    }
}

/// A mount of a sized volume must show in every node's own view of the machine.
async fn share_volumes() -> Result<()> {
    fs::create_dir_all(layout::volumes())?;
    let folder = layout::volumes();
    let folder = folder.display();
    crate::process::run(&format!("mount --bind {folder} {folder}")).await?;
    crate::process::run(&format!("mount --make-private {folder}")).await?;
    crate::process::run(&format!("mount --make-shared {folder}")).await?;
    Ok(())
}

/// A cluster can be used again when it came up whole, from these programs, since the last boot,
/// and its control plane's first process lives (it restarts the others).
fn usable(binaries: &Binaries) -> Result<bool> {
    let same = fs::read_to_string(layout::ready_mark())
        .is_ok_and(|text| mark(binaries).is_ok_and(|mark| mark == text));
    Ok(same && machines::missing(CONTROL_NAME, &["init"])?.is_empty())
}

/// Names what the cluster was made from.
fn mark(binaries: &Binaries) -> Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let sources = blake3::hash(
        concat!(
            include_str!("config/worker.sh"),
            include_str!("config/control.sh"),
            include_str!("config/s3.sh"),
            include_str!("config/s3.yaml"),
            include_str!("config/audit.yaml"),
            include_str!("config/supervise.sh"),
            include_str!("config/containerd.toml"),
            include_str!("config/kubelet.yaml"),
            include_str!("config/kube-proxy.yaml"),
            include_str!("config/cni.conflist"),
            include_str!("config/Corefile"),
            include_str!("config/cluster.yaml"),
            // What shapes the rest: addresses, certificates, limits and how a machine is started.
            include_str!("layout.rs"),
            include_str!("certs.rs"),
            include_str!("config.rs"),
            include_str!("machines.rs"),
            include_str!("network.rs"),
            include_str!("sysctl.rs"),
        )
        .as_bytes(),
    );
    Ok(format!(
        "{boot}{}\n{}\n{}\n{sources}\n",
        binaries.kubernetes.display(),
        binaries.coredns.display(),
        binaries.versitygw.display()
    ))
}

fn machine(text: &mut String, name: &str, daemons: &[&'static str]) -> Result<bool> {
    let missing = machines::missing(name, daemons)?;
    let state = if missing.is_empty() {
        "running".to_owned()
    } else {
        format!("not running: {}", missing.join(", "))
    };
    text.push_str(&format!("{name:<10} {state}\n"));
    Ok(missing.is_empty())
}

async fn lock() -> Result<fs::File> {
    host::require_root()?;
    cache::lock(Path::new("/run/lock/taskstore-local.lock")).await
}
