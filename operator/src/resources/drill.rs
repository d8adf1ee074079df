//! The pod of a restore drill: it reads the bucket with the members' rights and resources, is in no Service and no
//! budget, knows no member and keeps nothing.

use std::collections::BTreeMap;

use crds::TaskStoreCluster;
use crds::destination::{Destination, Lineage};
use crds::names::{self, annotation, label};
use crds::restore::RestoreUpto;
use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, Pod, PodSpec, Volume, VolumeMount,
};

use super::{backup, cluster_name, labels, metadata, pod, restore};

pub const CONTAINER: &str = "drill";
const SCRATCH: &str = "scratch";
const SCRATCH_DIR: &str = "/scratch";
/// What the kubelet shows of a container that has ended.
const REPORT: &str = "/dev/termination-log";
/// A bucket that takes longer is reported as a problem.
const SECONDS_MAX: i64 = 6 * 3600;

pub fn build(
    cluster: &TaskStoreCluster,
    from: &Destination,
    lineage: &Lineage,
    about: &str,
    image: &str,
) -> Pod {
    let mut metadata = metadata(cluster, names::drill(cluster_name(cluster)));
    let mut labels = labels(cluster);
    labels.insert(label::APP_COMPONENT.into(), label::COMPONENT_DRILL.into());
    metadata.labels = Some(labels);
    let about = (annotation::DRILL_OF.to_owned(), about.to_owned());
    metadata.annotations = Some(BTreeMap::from([about]));
    let order = restore::order(from, lineage, None, &RestoreUpto::default());
    let mut spec = alone(cluster);
    if let Some(container) = spec.containers.first_mut() {
        container.image = Some(image.to_owned());
        container.args = Some(vec![
            "drill".to_owned(),
            format!("--order={order}"),
            format!("--scratch-dir={SCRATCH_DIR}"),
            format!("--report={REPORT}"),
        ]);
        container.volume_mounts = Some(vec![VolumeMount {
            name: SCRATCH.into(),
            mount_path: SCRATCH_DIR.into(),
            ..VolumeMount::default()
        }]);
    }
    if let Some(secret) = &from.credentials {
        backup::mount(&secret.name, true, &mut spec);
    }
    Pod {
        metadata,
        spec: Some(spec),
        ..Pod::default()
    }
}

/// A member's pod without anything that a member needs.
fn alone(cluster: &TaskStoreCluster) -> PodSpec {
    let template = pod::template(cluster);
    let containers = template.containers.into_iter().map(|member| Container {
        name: CONTAINER.into(),
        ports: None,
        startup_probe: None,
        liveness_probe: None,
        readiness_probe: None,
        ..member
    });
    PodSpec {
        subdomain: None,
        restart_policy: Some("Never".into()),
        active_deadline_seconds: Some(SECONDS_MAX),
        topology_spread_constraints: None,
        volumes: Some(vec![Volume {
            name: SCRATCH.into(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(cluster.spec.storage.size.clone()),
                ..EmptyDirVolumeSource::default()
            }),
            ..Volume::default()
        }]),
        containers: containers.collect(),
        ..template
    }
}

#[cfg(test)]
mod tests {
    use crds::cluster::SecretName;
    use crds::{BackupPolicy, TaskStoreClusterSpec};

    use super::*;

    #[test]
    fn a_drill_is_no_member_and_has_their_rights() {
        let mut cluster = TaskStoreCluster::new("demo", TaskStoreClusterSpec::default());
        let mut policy = BackupPolicy::default();
        policy.destination.url = "s3://bucket".into();
        let name = "keys".to_owned();
        policy.destination.credentials = Some(SecretName { name });
        cluster.spec.backup = Some(policy.clone());
        let lineage = Lineage {
            cluster_id: "c".into(),
            incarnation: 2,
        };
        let pod = build(
            &cluster,
            &policy.destination,
            &lineage,
            "about",
            "taskstore:1",
        );
        let spec = pod.spec.expect("rendered");
        let args = spec.containers[0].args.clone().expect("rendered");
        assert_eq!(
            args,
            [
                "drill",
                "--order={\"clusterId\":\"c\",\"credentials\":\"backup\",\"incarnation\":2,\"pathStyle\":false,\
                 \"url\":\"s3://bucket\"}",
                "--scratch-dir=/scratch",
                "--report=/dev/termination-log",
                "--backup-credentials-dir=/credentials",
            ]
        );
        let labels = pod.metadata.labels.expect("rendered");
        assert!(!labels.contains_key(label::MEMBER_ID) && !labels.contains_key(label::VOTER));
        let selected = super::super::member_selector(&cluster);
        assert!(
            selected
                .iter()
                .any(|(key, value)| labels.get(key) != Some(value))
        );
        assert_eq!(backup::mounted(&spec), Some("keys"));
    }
}
