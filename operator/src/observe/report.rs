//! A member's status, as far as decisions read it. What moves under load alone is left out, so that two
//! equal reports mean that nothing flipped.

use std::collections::{BTreeMap, BTreeSet};

use crds::MemberId;
use crds::destination::Lineage;
use crds::status::{LogId, Restored, whole_seconds};
use taskstore_api::v1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A member of a newer version may say what we do not know; it is never acted on.
    Unknown,
    /// It has just started: what it says of its volume it has not looked at yet.
    Starting,
    Blank,
    Empty,
    Recovering,
    Serving,
    Stopping,
    Damaged,
    Removed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub phase: Phase,
    pub cluster_id: String,
    pub member: MemberId,
    pub volume_uid: String,
    pub version: String,
    pub initialized: bool,
    pub ready: bool,
    /// Why it refuses its own disk; empty otherwise.
    pub damage: String,
    pub raft: Option<Raft>,
    /// How far a member has come that fills its disk from a bucket.
    pub filled: Option<Filled>,
    pub is_disk_high_water: bool,
    /// It answers no client and leads nothing.
    pub is_fenced: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filled {
    /// Of what is read now, in steps of ten percent.
    Reading {
        percent: u8,
    },
    /// It waits for its next try.
    Failing(String),
    /// No try of this order can succeed.
    Refused(String),
    Done(Box<Restored>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raft {
    pub term: u64,
    pub leads: bool,
    pub leader: Option<MemberId>,
    pub membership: Membership,
    pub peers: BTreeMap<MemberId, Peer>,
    /// How far its log reaches; absent while it leads a quorum, because load moves it then.
    pub reach: Option<Reach>,
}

/// How far a log reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    pub last: LogId,
    /// Known to be on a quorum; acknowledged entries may lie beyond.
    pub committed_index: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    pub log_id: LogId,
    pub voters: BTreeSet<MemberId>,
    pub outgoing: BTreeSet<MemberId>,
    pub learners: BTreeSet<MemberId>,
    pub is_committed: bool,
}

impl Membership {
    pub fn contains(&self, member: MemberId) -> bool {
        self.voters.contains(&member)
            || self.outgoing.contains(&member)
            || self.learners.contains(&member)
    }

    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Everybody in it, once, ordered by id.
    pub fn members(&self) -> BTreeSet<MemberId> {
        let halves = [&self.voters, &self.outgoing, &self.learners];
        halves.into_iter().flatten().copied().collect()
    }

    /// Whether the voters that can be counted on are a quorum of every half.
    pub fn is_quorum(&self, counts: impl Fn(MemberId) -> bool) -> bool {
        [&self.voters, &self.outgoing]
            .into_iter()
            .filter(|half| !half.is_empty())
            .all(|half| half.iter().filter(|voter| counts(**voter)).count() * 2 > half.len())
    }

    pub fn to_status(&self) -> crds::status::Membership {
        crds::status::Membership {
            voters: self.voters.iter().copied().collect(),
            learners: self.learners.iter().copied().collect(),
            joint: self.outgoing.iter().copied().collect(),
            log_id: self.log_id,
        }
    }

    pub fn from_status(recorded: &crds::status::Membership) -> Self {
        Self {
            log_id: recorded.log_id,
            voters: recorded.voters.iter().copied().collect(),
            outgoing: recorded.joint.iter().copied().collect(),
            learners: recorded.learners.iter().copied().collect(),
            is_committed: true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub health: PeerHealth,
    pub ready: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerHealth {
    Unknown,
    CaughtUp,
    Lagging,
    Unreachable,
}

impl Report {
    /// Its volume holds a store whose only voter it is, and it does not run yet: a rewrite or a restore is done.
    pub fn begins_alone(&self, member: MemberId) -> bool {
        let voters = self.raft.as_ref().map(|raft| &raft.membership.voters);
        self.phase == Phase::Recovering
            && self.member == member
            && self.initialized
            && voters.is_some_and(|voters| voters.iter().eq([&member]))
    }

    pub fn read(status: &v1::MemberStatus) -> Self {
        let identity = status.identity.clone().unwrap_or_default();
        Self {
            phase: match phase(status.phase()) {
                Phase::Recovering if status.raft.is_none() => Phase::Starting,
                told => told,
            },
            cluster_id: identity.cluster_id,
            member: MemberId(identity.member_id),
            volume_uid: identity.volume_uid,
            version: status.version.clone(),
            initialized: status.initialized,
            ready: status.ready,
            damage: status.damage.clone(),
            raft: status.raft.as_ref().map(raft),
            filled: status.restore.as_ref().map(filled),
            is_disk_high_water: status.disk_high_water,
            is_fenced: status.fenced,
        }
    }
}

fn filled(restore: &v1::RestoreStatus) -> Filled {
    let problem = restore.problem.clone();
    match &restore.facts {
        Some(facts) => Filled::Done(Box::new(restored(facts))),
        None if restore.refused => Filled::Refused(problem),
        None if !problem.is_empty() => Filled::Failing(problem),
        None => {
            let tenths = restore.bytes_done.saturating_mul(10) / restore.bytes_total.max(1);
            Filled::Reading {
                percent: (tenths.min(10) * 10) as u8,
            }
        }
    }
}

fn restored(facts: &v1::RestoredFacts) -> Restored {
    let at = i64::try_from(facts.wall_time_ms).unwrap_or(i64::MAX);
    let log_id = facts.log_id.unwrap_or_default();
    Restored {
        parent: Lineage {
            cluster_id: facts.cluster_id.clone(),
            incarnation: u16::try_from(facts.incarnation).unwrap_or(u16::MAX),
        },
        backup: facts.backup.clone(),
        log_id: LogId {
            term: log_id.term,
            index: log_id.index,
        },
        restored_to: whole_seconds(at),
        state_hash: facts.state_hash.clone(),
        tasks: i64::try_from(facts.tasks).unwrap_or(i64::MAX),
    }
}

fn phase(phase: v1::MemberPhase) -> Phase {
    match phase {
        v1::MemberPhase::Unspecified => Phase::Unknown,
        v1::MemberPhase::Blank => Phase::Blank,
        v1::MemberPhase::Empty => Phase::Empty,
        v1::MemberPhase::Recovering => Phase::Recovering,
        v1::MemberPhase::Serving => Phase::Serving,
        v1::MemberPhase::Stopping => Phase::Stopping,
        v1::MemberPhase::Damaged => Phase::Damaged,
        v1::MemberPhase::Removed => Phase::Removed,
    }
}

fn raft(raft: &v1::RaftStatus) -> Raft {
    let peers: BTreeMap<MemberId, Peer> = raft
        .peers
        .iter()
        .map(|known| (MemberId(known.member_id), peer(known)))
        .collect();
    let membership = raft.membership.as_ref().map(membership).unwrap_or_default();
    let leads_a_quorum = raft.leads
        && membership.is_quorum(|voter| {
            peers
                .get(&voter)
                .is_none_or(|peer| peer.health != PeerHealth::Unreachable)
        });
    let reach = Reach {
        last: LogId {
            term: raft.last_log_term,
            index: raft.last_log_index,
        },
        committed_index: raft.committed_index,
    };
    Raft {
        term: raft.term,
        leads: raft.leads,
        leader: (raft.leader_id != 0).then_some(MemberId(raft.leader_id)),
        membership,
        peers,
        // A member of an earlier version does not tell the term.
        reach: (!leads_a_quorum && reach.last.term > 0).then_some(reach),
    }
}

fn peer(peer: &v1::PeerStatus) -> Peer {
    let health = match peer.health() {
        v1::PeerHealth::Unspecified => PeerHealth::Unknown,
        v1::PeerHealth::CaughtUp => PeerHealth::CaughtUp,
        v1::PeerHealth::Lagging => PeerHealth::Lagging,
        v1::PeerHealth::Unreachable => PeerHealth::Unreachable,
    };
    Peer {
        health,
        ready: peer.ready,
    }
}

pub fn membership(membership: &v1::Membership) -> Membership {
    let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
    let log_id = membership.log_id.unwrap_or_default();
    Membership {
        log_id: LogId {
            term: log_id.term,
            index: log_id.index,
        },
        voters: ids(&membership.voters),
        outgoing: ids(&membership.voters_outgoing),
        learners: ids(&membership.learners),
        is_committed: membership.committed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_has_just_started_says_nothing_about_its_volume() {
        let mut status = v1::MemberStatus {
            phase: v1::MemberPhase::Recovering.into(),
            ..v1::MemberStatus::default()
        };
        assert_eq!(Report::read(&status).phase, Phase::Starting);
        status.raft = Some(v1::RaftStatus::default());
        assert_eq!(Report::read(&status).phase, Phase::Recovering);
        status.phase = v1::MemberPhase::Blank.into();
        assert_eq!(Report::read(&status).phase, Phase::Blank);
    }
}
