//! What a member needs to fill its disk from a bucket: the order, and the rights to the bucket.

use crds::destination::{Destination, Lineage};
use crds::names::RESTORE_VOLUME;
use k8s_openapi::api::core::v1::{PodSpec, SecretVolumeSource, Volume, VolumeMount};
use serde_json::{Value, json};

use crate::observe::RestoreOrder;

const CREDENTIALS_DIR: &str = "/restore";
/// Below it: one set of credentials.
const CREDENTIALS: &str = "source";

/// Arguments of the member.
pub fn arguments(order: &RestoreOrder) -> Vec<String> {
    let source = &order.source;
    let credentials = source.destination.credentials.as_ref().map(|_| CREDENTIALS);
    let mut said = order_of(&source.destination, &source.lineage, credentials);
    said["backup"] = json!(source.backup);
    said["uptoIndex"] = json!(order.upto.index);
    let time = order.upto.time.as_ref();
    said["uptoTimeMs"] = json!(time.map(|time| time.0.as_millisecond()));
    let mut arguments = vec![format!("--restore={}", without_nulls(said))];
    if credentials.is_some() {
        arguments.push(format!("--backup-credentials-dir={CREDENTIALS_DIR}"));
    }
    arguments
}

/// What lies where, as `Order` of the member's command line has it. `credentials` is a folder below the one that
/// is told beside it.
pub fn order_of(from: &Destination, lineage: &Lineage, credentials: Option<&str>) -> Value {
    json!({
        "url": from.url,
        "endpoint": from.endpoint,
        "region": from.region,
        "pathStyle": from.path_style,
        "account": from.account,
        "caBundle": from.ca_bundle,
        "credentials": credentials,
        "clusterId": lineage.cluster_id,
        "incarnation": lineage.incarnation,
    })
}

pub fn without_nulls(mut order: Value) -> Value {
    if let Some(fields) = order.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    order
}

/// The pod waits until the Secret is there.
pub fn mount(order: &RestoreOrder, spec: &mut PodSpec) {
    let Some(secret) = &order.source.destination.credentials else {
        return;
    };
    spec.volumes.get_or_insert_default().push(Volume {
        name: RESTORE_VOLUME.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.name.clone()),
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    });
    if let Some(container) = spec.containers.first_mut() {
        container
            .volume_mounts
            .get_or_insert_default()
            .push(VolumeMount {
                name: RESTORE_VOLUME.into(),
                mount_path: format!("{CREDENTIALS_DIR}/{CREDENTIALS}"),
                read_only: Some(true),
                ..VolumeMount::default()
            });
    }
}

#[cfg(test)]
mod tests {
    use crds::cluster::SecretName;
    use crds::restore::{BucketSource, RestoreUpto};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn an_order_names_the_bucket_and_no_secret_is_in_it() {
        let lineage = Lineage {
            cluster_id: "lost".into(),
            incarnation: 4,
        };
        let mut order = RestoreOrder {
            source: BucketSource {
                destination: Destination {
                    url: "s3://bucket/team".into(),
                    path_style: true,
                    ..Destination::default()
                },
                lineage,
                backup: None,
            },
            upto: RestoreUpto {
                index: None,
                time: Some(Time("2026-01-31T12:00:00Z".parse().expect("a time"))),
            },
        };
        assert_eq!(
            arguments(&order),
            [
                "--restore={\"clusterId\":\"lost\",\"incarnation\":4,\"pathStyle\":true,\
                 \"uptoTimeMs\":1769860800000,\"url\":\"s3://bucket/team\"}"
            ]
        );
        let mut spec = PodSpec::default();
        mount(&order, &mut spec);
        assert_eq!(spec, PodSpec::default(), "the pod's own identity is used");
        let name = "keys".to_owned();
        order.source.destination.credentials = Some(SecretName { name });
        let with_credentials = arguments(&order);
        assert!(with_credentials[0].contains("\"credentials\":\"source\""));
        assert_eq!(with_credentials[1], "--backup-credentials-dir=/restore");
        mount(&order, &mut spec);
        let volumes = serde_json::to_string(&spec.volumes).expect("JSON");
        assert!(volumes.contains("\"secretName\":\"keys\""), "{volumes}");
    }
}
