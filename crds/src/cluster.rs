//! TaskStoreCluster: what a user asks for. Every field says its default, its bound and whether it may change.

#![allow(
    clippy::duplicated_attributes,
    reason = "one printcolumn after the other repeats its keys"
)]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backup_policy::BackupPolicy;
use crate::names::MemberId;
use crate::status::TaskStoreClusterStatus;
use crate::template::PodTemplate;

/// A replicated task store: durable tasks on a Raft quorum, run by the TaskStore operator.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "taskstore.dev",
    version = "v1alpha1",
    kind = "TaskStoreCluster",
    plural = "taskstoreclusters",
    shortname = "tsc",
    category = "taskstore",
    namespaced,
    status = "TaskStoreClusterStatus",
    derive = "PartialEq",
    annotation("helm.sh/resource-policy", "keep"),
    doc = "A replicated task store: durable tasks on a Raft quorum, run by the TaskStore operator.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        description = "Whether the cluster serves reads and writes",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Members",
        type_ = "string",
        description = "Healthy voters of all voters",
        json_path = ".status.summary.members"
    ),
    printcolumn(
        name = "Leader",
        type_ = "string",
        description = "Pod of the member that leads",
        json_path = ".status.leader"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        description = "Version the members run",
        json_path = ".status.summary.version"
    ),
    printcolumn(
        name = "Backup",
        type_ = "date",
        description = "When the last backup was completed",
        json_path = ".status.backup.lastSuccess"
    ),
    printcolumn(
        name = "Operation",
        type_ = "string",
        description = "The change in flight",
        json_path = ".status.operation.kind"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct TaskStoreClusterSpec {
    /// Number of voting members: 1, 3, 5 or 7. Default 3. May change: new members join as learners
    /// and are promoted together; a removed member keeps its volume as `storage.whenScaled` says.
    /// One replica survives no failure and has no disruption budget.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 7))]
    pub replicas: i32,

    /// Container image of the members, at most 512 characters. Default: the image that the operator
    /// was installed with. May change: running members take it one at a time, the leader last, each in
    /// its pod where it is. Another default image of a newer operator restarts nobody; name it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,

    /// When the kubelet pulls the image: Always, IfNotPresent (default) or Never. May change.
    #[serde(default)]
    pub image_pull_policy: ImagePullPolicy,

    /// Secrets of the same namespace with credentials for the image's registry, at most 8.
    /// Default none. May change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub image_pull_secrets: Vec<SecretName>,

    /// The volume of each member. Default: 10Gi of the default storage class, never deleted by us.
    #[serde(default)]
    pub storage: Storage,

    /// TLS of the client port. Default: certificates of the cluster's own CA. Members and the
    /// operator always talk over mutual TLS with that CA, whatever is set here.
    #[serde(default)]
    pub tls: ClientTls,

    /// Compute resources of each member. Default: 100m CPU and 512Mi memory requested, no limits.
    /// May change: running members' pods are made again one at a time, the leader last.
    #[serde(default)]
    pub resources: Resources,

    /// Where members may run. Default: spread over zones, then nodes, as far as possible.
    /// May change: running members' pods are made again one at a time, the leader last.
    #[serde(default)]
    pub scheduling: Scheduling,

    /// When a voter that is lost gives its place to a new one. Default: after five minutes, one an hour.
    #[serde(default)]
    pub replacement: Replacement,

    /// Stops every action of the operator on this cluster; only status is still written. The store
    /// itself goes on serving. Default false. May change.
    #[serde(default)]
    pub paused: bool,

    /// Takes all members' pods away and keeps their volumes; taken back, the members come back as who they
    /// were, with all data. An operation in flight is ended first. Default false. May change.
    #[serde(default)]
    pub hibernated: bool,

    /// Ids of members that are to answer no client and to lead nothing, at most 6; they keep their seat, vote and
    /// replicate. One that leads hands over first; a voter that could lead must remain. Evictions of other
    /// members, and their turns in a rolling change, wait meanwhile. Default none. May change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 6))]
    pub fenced: Vec<MemberId>,

    /// The user's word to go on after most members are lost for good. Default none. May change.
    #[serde(default)]
    pub recovery: Recovery,

    /// Backups to object storage. Default: none. May change: with other `destination.credentials` running members'
    /// pods are made again one at a time, the leader last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupPolicy>,

    /// The pod that each member runs in, beside containers of yours that reach it on localhost. It places your
    /// containers with the members and does not scale them. Default: none, the member runs alone. May change:
    /// running members' pods are made again one at a time, the leader last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<PodTemplate>,

    /// Name of the TaskStoreRestore of the same namespace whose contents the cluster begins with, at most 253
    /// characters; that object sets it. Default none: the cluster begins empty. Never changes; without meaning
    /// once the cluster has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub restored_by: Option<String>,
}

impl Default for TaskStoreClusterSpec {
    fn default() -> Self {
        Self {
            replicas: default_replicas(),
            image: None,
            image_pull_policy: ImagePullPolicy::default(),
            image_pull_secrets: Vec::new(),
            storage: Storage::default(),
            tls: ClientTls::default(),
            resources: Resources::default(),
            scheduling: Scheduling::default(),
            replacement: Replacement::default(),
            paused: false,
            hibernated: false,
            fenced: Vec::new(),
            recovery: Recovery::default(),
            backup: None,
            template: None,
            restored_by: None,
        }
    }
}

/// The volume of each member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Size of each volume. Default 10Gi; at least twice `logBudget` and 512Mi. May only grow: volumes grow under
    /// their running members where the storage class allows it; where it does not, a condition says what to do.
    #[serde(default = "default_size")]
    pub size: Quantity,

    /// Storage class of the volumes, at most 253 characters. Default: the cluster's default class.
    /// Never changes, because a volume cannot change its class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,

    /// How a volume may be mounted: ReadWriteOnce (default) or ReadWriteOncePod, which makes the
    /// API server itself refuse a second pod on the volume. Never changes.
    #[serde(default)]
    pub access_mode: AccessMode,

    /// Disk reserved for each member's Raft log when its volume is formatted. Default 1Gi, at least
    /// 256Mi. Never changes.
    #[serde(default = "default_log_budget")]
    pub log_budget: Quantity,

    /// What happens to the volumes when the TaskStoreCluster is deleted: Retain (default), so that a
    /// cluster created again under this name adopts them, or Delete. May change.
    #[serde(default)]
    pub when_deleted: VolumePolicy,

    /// What happens to the volume of a member that a scale-in or a replacement removed: Retain (default)
    /// or Delete. May change.
    #[serde(default)]
    pub when_scaled: VolumePolicy,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            size: default_size(),
            class_name: None,
            access_mode: AccessMode::default(),
            log_budget: default_log_budget(),
            when_deleted: VolumePolicy::default(),
            when_scaled: VolumePolicy::default(),
        }
    }
}

/// TLS of the client port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientTls {
    /// Secret of type kubernetes.io/tls in the same namespace (`tls.crt`, `tls.key`, and `ca.crt` for
    /// clients), which cert-manager may fill; at most 253 characters. Default: the operator signs the
    /// certificate with the cluster's own CA and publishes the CA in the ConfigMap `<cluster>-ca`.
    /// May change. None of the Secrets that the operator makes for this cluster may be named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
}

/// Compute resources of each member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the scheduler sets aside, at most 16 entries. Default `cpu: 100m, memory: 512Mi`: a member
    /// without any would be the first that a node short of memory evicts. May change.
    #[serde(default = "default_requests")]
    #[schemars(extend("maxProperties" = 16))]
    pub requests: BTreeMap<String, Quantity>,

    /// What a member may not pass, at most 16 entries. Default none. May change.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub limits: BTreeMap<String, Quantity>,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            requests: default_requests(),
            limits: BTreeMap::new(),
        }
    }
}

/// Where members may run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scheduling {
    /// Soft (default): members spread over zones, then nodes, and share one only when they must.
    /// Required: a member that cannot have a zone and a node of its own waits as Pending. May change.
    #[serde(default)]
    pub spread: Spread,

    /// Labels a node must carry, at most 32. Default none. May change.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that members tolerate besides not-ready and unreachable, which they always tolerate;
    /// at most 32. Default none. May change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,

    /// Affinity of the members' pods. Default none. May change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// Priority class of the members' pods, at most 253 characters. Default: the cluster's default.
    /// May change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

/// When a voter that is lost gives its place to a new one, with a new id on a volume of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replacement {
    /// How long a voter must be lost: not alive by its leader's word, or its volume gone, another one,
    /// emptied, damaged or labelled retired. Hours, minutes and seconds, like `90s` or `1h30m`; 10s to 24h.
    /// Default 5m. May change. One that comes back before its place is given away keeps it.
    #[serde(default = "default_after")]
    #[schemars(length(max = 16))]
    pub after: String,

    /// How many replacements may begin within an hour, 1 to 10. Default 1. May change. Those that were
    /// taken back count as well, because each makes a volume.
    #[serde(default = "default_max_per_hour")]
    #[schemars(range(min = 1, max = 10))]
    pub max_per_hour: i32,

    /// What becomes of a voter that was evicted and finds no other node, because its volume stays behind. Wait
    /// (default): it waits for the node, as long as `after` says. Replace: it is lost at once. Either way one
    /// after the other, and the eviction of a second waits. May change.
    #[serde(default)]
    pub on_drain: OnDrain,
}

impl Default for Replacement {
    fn default() -> Self {
        Self {
            after: default_after(),
            max_per_hour: default_max_per_hour(),
            on_drain: OnDrain::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnDrain {
    #[default]
    Wait,
    Replace,
}

/// Going on with what is left. Nothing of it happens by itself: writes that only lost members had are lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// The nonce of `status.recovery`: go on from the survivor named there and lose what only the lost
    /// members have. Void as soon as a majority is back or the survivors are others than those shown.
    /// Taking it back before the survivor is rewritten ends the recovery. 1 to 64 characters. Default none.
    /// May change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub acknowledge: Option<String>,

    /// Ids of members whose pods cannot be confirmed to be gone, because their nodes do not answer: the
    /// recovery goes on without waiting for them. They may still serve whoever reaches them; clients that
    /// have heard of the new incarnation refuse them. At most 16. Default none. May change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub accept_unconfirmed: Vec<MemberId>,
}

/// The name of a Secret in the cluster's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretName {
    /// At most 253 characters. No default. May change.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    Always,
    #[default]
    IfNotPresent,
    Never,
}

impl ImagePullPolicy {
    /// The word that a container's `imagePullPolicy` takes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessMode {
    #[default]
    ReadWriteOnce,
    ReadWriteOncePod,
}

impl AccessMode {
    /// The word that a claim's `accessModes` takes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "ReadWriteOnce",
            Self::ReadWriteOncePod => "ReadWriteOncePod",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumePolicy {
    #[default]
    Retain,
    Delete,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Spread {
    #[default]
    Soft,
    Required,
}

fn default_replicas() -> i32 {
    3
}

fn default_size() -> Quantity {
    Quantity("10Gi".into())
}

fn default_log_budget() -> Quantity {
    Quantity("1Gi".into())
}

fn default_after() -> String {
    "5m".into()
}

fn default_max_per_hour() -> i32 {
    1
}

fn default_requests() -> BTreeMap<String, Quantity> {
    BTreeMap::from([
        ("cpu".into(), Quantity("100m".into())),
        ("memory".into(), Quantity("512Mi".into())),
    ])
}
