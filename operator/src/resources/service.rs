//! The headless Service that gives every member its name, and the one that clients use.

use crds::TaskStoreCluster;
use crds::names::{self, ADMIN_PORT, CLIENT_PORT, PEER_PORT};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{cluster_name, member_selector, metadata};

/// Publishes addresses of members that are not Ready: they must find each other to become so.
pub fn peers(cluster: &TaskStoreCluster) -> Service {
    Service {
        metadata: metadata(cluster, names::peer_service(cluster_name(cluster))),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".into()),
            publish_not_ready_addresses: Some(true),
            selector: Some(member_selector(cluster)),
            ports: Some(vec![
                port("client", CLIENT_PORT),
                port("admin", ADMIN_PORT),
                port("peers", PEER_PORT),
            ]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// Any Ready member: followers forward to the leader.
pub fn clients(cluster: &TaskStoreCluster) -> Service {
    Service {
        metadata: metadata(cluster, names::client_service(cluster_name(cluster))),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            selector: Some(member_selector(cluster)),
            ports: Some(vec![port("client", CLIENT_PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.into()),
        port: i32::from(number),
        target_port: Some(IntOrString::Int(i32::from(number))),
        protocol: Some("TCP".into()),
        ..ServicePort::default()
    }
}
