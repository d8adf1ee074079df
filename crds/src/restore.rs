//! TaskStoreRestore: a cluster that begins with what a backup and the log behind it hold.

#![allow(
    clippy::duplicated_attributes,
    reason = "one printcolumn after the other repeats its keys"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::destination::{Destination, Lineage};
use crate::status::Restored;
use crate::template::open_object;

/// Makes a TaskStoreCluster that begins with the contents of a backup and of the log behind it.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "taskstore.dev",
    version = "v1alpha1",
    kind = "TaskStoreRestore",
    plural = "taskstorerestores",
    shortname = "tsr",
    category = "taskstore",
    namespaced,
    status = "TaskStoreRestoreStatus",
    derive = "PartialEq",
    annotation("helm.sh/resource-policy", "keep"),
    doc = "Makes a TaskStoreCluster that begins with the contents of a backup and of the log behind it.",
    printcolumn(
        name = "Cluster",
        type_ = "string",
        description = "The TaskStoreCluster that is made",
        json_path = ".spec.cluster.name"
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        description = "How far it has come",
        json_path = ".status.phase"
    ),
    printcolumn(
        name = "Restored-To",
        type_ = "date",
        description = "The store's time at the last entry that was restored",
        json_path = ".status.restored.restoredTo"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct TaskStoreRestoreSpec {
    /// What is restored: exactly one of `backup` and `bucket`.
    pub source: RestoreSource,

    /// How far the log behind the backup is followed: at most one of `index` and `time`. Default: to its end.
    #[serde(default)]
    pub upto: RestoreUpto,

    /// The cluster that is made. It is a new one, under an identity of its own: members, certificates and lease
    /// tokens of the one that was backed up are refused by it.
    pub cluster: RestoredCluster,
}

/// What is restored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreSource {
    /// Name of a TaskStoreBackup of the same namespace that is Completed; at most 253 characters. Default none.
    /// Never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")
    )]
    pub backup: Option<String>,

    /// A bucket, when the Kubernetes that wrote to it is gone. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<BucketSource>,
}

/// What a bucket holds of one store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BucketSource {
    /// The bucket as the members of the lost cluster wrote to it; the right to read is enough.
    pub destination: Destination,

    /// The store whose backups are meant.
    pub lineage: Lineage,

    /// Name of the backup to begin from; at most 253 characters. Default: the newest that is not beyond `upto`.
    /// Never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")
    )]
    pub backup: Option<String>,
}

/// How far the log behind the backup is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreUpto {
    /// The last log entry that counts. Default none. Never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub index: Option<i64>,

    /// What was accepted until then counts, by the clocks of the store's leaders. Default none. Never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// The cluster that is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoredCluster {
    /// Its name; no TaskStoreCluster of this namespace may have it. At most 46 characters. No default.
    /// Never changes.
    #[schemars(length(min = 1, max = 46))]
    pub name: String,

    /// Its spec, every field as in a TaskStoreCluster, which checks it. No default: it may be empty.
    /// Never changes; the cluster's own may.
    #[schemars(schema_with = "open_object")]
    pub spec: Map<String, Value>,
}

/// How far a restore has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskStoreRestoreStatus {
    /// Pending, Restoring, Starting, Completed or Failed; the last two are final.
    #[serde(default)]
    pub phase: RestorePhase,

    /// In words: what it waits for, or why it failed, with the object of the bucket that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// What the spec's source came to, and what the first member reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<BucketSource>,

    /// UID of the TaskStoreCluster that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    pub cluster_uid: Option<String>,

    /// What the cluster began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,

    /// When its cluster was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,

    /// When the cluster first served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestorePhase {
    #[default]
    Pending,
    /// The first member reads the bucket into its volume.
    Restoring,
    /// The cluster starts with it.
    Starting,
    Completed,
    Failed,
}

impl RestorePhase {
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}
