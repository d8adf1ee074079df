//! Volumes grow to the size that the spec asks for, under their running members. Not every class can: what the
//! API server refuses is asked for again only after a while, because somebody may have put it right.

use crds::quantity;
use crds::status::Identity;
use jiff::SignedDuration;

use super::{Action, Draft, Waiting, roster};
use crate::observe::{Life, VolumeState};

const ASK_AGAIN: SignedDuration = SignedDuration::from_mins(10);

pub fn plan(draft: &mut Draft<'_>, identity: &Identity) {
    let observed = draft.observed;
    let size = &draft.cluster.spec.storage.size;
    let Some(bytes) = quantity::units(size) else {
        return;
    };
    let seats = roster(identity, &draft.plan.progress, draft.leader.as_ref());
    for member in seats.into_keys() {
        let volume = observed
            .volume_of(member)
            .filter(|volume| volume.state != VolumeState::Retired && volume.life == Life::Present);
        let Some(volume) = volume.filter(|volume| draft.is_the_one(volume)) else {
            continue;
        };
        if volume.requested_bytes >= bytes {
            let is_growing = |capacity: u64| capacity < volume.requested_bytes;
            if volume.capacity_bytes.is_some_and(is_growing) {
                draft.wait(Waiting::VolumesGrowing {
                    members: vec![member],
                });
            }
            continue;
        }
        // Only a bound claim may grow; that it is bound is an event.
        if volume.capacity_bytes.is_none() {
            draft.wait(Waiting::VolumesGrowing {
                members: vec![member],
            });
            continue;
        }
        let refused = observed.refused_growth.get(&member);
        let refused = refused.filter(|refused| refused.bytes == bytes);
        let again = refused.and_then(|refused| refused.at.checked_add(ASK_AGAIN).ok());
        if let (Some(refused), Some(again)) = (refused, again.filter(|again| *again > draft.now)) {
            draft.wake_at(again);
            draft.wait(Waiting::GrowthRefused {
                members: vec![member],
                words: refused.words.clone(),
            });
            continue;
        }
        draft.act(Action::GrowVolume {
            member,
            size: size.0.clone(),
            version: volume.version.clone(),
        });
        // Nothing tells us of a refusal but the answer.
        draft.wake_at(draft.now);
    }
}
