//! What this machine must offer: root, Linux tools, a Go and a Rust compiler. On Debian missing
//! packages are installed, after saying so; anywhere else the error names what is missing.

use crate::process::{output, program};
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

/// Debian keeps system tools where an ordinary user's PATH does not look.
const SYSTEM_FOLDERS: &[&str] = &["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Checks everything that the local cluster needs and installs what it may.
pub async fn prepare() -> Result<()> {
    require_root()?;
    if !on_path("go") {
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

async fn install(missing: &[&str]) -> Result<()> {
    let list = missing.join(" ");
    if !Path::new("/etc/debian_version").exists() {
        bail!(
            "these are missing, by their Debian names: {list}\nInstall them, then try again (only on Debian is this done for you)"
        );
    }
    say(&format!(
        "Missing Debian packages are now installed: {list}"
    ));
    let mut update = program("apt-get", ["-q", "update"]);
    step("apt-get update", output(&mut update)).await?;
    let mut install = program(
        "apt-get",
        ["-q", "-y", "--no-install-recommends", "install"],
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
        on_path(proof)
    }
}

fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
        || SYSTEM_FOLDERS
            .iter()
            .any(|folder| Path::new(folder).join(name).is_file())
}
