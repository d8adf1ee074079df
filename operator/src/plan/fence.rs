//! Members that the spec fences answer no client and lead nothing; they keep their seat and their vote. The order
//! is the member's to keep, across restarts; what it says of itself tells whether it has it.
//!
//! A fence is set only beside another voter that can lead, and lifted whether or not anybody leads: it may be what
//! keeps a quorum from having a leader.

use crds::MemberId;
use crds::status::Identity;

use super::{Action, Draft, Waiting, roster};
use crate::observe::Phase;

pub fn plan(draft: &mut Draft<'_>, identity: &Identity) {
    if !identity.initialized {
        return;
    }
    let seats = roster(identity, &draft.plan.progress, draft.leader.as_ref());
    for member in seats.into_keys() {
        let report = draft.observed.report_of(member);
        let runs = report.filter(|known| matches!(known.phase, Phase::Recovering | Phase::Serving));
        let fenced = draft.cluster.spec.fenced.contains(&member);
        if runs.is_none_or(|report| report.is_fenced == fenced) {
            continue;
        }
        if fenced && !another_can_lead(draft, member) {
            draft.wait(Waiting::Successor { member });
            continue;
        }
        draft.act(Action::SetFenced { member, fenced });
    }
}

fn another_can_lead(draft: &Draft<'_>, member: MemberId) -> bool {
    draft.leader.is_some_and(|leader| {
        leader.raft.membership.voters.iter().any(|voter| {
            *voter != member
                && leader.is_caught_up(*voter)
                && !draft.cluster.spec.fenced.contains(voter)
                && !draft.observed.was_fenced(*voter)
        })
    })
}
