//! Which members are listened to: the leader, who knows of everybody, and those it cannot know of.

use std::collections::BTreeMap;

use crds::names::{self, ADMIN_PORT};
use crds::{MemberId, TaskStoreCluster};

use super::{Observed, Pod, PodPhase};
use crate::clients::members::Target;

/// Without a leader, and while it is not recorded who the cluster is, everybody with an address.
pub fn wanted(observed: &Observed, cluster: &TaskStoreCluster) -> BTreeMap<MemberId, Target> {
    let status = cluster.status.clone().unwrap_or_default();
    let leader = status
        .identity
        .as_ref()
        .and_then(|identity| observed.leader(Some(identity), status.membership.as_ref()));
    observed
        .pods
        .values()
        .filter(|pod| pod.phase != PodPhase::Ended)
        .filter(|pod| {
            leader.is_none_or(|leader| {
                leader.id == pod.member
                    || !leader.raft.membership.contains(pod.member)
                    // What the leader does not reach may tell us itself why.
                    || !leader.is_alive(pod.member)
                    // Only itself knows of its fence; one that is not Ready may have one.
                    || cluster.spec.fenced.contains(&pod.member)
                    || !pod.ready
            })
        })
        .filter_map(|pod| Some((pod.member, target(pod)?)))
        .collect()
}

/// Where the member of a pod is reached, once it has an address.
pub fn target(pod: &Pod) -> Option<Target> {
    let ip = pod.ip.as_deref()?;
    let address = if ip.contains(':') {
        format!("[{ip}]:{ADMIN_PORT}")
    } else {
        format!("{ip}:{ADMIN_PORT}")
    };
    Some(Target {
        address,
        server_name: names::member_tls_name(&pod.cluster_id, pod.member),
    })
}
