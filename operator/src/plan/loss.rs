//! Whether a member can do its work, and why not. Unknown is not lost: only a leader's word, the volume that
//! is (not) there, and what the member says of its own disk count.

use crds::MemberId;
use jiff::{SignedDuration, Timestamp};

use crate::observe::{Leader, Life, Observed, PeerHealth, Phase, VolumeState};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The leader does not reach it.
    Silent,
    /// Its volume is gone, or is another one of the same name.
    VolumeGone,
    /// Its volume is labelled retired while it has its seat.
    VolumeRetired,
    /// An empty directory where its disk should be.
    Emptied,
    /// It refuses its own disk.
    Damaged,
}

/// What keeps a member of the configuration, or one that has had a volume, from its work; `volume_uid` is
/// that of the one volume it was seen with.
pub fn of(
    observed: &Observed,
    leader: &Leader<'_>,
    member: MemberId,
    volume_uid: Option<&str>,
) -> Option<Loss> {
    let is_member = leader.raft.membership.contains(member);
    if !is_member && volume_uid.is_none() {
        return None;
    }
    volume(observed, member, volume_uid)
        .or_else(|| disk(observed, member).filter(|_| is_member))
        .or_else(|| is_silent(leader, member).then_some(Loss::Silent))
}

/// What is wrong with the volume object of a member that has had one.
pub fn volume(observed: &Observed, member: MemberId, volume_uid: Option<&str>) -> Option<Loss> {
    let Some(volume) = observed.volume_of(member) else {
        return Some(Loss::VolumeGone);
    };
    let is_another = volume_uid.is_some_and(|uid| uid != volume.uid);
    // While its pod runs it is still there.
    let is_going = volume.life == Life::Deleting && observed.pod_of(member).is_none();
    if is_another || is_going {
        Some(Loss::VolumeGone)
    } else if volume.state == VolumeState::Retired {
        Some(Loss::VolumeRetired)
    } else {
        None
    }
}

/// What a member that was once formatted says of its disk.
pub fn disk(observed: &Observed, member: MemberId) -> Option<Loss> {
    match observed.report_of(member)?.phase {
        Phase::Blank => Some(Loss::Emptied),
        Phase::Damaged => Some(Loss::Damaged),
        _ => None,
    }
}

fn is_silent(leader: &Leader<'_>, member: MemberId) -> bool {
    let peer = leader.raft.peers.get(&member);
    peer.is_some_and(|peer| peer.health == PeerHealth::Unreachable)
}

/// When a loss that is seen now began, in whole seconds, as status keeps it; rounded up, because "at least so
/// long" must not end early.
pub fn begins(now: Timestamp) -> Timestamp {
    let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
    if second == now {
        return now;
    }
    second
        .checked_add(SignedDuration::from_secs(1))
        .unwrap_or(now)
}
