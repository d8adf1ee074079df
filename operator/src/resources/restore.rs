//! What a member needs to fill its disk from a bucket: the order, and the rights to the bucket.

use crds::names::RESTORE_VOLUME;
use k8s_openapi::api::core::v1::{PodSpec, SecretVolumeSource, Volume, VolumeMount};
use serde_json::json;

use crate::observe::RestoreOrder;

const CREDENTIALS_DIR: &str = "/restore";
/// Below it: one set of credentials.
const CREDENTIALS: &str = "source";

/// Arguments of the member; the order is `Order` of the member's command line.
pub fn arguments(order: &RestoreOrder) -> Vec<String> {
    let (from, upto) = (&order.source.destination, &order.upto);
    let credentials = from.credentials.as_ref().map(|_| CREDENTIALS);
    let mut order = json!({
        "url": from.url,
        "endpoint": from.endpoint,
        "region": from.region,
        "pathStyle": from.path_style,
        "account": from.account,
        "caBundle": from.ca_bundle,
        "credentials": credentials,
        "clusterId": order.source.lineage.cluster_id,
        "incarnation": order.source.lineage.incarnation,
        "backup": order.source.backup,
        "uptoIndex": upto.index,
        "uptoTimeMs": upto.time.as_ref().map(|time| time.0.as_millisecond()),
    });
    if let Some(fields) = order.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    let mut arguments = vec![format!("--restore={order}")];
    if credentials.is_some() {
        arguments.push(format!("--backup-credentials-dir={CREDENTIALS_DIR}"));
    }
    arguments
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
