//! What each object looks like: one pure builder per kind. Names and labels come from `crds`.
//!
//! Pods and volumes are built one per member; there is no StatefulSet, because an ordinal forces the wrong
//! member out and re-uses ids on empty disks.

pub mod backup;
pub mod disruption_budget;
pub mod drill;
pub mod pod;
pub mod restore;
pub mod secret;
pub mod service;
pub mod sidecar;
pub mod volume_claim;

use std::collections::BTreeMap;

use crds::names::label;
use crds::{MemberId, TaskStoreCluster};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

/// The uid that TaskStore runs as: any but root will do, this one is nobody else's by custom.
pub const RUN_AS: i64 = 65_532;

pub fn cluster_name(cluster: &TaskStoreCluster) -> &str {
    cluster.metadata.name.as_deref().unwrap_or_default()
}

pub fn namespace(cluster: &TaskStoreCluster) -> &str {
    cluster.metadata.namespace.as_deref().unwrap_or_default()
}

/// The reference that makes an object go with its cluster.
pub fn owner(cluster: &TaskStoreCluster) -> OwnerReference {
    OwnerReference {
        api_version: TaskStoreCluster::api_version(&()).into_owned(),
        kind: TaskStoreCluster::kind(&()).into_owned(),
        name: cluster_name(cluster).to_owned(),
        uid: cluster.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        // Foreground deletion of the cluster waits for nothing of ours: it must never hang.
        block_owner_deletion: None,
    }
}

/// Labels of everything we make for a cluster.
pub fn labels(cluster: &TaskStoreCluster) -> BTreeMap<String, String> {
    [
        (label::APP_NAME, label::APP_NAME_VALUE),
        (label::APP_INSTANCE, cluster_name(cluster)),
        (label::MANAGED_BY, label::MANAGED_BY_VALUE),
        (label::CLUSTER, cluster_name(cluster)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// Labels of a member's pod and volume: its whole identity.
pub fn member_labels(
    cluster: &TaskStoreCluster,
    cluster_id: &str,
    member: MemberId,
) -> BTreeMap<String, String> {
    let mut labels = labels(cluster);
    labels.insert(label::APP_COMPONENT.into(), label::COMPONENT_MEMBER.into());
    labels.insert(label::CLUSTER_ID.into(), cluster_id.into());
    labels.insert(label::INCARNATION.into(), member.incarnation().to_string());
    labels.insert(label::MEMBER_ID.into(), member.to_string());
    labels
}

/// What Services select: every member's pod of the cluster.
pub fn member_selector(cluster: &TaskStoreCluster) -> BTreeMap<String, String> {
    [
        (label::APP_COMPONENT, label::COMPONENT_MEMBER),
        (label::CLUSTER, cluster_name(cluster)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

pub fn metadata(cluster: &TaskStoreCluster, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: cluster.metadata.namespace.clone(),
        labels: Some(labels(cluster)),
        owner_references: Some(vec![owner(cluster)]),
        ..ObjectMeta::default()
    }
}

/// The members' account: it may do nothing, and no token is mounted.
pub fn service_account(cluster: &TaskStoreCluster) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(cluster, crds::names::service_account(cluster_name(cluster))),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// Whether everything we set is there as we set it. What the API server adds by default does not count.
pub fn covers(actual: &serde_json::Value, wanted: &serde_json::Value) -> bool {
    use serde_json::Value;
    match (actual, wanted) {
        (Value::Object(actual), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, value)| actual.get(key).is_some_and(|found| covers(found, value))),
        (Value::Array(actual), Value::Array(wanted)) => {
            actual.len() == wanted.len() && actual.iter().zip(wanted).all(|(a, w)| covers(a, w))
        }
        (actual, wanted) => actual == wanted,
    }
}
