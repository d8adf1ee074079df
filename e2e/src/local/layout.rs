//! Names, places and addresses of the local cluster. They are fixed, so that whatever a killed
//! run left behind is found again without any record of it.
//!
//! All addresses are in 198.18.0.0/15, which is set aside for tests of networks (RFC 2544), so
//! they meet neither a home network nor a cloud's.

use std::path::{Path, PathBuf};

pub const STATE: &str = "/var/lib/taskstore-local";
/// A folder for each bucket of the S3 server. Not in STATE: a bucket can outlive the Kubernetes that
/// wrote it.
pub const BUCKETS: &str = "/var/lib/taskstore-local-buckets";
/// Prefix of network namespaces, and the name of our part of every cgroup tree.
pub const NAME: &str = "taskstore-local";
/// The one device that the machine's own network gets.
pub const HOST_DEVICE: &str = "taskstore0";

pub const HOST: &str = "198.18.0.1";
pub const CONTROL: &str = "198.18.0.2";
pub const S3: &str = "198.18.0.3";
pub const S3_PORT: u16 = 7070;
pub const NODE_NETWORK_BITS: u8 = 24;
/// All pod networks together.
pub const PODS: &str = "198.18.8.0/21";
pub const SERVICES: &str = "198.19.0.0/16";
/// The API server's own service: the first address of SERVICES.
pub const API_SERVICE: &str = "198.19.0.1";
pub const ALL: &str = "198.18.0.0/15";

pub const FABRIC: &str = "fabric";
pub const CONTROL_NAME: &str = "control";
/// The S3 server's machine. Under the same name its Service stands in a namespace of its own.
pub const S3_NAME: &str = "s3";
pub const S3_NAMESPACE: &str = "bucket";

pub const S3_ACCESS_KEY_ID: &str = "taskstore-local";

/// Sandbox image of every pod, and where all local images seem to come from.
pub const PAUSE_IMAGE: &str = "taskstore.local/pause:1";

/// One worker node.
#[derive(Debug, PartialEq, Eq)]
pub struct Worker {
    pub name: &'static str,
    pub zone: &'static str,
    pub address: &'static str,
    pub pods: &'static str,
}

/// Four nodes in three zones.
pub const WORKERS: [Worker; 4] = [
    Worker {
        name: "worker-1",
        zone: "zone-a",
        address: "198.18.0.11",
        pods: "198.18.11.0/24",
    },
    Worker {
        name: "worker-2",
        zone: "zone-b",
        address: "198.18.0.12",
        pods: "198.18.12.0/24",
    },
    Worker {
        name: "worker-3",
        zone: "zone-c",
        address: "198.18.0.13",
        pods: "198.18.13.0/24",
    },
    Worker {
        name: "worker-4",
        zone: "zone-a",
        address: "198.18.0.14",
        pods: "198.18.14.0/24",
    },
];

pub fn state() -> &'static Path {
    Path::new(STATE)
}

/// Appears last, when the cluster has come up whole.
pub fn ready_mark() -> PathBuf {
    state().join("ready")
}

pub fn kubeconfig() -> PathBuf {
    state().join("admin.kubeconfig")
}

pub fn pki() -> PathBuf {
    state().join("pki")
}

/// What pods asked the API server for, an event a line.
pub fn audit_log() -> PathBuf {
    home(CONTROL_NAME).join("logs/audit.log")
}

/// The S3 server's secret access key.
pub fn s3_secret() -> PathBuf {
    pki().join("s3-secret-access-key")
}

pub fn buckets() -> &'static Path {
    Path::new(BUCKETS)
}

pub fn volumes() -> PathBuf {
    state().join("volumes")
}

/// Folder of one node, or of the control plane.
pub fn home(name: &str) -> PathBuf {
    state().join("nodes").join(name)
}

pub fn containerd_socket(name: &str) -> PathBuf {
    home(name).join("containerd.sock")
}

pub fn namespace(name: &str) -> String {
    format!("{NAME}-{name}")
}

pub fn namespace_file(name: &str) -> PathBuf {
    Path::new("/run/netns").join(namespace(name))
}
