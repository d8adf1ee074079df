//! Removes everything of the cluster, found by name alone: works after any crash, at any point.

use super::layout::{BUCKETS, HOST_DEVICE, NAME, STATE, buckets, state, volumes};
use super::{cgroups, sysctl};
use crate::process::run;
use anyhow::{Result, bail};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What a killed `up` had just started goes on for a moment, and makes what was removed already.
const ORPHANS_LIMIT: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What becomes of the S3 server's buckets when the Kubernetes that wrote them goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buckets {
    Go,
    Stay,
}

/// Leaves nothing else behind, or says what it could not remove.
pub async fn down(buckets: Buckets) -> Result<()> {
    let start = Instant::now();
    loop {
        let outcome = remove(buckets).await;
        let left = match buckets {
            Buckets::Go => leftovers()?,
            Buckets::Stay => leftovers_beside_buckets()?,
        };
        match outcome {
            Ok(()) if left.is_empty() => return Ok(()),
            _ if start.elapsed() < ORPHANS_LIMIT => tokio::time::sleep(LOOK_AGAIN).await,
            Ok(()) => bail!("these are left of the local cluster:\n{}", left.join("\n")),
            Err(error) => return Err(error),
        }
    }
}

async fn remove(what: Buckets) -> Result<()> {
    cgroups::kill(None).await?;
    for namespace in namespaces()? {
        run(&format!("ip netns delete {namespace}")).await?;
    }
    // Its other end went with the namespace; this is for a run killed in between.
    if host_device() {
        let _ = run(&format!("ip link delete {HOST_DEVICE}")).await;
    }
    // Deepest first; a volume that is still busy for a moment is detached.
    for mount in mounts()?.into_iter().rev() {
        if run(&format!("umount {mount}")).await.is_err() {
            run(&format!("umount --lazy {mount}")).await?;
        }
    }
    // The kernel lets go of a device with its last mount, unless someone still held the file then.
    for device in loop_devices() {
        let _ = run(&format!("losetup --detach /dev/{device}")).await;
    }
    forget_namespace_folder().await;
    cgroups::remove(None)?;
    sysctl::restore()?;
    if state().exists() {
        fs::remove_dir_all(state())?;
    }
    if what == Buckets::Go && buckets().exists() {
        fs::remove_dir_all(buckets())?;
    }
    Ok(())
}

/// Everything of a cluster that exists on this machine, in words.
pub fn leftovers() -> Result<Vec<String>> {
    let mut left = leftovers_beside_buckets()?;
    if buckets().exists() {
        left.push(format!("folder {BUCKETS}"));
    }
    Ok(left)
}

/// The same without what may be there on purpose while there is no cluster.
pub fn leftovers_beside_buckets() -> Result<Vec<String>> {
    let mut left: Vec<String> = cgroups::processes(None)?
        .iter()
        .map(|pid| format!("process {pid}"))
        .collect();
    left.extend(
        namespaces()?
            .iter()
            .map(|name| format!("network namespace {name}")),
    );
    left.extend(mounts()?.iter().map(|path| format!("mount {path}")));
    left.extend(
        cgroups::leftovers()?
            .iter()
            .map(|path| format!("cgroup {}", path.display())),
    );
    left.extend(
        loop_devices()
            .into_iter()
            .map(|device| format!("loop device {device}")),
    );
    if host_device() {
        left.push(format!("network device {HOST_DEVICE}"));
    }
    if state().exists() {
        left.push(format!("folder {STATE}"));
    }
    Ok(left)
}

/// iproute2 mounts its folder over itself with the first namespace; it goes with the last.
async fn forget_namespace_folder() {
    let empty = fs::read_dir("/run/netns").is_ok_and(|mut entries| entries.next().is_none());
    if empty && run("umount /run/netns").await.is_ok() {
        // Only tidiness: an empty folder harms nobody.
        let _ = fs::remove_dir("/run/netns");
    }
}

fn namespaces() -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(NAME) {
            found.push(name);
        }
    }
    Ok(found)
}

/// Mount points below the state folder, in the order in which they were made.
fn mounts() -> Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/mounts")?;
    let points = text.lines().filter_map(|line| line.split(' ').nth(1));
    Ok(points
        .filter(|point| *point == STATE || point.starts_with(&format!("{STATE}/")))
        .map(str::to_owned)
        .collect())
}

fn loop_devices() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    let backing = |entry: &fs::DirEntry| {
        fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default()
    };
    entries
        .flatten()
        .filter(|entry| PathBuf::from(backing(entry)).starts_with(volumes()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn host_device() -> bool {
    PathBuf::from("/sys/class/net").join(HOST_DEVICE).exists()
}
