//! The one volume a member has for life.

use std::collections::BTreeMap;

use crds::cluster::VolumePolicy;
use crds::names;
use crds::{MemberId, TaskStoreCluster};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};

use super::{cluster_name, member_labels, metadata, owner};

/// Identity is on it from its creation, so that it can be found again without any status.
pub fn build(
    cluster: &TaskStoreCluster,
    cluster_id: &str,
    member: MemberId,
) -> PersistentVolumeClaim {
    let storage = &cluster.spec.storage;
    let mut metadata = metadata(cluster, names::volume_claim(cluster_name(cluster), member));
    metadata.labels = Some(member_labels(cluster, cluster_id, member));
    metadata.owner_references = match storage.when_deleted {
        VolumePolicy::Delete => Some(vec![owner(cluster)]),
        VolumePolicy::Retain => None,
    };
    PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![storage.access_mode.as_str().into()]),
            storage_class_name: storage.class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".into(), storage.size.clone())])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}
