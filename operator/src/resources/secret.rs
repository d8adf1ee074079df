//! Secrets with certificates, and the CA that clients trust.

use std::collections::BTreeMap;

use crds::cluster::VolumePolicy;
use crds::names::{self, label};
use crds::{MemberId, TaskStoreCluster};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::{cluster_name, metadata, owner};
use crate::certificates::Pair;

pub const CA_CERTIFICATE: &str = "ca.crt";
pub const CA_KEY: &str = "ca.key";
pub const PEER_CERTIFICATE: &str = "peer.crt";
pub const PEER_KEY: &str = "peer.key";
/// The names that Secrets of type kubernetes.io/tls use, so that a user's Secret fits the same place.
pub const CLIENT_CERTIFICATE: &str = "tls.crt";
pub const CLIENT_KEY: &str = "tls.key";

/// Stays with kept volumes: a cluster created again takes it up with them.
pub fn authority(cluster: &TaskStoreCluster, cluster_id: &str, pair: &Pair) -> Secret {
    let mut secret = secret(
        cluster,
        names::ca_secret(cluster_name(cluster)),
        "Opaque",
        [
            (CA_CERTIFICATE, &pair.certificate_pem),
            (CA_KEY, &pair.key_pem),
        ],
    );
    secret
        .metadata
        .labels
        .get_or_insert_default()
        .insert(label::CLUSTER_ID.into(), cluster_id.into());
    secret.metadata.owner_references = match cluster.spec.storage.when_deleted {
        VolumePolicy::Delete => Some(vec![owner(cluster)]),
        VolumePolicy::Retain => None,
    };
    secret
}

/// A member's own certificate, and the CA it checks its peers and the operator with.
pub fn member(cluster: &TaskStoreCluster, member: MemberId, ca_pem: &str, pair: &Pair) -> Secret {
    secret(
        cluster,
        names::member_secret(cluster_name(cluster), member),
        "Opaque",
        [
            (CA_CERTIFICATE, ca_pem),
            (PEER_CERTIFICATE, &pair.certificate_pem),
            (PEER_KEY, &pair.key_pem),
        ],
    )
}

/// The certificate of the client port, one for all members.
pub fn client(cluster: &TaskStoreCluster, ca_pem: &str, pair: &Pair) -> Secret {
    secret(
        cluster,
        names::client_secret(cluster_name(cluster)),
        "kubernetes.io/tls",
        [
            (CA_CERTIFICATE, ca_pem),
            (CLIENT_CERTIFICATE, &pair.certificate_pem),
            (CLIENT_KEY, &pair.key_pem),
        ],
    )
}

pub fn ca_config_map(cluster: &TaskStoreCluster, ca_pem: &str) -> ConfigMap {
    ConfigMap {
        metadata: metadata(cluster, names::ca_config_map(cluster_name(cluster))),
        data: Some(BTreeMap::from([(CA_CERTIFICATE.into(), ca_pem.into())])),
        ..ConfigMap::default()
    }
}

/// One text of a Secret.
pub fn entry(found: &Secret, key: &str) -> Option<String> {
    String::from_utf8(found.data.as_ref()?.get(key)?.0.clone()).ok()
}

/// A certificate and its key, as they lie under these names.
pub fn pair(found: &Secret, certificate: &str, key: &str) -> Option<Pair> {
    Some(Pair {
        certificate_pem: entry(found, certificate)?,
        key_pem: entry(found, key)?,
    })
}

fn secret<const N: usize>(
    cluster: &TaskStoreCluster,
    name: String,
    kind: &str,
    entries: [(&str, &str); N],
) -> Secret {
    Secret {
        metadata: metadata(cluster, name),
        type_: Some(kind.into()),
        data: Some(
            entries
                .into_iter()
                .map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())))
                .collect(),
        ),
        ..Secret::default()
    }
}
