//! Kernel settings of the whole machine that the cluster needs or the kubelet changes: their
//! values are kept and put back by `down`.

use super::layout::state;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;

/// Four kubelets and containerds exceed the usual 128 instances.
const RAISED: &[(&str, u64)] = &[
    ("fs/inotify/max_user_instances", 8192),
    ("fs/inotify/max_user_watches", 524_288),
];

/// What a kubelet sets at its start.
const TOUCHED: &[&str] = &[
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

fn kept() -> PathBuf {
    state().join("sysctl")
}

/// Keeps what is set now, unless an earlier run has kept it already, and raises the limits.
pub fn raise() -> Result<()> {
    if !kept().exists() {
        let names = RAISED
            .iter()
            .map(|(name, _)| *name)
            .chain(TOUCHED.iter().copied());
        let lines: Vec<String> = names
            .filter_map(|name| read(name).map(|value| format!("{name} {value}\n")))
            .collect();
        fs::write(kept(), lines.concat())?;
    }
    for (name, wanted) in RAISED {
        let has: u64 = read(name).and_then(|value| value.parse().ok()).unwrap_or(0);
        if has < *wanted {
            fs::write(file(name), wanted.to_string()).with_context(|| format!("raise {name}"))?;
        }
    }
    Ok(())
}

pub fn restore() -> Result<()> {
    for line in fs::read_to_string(kept()).unwrap_or_default().lines() {
        if let Some((name, value)) = line.split_once(' ')
            && read(name).is_some_and(|now| now != value)
        {
            fs::write(file(name), value).with_context(|| format!("put {name} back"))?;
        }
    }
    Ok(())
}

fn read(name: &str) -> Option<String> {
    fs::read_to_string(file(name))
        .ok()
        .map(|text| text.trim().to_owned())
}

fn file(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name)
}
