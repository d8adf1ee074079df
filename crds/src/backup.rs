//! TaskStoreBackup: one backup of one cluster, made by hand or by the cluster's schedule.

#![allow(
    clippy::duplicated_attributes,
    reason = "one printcolumn after the other repeats its keys"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::destination::{Destination, Lineage};
use crate::names::MemberId;
use crate::status::LogId;

/// One backup of a TaskStoreCluster, at the destination that its spec names.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "taskstore.dev",
    version = "v1alpha1",
    kind = "TaskStoreBackup",
    plural = "taskstorebackups",
    shortname = "tsb",
    category = "taskstore",
    namespaced,
    status = "TaskStoreBackupStatus",
    derive = "PartialEq",
    annotation("helm.sh/resource-policy", "keep"),
    doc = "One backup of a TaskStoreCluster, at the destination that its spec names. Deleting the object deletes nothing in the bucket.",
    printcolumn(
        name = "Cluster",
        type_ = "string",
        description = "The TaskStoreCluster that is backed up",
        json_path = ".spec.cluster"
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        description = "How far it has come",
        json_path = ".status.phase"
    ),
    printcolumn(
        name = "Bytes",
        type_ = "integer",
        description = "Size of the snapshot in the bucket",
        json_path = ".status.bytes"
    ),
    printcolumn(name = "Completed", type_ = "date", json_path = ".status.completedAt"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct TaskStoreBackupSpec {
    /// Name of the TaskStoreCluster of the same namespace; its spec says where the backup goes. At most 46
    /// characters. No default. Never changes.
    #[schemars(length(min = 1, max = 46))]
    pub cluster: String,
}

/// How far a backup has come, and what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskStoreBackupStatus {
    /// Pending, Running, Verifying, Completed or Failed; the last two are final.
    #[serde(default)]
    pub phase: BackupPhase,

    /// In words: what it waits for, or why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// Where it is, as the cluster's spec said when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Destination>,

    /// The folder of the bucket that it is in, with the name of this object below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,

    /// The member that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberId>,

    /// The last log entry that is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_id: Option<LogId>,

    /// The moment that it shows the store in, by the clock of the member that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_at: Option<Time>,

    /// Of the snapshot, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,

    /// How much of this phase is done, in percent, in steps of ten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub progress_percent: Option<u8>,

    /// Tasks that are in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<i64>,

    /// Hash of the state that is in it, the same on every member and after every restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub state_hash: Option<String>,

    /// Checksum of its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub checksum: Option<String>,

    /// When a member first took it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,

    /// When it was proven to be whole, by reading every part back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupPhase {
    #[default]
    Pending,
    /// A member uploads.
    Running,
    /// The member reads every part back.
    Verifying,
    Completed,
    Failed,
}

impl BackupPhase {
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}
