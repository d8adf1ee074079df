//! Our part of the machine's cgroup trees: every process of a node is found, and killed, there.
//! Works with both versions; on version 1 every mounted hierarchy gets the same folders.

use super::layout::NAME;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ROOT: &str = "/sys/fs/cgroup";
const DYING_LIMIT: Duration = Duration::from_secs(20);

/// The path that the kubelet knows: the same in every hierarchy.
pub fn path(name: &str) -> String {
    format!("/{NAME}/{name}")
}

/// Makes a node's folder in every hierarchy, with one leaf per daemon in the tracking one.
pub fn create(name: &str, daemons: &[&str]) -> Result<PathBuf> {
    for hierarchy in hierarchies()? {
        let ours = hierarchy.join(NAME);
        for folder in [&ours, &ours.join(name)] {
            fs::create_dir_all(folder)
                .with_context(|| format!("make cgroup {}", folder.display()))?;
            inherit_cpuset(folder)?;
        }
        if hierarchy.join("cgroup.controllers").exists() && hierarchy == Path::new(ROOT) {
            for folder in [&hierarchy, &ours, &ours.join(name)] {
                delegate(folder)?;
            }
        }
    }
    let tracking = tracking()?.join(NAME).join(name);
    for daemon in daemons {
        fs::create_dir_all(tracking.join(daemon))?;
    }
    Ok(tracking)
}

/// Processes below a node's folder, pods included; all of ours without a name.
pub fn processes(name: Option<&str>) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for hierarchy in hierarchies()? {
        let folder = name.map_or(hierarchy.join(NAME), |name| hierarchy.join(NAME).join(name));
        found.extend(members(below(&folder)?));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Processes of one pod: the kubelet names a folder after its UID.
fn pod_processes(uid: &str) -> Result<Vec<i32>> {
    let pod = format!("pod{uid}");
    let mut folders = below(&tracking()?.join(NAME))?;
    folders.retain(|folder| folder.iter().any(|part| part == pod.as_str()));
    Ok(members(folders))
}

/// Processes of one container: containerd names a folder below its pod's after its id.
fn container_processes(uid: &str, id: &str) -> Result<Vec<i32>> {
    let pod = format!("pod{uid}");
    let mut folders = below(&tracking()?.join(NAME))?;
    folders.retain(|folder| {
        let is_part = |name: &str| folder.iter().any(|part| part == name);
        is_part(&pod) && is_part(id)
    });
    Ok(members(folders))
}

fn members(folders: Vec<PathBuf>) -> Vec<i32> {
    let read = |folder: PathBuf| fs::read_to_string(folder.join("cgroup.procs"));
    let texts: Vec<String> = folders.into_iter().flat_map(read).collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    lines
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid > 0)
        .collect()
}

/// Kills every process below a node's folder and waits until they are gone.
pub async fn kill(name: Option<&str>) -> Result<()> {
    end(|| processes(name)).await
}

/// Kills every process of a pod, its sandbox included, and waits until they are gone.
pub async fn kill_pod(uid: &str) -> Result<()> {
    if pod_processes(uid)?.is_empty() {
        bail!("no process on this machine is of pod {uid}");
    }
    end(|| pod_processes(uid)).await
}

/// Kills every process of one container of a pod, which its kubelet then starts anew as another one.
pub async fn kill_container(uid: &str, id: &str) -> Result<()> {
    let list = || container_processes(uid, id);
    if list()?.is_empty() {
        bail!("no process on this machine is of container {id} in pod {uid}");
    }
    end(list).await
}

async fn end(list: impl Fn() -> Result<Vec<i32>>) -> Result<()> {
    let start = Instant::now();
    loop {
        let alive = list()?;
        if alive.is_empty() {
            return Ok(());
        }
        for pid in &alive {
            let pid = rustix::process::Pid::from_raw(*pid).context("a process id is above zero")?;
            // It may have ended since we read it.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        if start.elapsed() > DYING_LIMIT {
            bail!("processes {alive:?} do not end after SIGKILL");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Removes a node's folders (all of ours without a name); they must hold no process.
pub fn remove(name: Option<&str>) -> Result<()> {
    for hierarchy in hierarchies()? {
        let folder = name.map_or(hierarchy.join(NAME), |name| hierarchy.join(NAME).join(name));
        for folder in below(&folder)?.into_iter().rev() {
            match fs::remove_dir(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error)
                        .with_context(|| format!("remove cgroup {}", folder.display()));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Folders of ours that exist.
pub fn leftovers() -> Result<Vec<PathBuf>> {
    Ok(hierarchies()?
        .into_iter()
        .map(|hierarchy| hierarchy.join(NAME))
        .filter(|folder| folder.exists())
        .collect())
}

/// Mount points of all hierarchies: one with version 2, several with version 1.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let found: Vec<PathBuf> = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| {
            fields.len() > 2
                && ["cgroup", "cgroup2"].contains(&fields[2])
                && fields[1].starts_with(ROOT)
        })
        .map(|fields| PathBuf::from(fields[1]))
        .collect();
    if found.is_empty() {
        bail!("no cgroup hierarchy is mounted under {ROOT}");
    }
    Ok(found)
}

/// The hierarchy in which we look for a node's processes.
fn tracking() -> Result<PathBuf> {
    let all = hierarchies()?;
    let pids = Path::new(ROOT).join("pids");
    Ok(all
        .iter()
        .find(|path| **path == pids)
        .unwrap_or(&all[0])
        .clone())
}

/// A folder and all below it, parents first.
fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut next = vec![folder.to_owned()];
    while let Some(folder) = next.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                next.push(entry.path());
            }
        }
        found.push(folder);
    }
    found.sort();
    Ok(found)
}

/// Version 1 starts a new cpuset empty, and no process may enter an empty one.
fn inherit_cpuset(folder: &Path) -> Result<()> {
    let parent = folder.parent().context("a cgroup folder has a parent")?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = folder.join(file);
        if folder.starts_with(Path::new(ROOT).join("cpuset"))
            && fs::read_to_string(&own).is_ok_and(|text| text.trim().is_empty())
        {
            fs::write(&own, fs::read_to_string(parent.join(file))?)?;
        }
    }
    Ok(())
}

/// Version 2 passes controllers down one level at a time.
fn delegate(folder: &Path) -> Result<()> {
    for controller in fs::read_to_string(folder.join("cgroup.controllers"))?.split_whitespace() {
        // A controller that cannot be delegated here (real-time threads) is not needed by the kubelet.
        let _ = fs::write(
            folder.join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
    }
    Ok(())
}
