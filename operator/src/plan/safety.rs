//! Quorum arithmetic. The only place that answers "may this member go?" and "who goes first?".

use std::collections::{BTreeMap, BTreeSet};

use crds::MemberId;

use crate::observe::{Leader, Observed};

pub fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// Voters alive by Raft among those that would remain, and how many a removal needs.
///
/// The joint change needs a quorum of the old half too; the leader that reports has one, or it would not
/// count as a leader. What must not happen is a new half that cannot commit.
pub fn removal(leader: &Leader<'_>, remaining: &BTreeSet<MemberId>) -> Removal {
    let alive = remaining
        .iter()
        .filter(|voter| leader.is_alive(**voter))
        .count();
    let needed = quorum(remaining.len());
    if alive >= needed {
        Removal::Safe
    } else {
        Removal::Unsafe { alive, needed }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    Safe,
    Unsafe { alive: usize, needed: usize },
}

/// Who leaves in a scale-in: the unhealthy first, then from the most crowded zone, then the youngest.
pub fn victims(
    leader: &Leader<'_>,
    observed: &Observed,
    count: usize,
    is_lost: impl Fn(MemberId) -> bool,
) -> Vec<MemberId> {
    let mut remaining = leader.raft.membership.voters.clone();
    let zone = |member: MemberId| {
        observed
            .pod_of(member)
            .and_then(|pod| pod.zone.clone().or_else(|| pod.node.clone()))
    };
    let mut chosen = Vec::new();
    while chosen.len() < count && remaining.len() > 1 {
        let mut crowd: BTreeMap<Option<String>, usize> = BTreeMap::new();
        for member in &remaining {
            *crowd.entry(zone(*member)).or_default() += 1;
        }
        let next = remaining
            .iter()
            .copied()
            .max_by_key(|member| {
                let is_down = !leader.is_alive(*member);
                let crowding = crowd.get(&zone(*member)).copied().unwrap_or(0);
                (is_down, is_lost(*member), crowding, *member)
            })
            .expect("more than one voter remains");
        remaining.remove(&next);
        chosen.push(next);
    }
    chosen.sort_unstable();
    chosen
}

/// Who takes over from a leader that leaves: a caught-up member that stays and may lead, the oldest of them.
pub fn successor(
    leader: &Leader<'_>,
    remaining: &BTreeSet<MemberId>,
    observed: &Observed,
) -> Option<MemberId> {
    remaining.iter().copied().find(|member| {
        *member != leader.id && leader.is_caught_up(*member) && !observed.was_fenced(*member)
    })
}
