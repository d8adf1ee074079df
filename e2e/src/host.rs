//! What this machine must offer: root, Linux tools, a Go and a Rust compiler. On Debian missing
//! packages are installed, after saying so; anywhere else the error names what is missing.

use crate::process::{find, output, program};
use crate::progress::{say, step};
use anyhow::{Result, bail};
use std::path::Path;

/// A file that shows that a Debian package is there.
const PACKAGES: &[(&str, &str)] = &[
    ("buildah", "buildah"),
    ("conntrack", "conntrack"),
    ("containerd", "containerd"),
    ("containernetworking-plugins", "/usr/lib/cni/bridge"),
    ("e2fsprogs", "mkfs.ext4"),
    ("ipset", "ipset"),
    ("iproute2", "ip"),
    ("iptables", "iptables"),
    ("kmod", "modprobe"),
    ("mount", "losetup"),
    ("nftables", "nft"),
    ("runc", "runc"),
    ("util-linux", "nsenter"),
];

/// Another program may hold Debian's package lock for a while, on a fresh machine above all.
const LOCK_WAIT: &str = "-oDPkg::Lock::Timeout=300";

/// Checks everything that the local cluster needs and installs what it may.
pub async fn prepare() -> Result<()> {
    require_root()?;
    if find("go").is_none() {
        bail!("the Go compiler (1.26 or newer) is missing: see https://go.dev/dl");
    }
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(_, proof)| !present(proof))
        .map(|(package, _)| *package)
        .collect();
    if !missing.is_empty() {
        install(&missing).await?;
    }
    // Built-in or already loaded is the common case, and failing here shows better later.
    let _ = output(&mut program(
        "modprobe",
        [
            "-a",
            "br_netfilter",
            "overlay",
            "veth",
            "loop",
            "nf_conntrack",
        ],
    ))
    .await;
    Ok(())
}

/// Says plainly why an ordinary user cannot go on.
pub fn require_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "the local Kubernetes makes namespaces, mounts and cgroups: run this as root, or give a \
             cluster of your own with --kubeconfig"
        );
    }
    Ok(())
}

/// Fetches the package lists of a Debian machine, which a fresh one may not have yet.
pub async fn refresh_package_lists() -> Result<()> {
    if !is_debian() || require_root().is_err() {
        bail!("the package index of this machine is empty: run `apt-get update` as root first");
    }
    say("The package index of this machine is empty: it is fetched now");
    update().await
}

async fn update() -> Result<()> {
    let mut update = program("apt-get", ["-q", LOCK_WAIT, "update"]);
    step("apt-get update", output(&mut update)).await.map(drop)
}

fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists()
}

async fn install(missing: &[&str]) -> Result<()> {
    let list = missing.join(" ");
    if !is_debian() {
        bail!(
            "these are missing, by their Debian names: {list}\nInstall them, then try again (only on Debian is this done for you)"
        );
    }
    say(&format!(
        "Missing Debian packages are now installed: {list}"
    ));
    update().await?;
    let mut install = program(
        "apt-get",
        ["-q", "-y", LOCK_WAIT, "--no-install-recommends", "install"],
    );
    install
        .args(missing)
        .env("DEBIAN_FRONTEND", "noninteractive");
    step("apt-get install", output(&mut install)).await?;
    Ok(())
}

fn present(proof: &str) -> bool {
    if proof.starts_with('/') {
        Path::new(proof).exists()
    } else {
        find(proof).is_some()
    }
}
