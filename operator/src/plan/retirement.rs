//! Members that left: certificate, volume and pod, in this order and only after the removal committed.

use crds::cluster::VolumePolicy;
use crds::status::{Identity, OperationKind};

use super::action::PodEnd;
use super::{Action, Draft, Progress, roster};
use crate::observe::{Life, Start, Volume, VolumeState};

pub fn plan(draft: &mut Draft<'_>, identity: &Identity) {
    let observed = draft.observed;
    for volume in observed
        .volumes
        .values()
        .filter(|volume| volume.life == Life::Present)
    {
        match volume.state {
            VolumeState::Retired => bury(draft, volume),
            VolumeState::Formatted | VolumeState::Unformatted => {
                retire_when_left(draft, identity, volume)
            }
        }
    }
}

/// A volume whose member is in no configuration and in no operation. Only a current leader can tell, and
/// only when what it says is already recorded: then an operation that is about to add the member is
/// recorded as well, and the action is refused if the cluster object moved meanwhile.
fn retire_when_left(draft: &mut Draft<'_>, identity: &Identity, volume: &Volume) {
    let Some(leader) = draft.leader else {
        return;
    };
    let is_settled =
        identity.initialized && draft.plan.progress == Progress::recorded(draft.cluster);
    if !is_settled || leader.raft.membership.is_joint() || volume.cluster_id != identity.cluster_id
    {
        return;
    }
    if draft.is_operation(OperationKind::Bootstrap) || draft.is_operation(OperationKind::Adopt) {
        return;
    }
    let seats = roster(identity, &draft.plan.progress, Some(&leader));
    if seats.contains_key(&volume.member) {
        return;
    }
    draft.act(Action::RetireVolume {
        member: volume.member,
        version: volume.version.clone(),
    });
}

/// What is left of a retired member: its place in the budget, its certificate, its pod, and its volume
/// when the spec says so.
fn bury(draft: &mut Draft<'_>, volume: &Volume) {
    let member = volume.member;
    match draft.observed.pod_of(member) {
        Some(pod) if pod.life == Life::Present => {
            if pod.is_voter && pod.start == Start::Serve {
                draft.act(Action::UnmarkVoter {
                    member,
                    version: pod.version.clone(),
                });
            }
            draft.act(Action::DeleteCertificate { member });
            draft.act(Action::DeletePod {
                member,
                uid: pod.uid.clone(),
                why: PodEnd::Retired,
            });
        }
        Some(_) => {}
        None => {
            if draft.cluster.spec.storage.when_scaled == VolumePolicy::Delete {
                draft.act(Action::DeleteVolume {
                    member,
                    uid: volume.uid.clone(),
                });
            }
        }
    }
}
