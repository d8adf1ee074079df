//! Who this cluster is. An empty status is never taken for a new cluster while any volume that was ever
//! stamped carries its name: backup tools, `replace --force` and re-creation all lose status.

use std::collections::BTreeSet;

use crds::MemberId;
use crds::status::{Identity, OperationKind, Step};

use super::{Draft, Waiting, healing, restore};
use crate::observe::{Life, Owner, PodPhase, Start, Volume, VolumeState};

/// The first incarnation of a cluster; restores and recoveries take higher ones.
const FIRST_INCARNATION: u16 = 1;

pub enum Known {
    /// Not yet, or just decided: to be recorded before anything else.
    Nothing,
    Recorded(Identity),
    /// Status is lost, members run: their leader is asked, nothing is stopped.
    Asking {
        cluster_id: String,
    },
    /// Volumes without pods: they are read before anything votes.
    Inspecting {
        cluster_id: String,
        members: Vec<MemberId>,
    },
}

pub fn settle(draft: &mut Draft<'_>) -> Known {
    if let Some(identity) = draft.recorded.identity.clone() {
        return Known::Recorded(identity);
    }
    if wait_for_earlier_objects(draft) {
        return Known::Nothing;
    }
    let volumes: Vec<&Volume> = draft
        .observed
        .volumes
        .values()
        .filter(|volume| volume.state != VolumeState::Retired)
        .collect();
    let ids: BTreeSet<(&str, u16)> = volumes
        .iter()
        .map(|volume| (volume.cluster_id.as_str(), volume.member.incarnation()))
        .collect();
    let (cluster_id, incarnation) = match ids.len() {
        0 if draft.cluster.spec.restored_by.is_some() => {
            restore::begin(draft);
            return Known::Nothing;
        }
        0 => {
            found(draft);
            return Known::Nothing;
        }
        1 => ids
            .first()
            .map(|(id, incarnation)| ((*id).to_owned(), *incarnation))
            .expect("one of them"),
        _ => {
            let ids = ids
                .iter()
                .map(|(id, incarnation)| format!("{id}/{incarnation}"))
                .collect();
            draft.wait(Waiting::VolumesOfSeveralClusters { ids });
            return Known::Nothing;
        }
    };
    let mut members: Vec<MemberId> = volumes.iter().map(|volume| volume.member).collect();
    members.sort_unstable();
    if volumes
        .iter()
        .all(|volume| volume.state == VolumeState::Unformatted)
    {
        match (&draft.cluster.spec.restored_by, members.first()) {
            (Some(_), Some(first)) => restore::resume(draft, cluster_id, *first),
            _ => resume(draft, cluster_id, incarnation, &members),
        }
        return Known::Nothing;
    }
    let someone_serves = draft
        .observed
        .pods
        .values()
        .any(|pod| pod.start == Start::Serve && pod.phase != PodPhase::Ended);
    if someone_serves {
        return ask(draft, cluster_id);
    }
    if !draft.is_operation(OperationKind::Adopt) {
        draft.begin(
            format!("adopt-{cluster_id}"),
            OperationKind::Adopt,
            Step::Inspect,
            members.clone(),
        );
        return Known::Nothing;
    }
    Known::Inspecting {
        cluster_id,
        members,
    }
}

/// A new cluster. Its UID makes the id, so two operators cannot mint different ones; its numbers start
/// above those of every volume that still carries its name.
fn found(draft: &mut Draft<'_>) {
    let highest = draft
        .observed
        .volumes
        .values()
        .map(|volume| volume.member.number())
        .max()
        .unwrap_or(0);
    let count = u32::try_from(draft.replicas()).unwrap_or(1);
    let founders = (1..=count)
        .map(|n| MemberId::new(FIRST_INCARNATION, highest + n))
        .collect();
    let cluster_id = draft.cluster.metadata.uid.clone().unwrap_or_default();
    bootstrap(draft, cluster_id, FIRST_INCARNATION, founders);
}

/// Nothing was ever stamped, so no configuration exists anywhere: the same first set is made on.
fn resume(draft: &mut Draft<'_>, cluster_id: String, incarnation: u16, members: &[MemberId]) {
    let lowest = members.first().map_or(1, |member| member.number());
    let count = u32::try_from(draft.replicas()).unwrap_or(1);
    let founders = (lowest..lowest + count)
        .map(|n| MemberId::new(incarnation, n))
        .collect();
    bootstrap(draft, cluster_id, incarnation, founders);
}

pub fn bootstrap(
    draft: &mut Draft<'_>,
    cluster_id: String,
    incarnation: u16,
    founders: Vec<MemberId>,
) {
    draft.begin(
        format!("bootstrap-{incarnation}"),
        OperationKind::Bootstrap,
        Step::Format,
        founders.clone(),
    );
    draft.plan.progress.identity = Some(Identity {
        cluster_id,
        incarnation,
        founders,
        initialized: false,
    });
}

fn ask(draft: &mut Draft<'_>, cluster_id: String) -> Known {
    let Some(leader) = draft.leader else {
        draft.wait(Waiting::LostStatusWithoutLeader);
        let observed = draft.observed;
        for pod in observed.pods.values() {
            if pod.phase == PodPhase::Ended && pod.life == Life::Present {
                healing::clear(draft, pod);
            }
        }
        return Known::Asking { cluster_id };
    };
    let membership = &leader.raft.membership;
    draft.plan.progress.identity = Some(Identity {
        cluster_id,
        incarnation: leader.id.incarnation(),
        founders: membership.voters.iter().copied().collect(),
        initialized: true,
    });
    draft.plan.progress.membership = Some(membership.to_status());
    Known::Nothing
}

/// Pods and volumes that belong to an earlier object of this name are about to be collected; deciding on
/// them would decide on a world that is already gone.
fn wait_for_earlier_objects(draft: &mut Draft<'_>) -> bool {
    let pods = draft
        .observed
        .pods
        .values()
        .filter(|pod| pod.owner == Owner::Other)
        .map(|pod| format!("pod {}", pod.name));
    let volumes = draft
        .observed
        .volumes
        .values()
        .filter(|volume| volume.owner == Owner::Other || volume.life == Life::Deleting)
        .map(|volume| format!("volume {}", volume.name));
    let names: Vec<String> = pods.chain(volumes).collect();
    let found_any = !names.is_empty();
    if found_any {
        draft.wait(Waiting::EarlierObjects { names });
    }
    found_any
}
