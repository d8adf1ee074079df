//! Members that left: certificate, volume and pod, in this order and only after the removal committed.
//!
//! The label on a volume says what we did, not that it was right: people set it as well. What it names is
//! taken away only when a current leader's configuration says that the member has left.

use crds::MemberId;
use crds::cluster::VolumePolicy;
use crds::status::{Identity, OperationKind};

use super::action::PodEnd;
use super::{Action, Draft, Progress, roster};
use crate::observe::{Life, Pod, Start, Volume, VolumeState};

pub fn plan(draft: &mut Draft<'_>, identity: &Identity) {
    let observed = draft.observed;
    for volume in observed
        .volumes
        .values()
        .filter(|volume| volume.life == Life::Present)
    {
        let has_left = has_left(draft, identity, volume.member, &volume.cluster_id);
        match volume.state {
            VolumeState::Retired => bury(draft, volume, has_left),
            VolumeState::Formatted | VolumeState::Unformatted if has_left => {
                draft.act(Action::RetireVolume {
                    member: volume.member,
                    version: volume.version.clone(),
                });
            }
            VolumeState::Formatted | VolumeState::Unformatted => {}
        }
    }
    for pod in observed
        .pods
        .values()
        .filter(|pod| pod.life == Life::Present && observed.volume_of(pod.member).is_none())
    {
        if has_left(draft, identity, pod.member, &pod.cluster_id) {
            unplace(draft, pod);
        }
    }
}

/// Whether a member is in no configuration and in no operation. Only a current leader can tell,
/// and only when what it says is already recorded: then an operation that is about to add the member is
/// recorded as well, and the action is refused if the cluster object moved meanwhile. Whoever cannot tell
/// waits: for a leader, for a half-done change, for the operation; each has its own words.
fn has_left(draft: &Draft<'_>, identity: &Identity, member: MemberId, cluster_id: &str) -> bool {
    let Some(leader) = draft.leader else {
        return false;
    };
    let is_settled =
        identity.initialized && draft.plan.progress == Progress::recorded(draft.cluster);
    let is_taking_up =
        draft.is_operation(OperationKind::Bootstrap) || draft.is_operation(OperationKind::Adopt);
    is_settled
        && !is_taking_up
        && !leader.raft.membership.is_joint()
        && cluster_id == identity.cluster_id
        && !roster(identity, &draft.plan.progress, Some(&leader)).contains_key(&member)
}

/// What is left of a retired member: its certificate, its pod, and its volume when the spec says so.
fn bury(draft: &mut Draft<'_>, volume: &Volume, has_left: bool) {
    let member = volume.member;
    match draft.observed.pod_of(member) {
        Some(pod) if pod.life == Life::Deleting => {}
        Some(pod) if pod.start == Start::Inspect => draft.act(Action::DeletePod {
            member,
            uid: pod.uid.clone(),
            why: PodEnd::Inspected,
        }),
        Some(pod) if has_left => unplace(draft, pod),
        None if has_left && draft.cluster.spec.storage.when_scaled == VolumePolicy::Delete => {
            draft.act(Action::DeleteVolume {
                member,
                uid: volume.uid.clone(),
            });
        }
        _ => {}
    }
}

/// Its name is free again once the kubelet agrees; nobody waits for that.
fn unplace(draft: &mut Draft<'_>, pod: &Pod) {
    if !draft.observed.credentials.withdrawn.contains(&pod.member) {
        draft.act(Action::DeleteCertificate { member: pod.member });
    }
    draft.act(Action::DeletePod {
        member: pod.member,
        uid: pod.uid.clone(),
        why: PodEnd::Retired,
    });
}
