//! Writes the files that the cluster's daemons read: the texts in `config/` with this cluster's
//! names and addresses put in.

use super::cgroups;
use super::layout::{
    CONTROL, CONTROL_NAME, PAUSE_IMAGE, PODS, S3, S3_NAME, S3_NAMESPACE, S3_PORT, WORKERS, Worker,
    buckets, home, pki, state,
};
use crate::binaries::Binaries;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// What the cluster holds before anyone uses it.
pub fn objects() -> String {
    let s3 = include_str!("config/s3.yaml")
        .replace("@NAME@", S3_NAME)
        .replace("@NAMESPACE@", S3_NAMESPACE)
        .replace("@ADDRESS@", S3)
        .replace("@PORT@", &S3_PORT.to_string());
    format!("{}---\n{s3}", include_str!("config/cluster.yaml"))
}

/// Folders, scripts and programs that all nodes share.
pub fn create(binaries: &Binaries) -> Result<()> {
    let scripts = state().join("config");
    fs::create_dir_all(&scripts)?;
    fs::write(
        scripts.join("supervise.sh"),
        include_str!("config/supervise.sh"),
    )?;
    fs::write(scripts.join("worker.sh"), include_str!("config/worker.sh"))?;
    fs::write(
        scripts.join("control.sh"),
        include_str!("config/control.sh"),
    )?;
    fs::write(scripts.join("s3.sh"), include_str!("config/s3.sh"))?;
    fs::write(
        scripts.join("audit.yaml"),
        include_str!("config/audit.yaml"),
    )?;

    let programs = state().join("bin");
    fs::create_dir_all(&programs)?;
    place(&binaries.kubernetes, &programs.join("kubernetes"))?;
    place(&binaries.coredns, &programs.join("coredns"))?;
    place(&binaries.versitygw, &programs.join("versitygw"))?;
    std::os::unix::fs::symlink("kubernetes", programs.join("kubectl"))?;

    fs::create_dir_all(buckets())?;
    fs::create_dir_all(home(S3_NAME).join("logs"))?;

    let own = home(CONTROL_NAME);
    fs::create_dir_all(own.join("logs"))?;
    fs::write(
        own.join("Corefile"),
        fill(include_str!("config/Corefile"), CONTROL_NAME, CONTROL, ""),
    )?;
    fs::write(
        own.join("kube-proxy.yaml"),
        fill(
            include_str!("config/kube-proxy.yaml"),
            CONTROL_NAME,
            CONTROL,
            PODS,
        ),
    )?;
    WORKERS.iter().try_for_each(worker)
}

fn worker(worker: &Worker) -> Result<()> {
    let own = home(worker.name);
    fs::create_dir_all(own.join("logs"))?;
    fs::create_dir_all(own.join("cni"))?;
    let text = |template: &str| fill(template, worker.name, worker.address, worker.pods);
    fs::write(
        own.join("containerd.toml"),
        text(include_str!("config/containerd.toml")),
    )?;
    fs::write(
        own.join("cni/pods.conflist"),
        text(include_str!("config/cni.conflist")),
    )?;
    let (cpu, memory) = reserved()?;
    let kubelet = text(include_str!("config/kubelet.yaml"))
        .replace("@RESERVED_CPU@", &cpu)
        .replace("@RESERVED_MEMORY@", &memory);
    fs::write(own.join("kubelet.yaml"), kubelet)?;
    // kube-proxy asks for the range of all pods, not of this node's.
    fs::write(
        own.join("kube-proxy.yaml"),
        fill(
            include_str!("config/kube-proxy.yaml"),
            worker.name,
            worker.address,
            PODS,
        ),
    )?;
    fs::write(own.join("resolv.conf"), format!("nameserver {CONTROL}\n"))?;
    Ok(())
}

fn fill(template: &str, node: &str, address: &str, pods: &str) -> String {
    template
        .replace("@NODE@", node)
        .replace("@ADDRESS@", address)
        .replace("@PODS@", pods)
        .replace("@HOME@", &home(node).to_string_lossy())
        .replace("@PKI@", &pki().to_string_lossy())
        .replace("@CGROUP@", &cgroups::path(node))
        .replace("@DNS@", CONTROL)
        .replace("@PAUSE@", PAUSE_IMAGE)
}

/// What a node must not promise: all but its share of the machine.
fn reserved() -> Result<(String, String)> {
    let share = WORKERS.len();
    let milli = std::thread::available_parallelism()?.get() * 1000;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let total = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .context("no MemTotal in /proc/meminfo")?;
    let total_kib: usize = total
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .context("MemTotal is not a number")?;
    Ok((
        format!("{}m", milli - milli / share),
        format!("{}Ki", total_kib - total_kib / share),
    ))
}

/// A program in the cluster's own folder survives changes of the cache.
fn place(from: &Path, to: &Path) -> Result<()> {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).with_context(|| format!("copy {}", from.display()))?;
    }
    Ok(())
}
