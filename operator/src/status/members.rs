//! One line for every member that has a seat or a volume in use.

use std::collections::{BTreeMap, BTreeSet};

use crds::status::{Health, MemberStatus, Role};
use crds::{MemberId, TaskStoreCluster, names};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::observe::{Leader, Link, Observed, PeerHealth, Phase, VolumeState};
use crate::plan::{Plan, Seat, loss, roster};
use crate::resources::cluster_name;

pub fn seats(plan: &Plan, leader: Option<&Leader<'_>>) -> BTreeMap<MemberId, Seat> {
    plan.progress
        .identity
        .as_ref()
        .map(|identity| roster(identity, &plan.progress, leader))
        .unwrap_or_default()
}

pub fn members(
    cluster: &TaskStoreCluster,
    observed: &Observed,
    plan: &Plan,
    leader: Option<&Leader<'_>>,
    now: Timestamp,
) -> Vec<MemberStatus> {
    let seats = seats(plan, leader);
    let in_use = observed
        .volumes
        .values()
        .filter(|volume| {
            volume.state != VolumeState::Retired || observed.pod_of(volume.member).is_some()
        })
        .map(|volume| volume.member);
    let ids: BTreeSet<MemberId> = seats.keys().copied().chain(in_use).collect();
    let old = cluster
        .status
        .as_ref()
        .map(|status| status.members.as_slice())
        .unwrap_or_default();
    ids.into_iter()
        .map(|id| {
            let before = old.iter().find(|known| known.id == id);
            let role = match seats.get(&id) {
                Some(Seat::Voter) => Role::Voter,
                Some(Seat::Learner) => Role::Learner,
                Some(Seat::Joining) => Role::Joining,
                None => Role::Leaving,
            };
            let health = health(observed, leader, id, before);
            let since = before
                .filter(|known| known.role == role && known.health == health)
                .and_then(|known| known.since.clone())
                .unwrap_or(Time(now));
            // A leader's word, without a break: a new one, or a new operator, starts to count anew.
            let lost_since = leader
                .filter(|_| role != Role::Leaving)
                .and_then(|leader| {
                    let volume_uid = before.and_then(|known| known.pvc_uid.as_deref());
                    loss::of(observed, leader, id, volume_uid)
                })
                .map(|_| before.and_then(|known| known.lost_since.clone()))
                .map(|known| known.unwrap_or(Time(loss::begins(now))));
            let pod = observed.pod_of(id);
            let version = observed
                .members
                .get(&id)
                .and_then(|member| member.report.as_ref())
                .map(|report| report.version.clone())
                .filter(|version| !version.is_empty());
            MemberStatus {
                id,
                pod: names::pod(cluster_name(cluster), id),
                // The first that was seen, for life: another one of the same name is told by it.
                pvc_uid: before
                    .and_then(|known| known.pvc_uid.clone())
                    .or_else(|| observed.volume_of(id).map(|volume| volume.uid.clone())),
                // Where it last ran stays known while its pod is made again: its volume may be there.
                node: pod
                    .and_then(|pod| pod.node.clone())
                    .or_else(|| before.and_then(|known| known.node.clone())),
                zone: pod
                    .and_then(|pod| pod.zone.clone())
                    .or_else(|| before.and_then(|known| known.zone.clone())),
                role,
                health,
                since: Some(since),
                lost_since,
                version: version.or_else(|| before.and_then(|known| known.version.clone())),
            }
        })
        .collect()
}

/// A leader's word counts most; then the member's own; what nobody says is unknown.
fn health(
    observed: &Observed,
    leader: Option<&Leader<'_>>,
    id: MemberId,
    before: Option<&MemberStatus>,
) -> Health {
    let own = observed
        .members
        .get(&id)
        .filter(|member| member.link == Link::Connected);
    let report = own.and_then(|member| member.report.as_ref());
    match report.map(|report| report.phase) {
        Some(Phase::Damaged) => return Health::Damaged,
        Some(Phase::Blank) => {
            let is_formatted = observed
                .volume_of(id)
                .is_some_and(|volume| volume.state == VolumeState::Formatted);
            return if is_formatted {
                Health::Blank
            } else {
                Health::Starting
            };
        }
        _ => {}
    }
    if let Some(leader) = leader {
        if leader.id == id {
            return Health::CaughtUp;
        }
        if let Some(peer) = leader.raft.peers.get(&id) {
            return match peer.health {
                PeerHealth::CaughtUp => Health::CaughtUp,
                PeerHealth::Lagging => Health::Lagging,
                PeerHealth::Unreachable => Health::Unreachable,
                PeerHealth::Unknown => Health::Unknown,
            };
        }
    }
    match report.map(|report| report.phase) {
        Some(Phase::Starting | Phase::Empty | Phase::Recovering) => Health::Starting,
        // It serves and only misses a leader for a moment: an election flips nothing here.
        Some(Phase::Serving) => before.map_or(Health::Starting, |known| known.health),
        _ => Health::Unknown,
    }
}

/// Voters that a Service sends clients to.
pub fn ready_voters(observed: &Observed, plan: &Plan) -> usize {
    let Some(membership) = plan.progress.membership.as_ref() else {
        return 0;
    };
    membership
        .voters
        .iter()
        .filter(|voter| observed.pod_of(**voter).is_some_and(|pod| pod.ready))
        .count()
}
