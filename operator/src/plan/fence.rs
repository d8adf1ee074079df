//! Members that the spec fences answer no client and lead nothing; they keep their seat and their vote. The order
//! is the member's to keep, across restarts; what it says of itself tells whether it has it.

use crds::MemberId;
use crds::status::Identity;

use super::{Action, Draft, Waiting, roster};
use crate::observe::{Leader, Phase};

pub fn plan(draft: &mut Draft<'_>, identity: &Identity) {
    let Some(leader) = draft.leader.filter(|_| identity.initialized) else {
        return;
    };
    let seats = roster(identity, &draft.plan.progress, Some(&leader));
    for member in seats.into_keys() {
        let report = draft.observed.report_of(member);
        let runs = report.filter(|known| matches!(known.phase, Phase::Recovering | Phase::Serving));
        let wanted = draft.cluster.spec.fenced.contains(&member);
        if runs.is_none_or(|report| report.is_fenced == wanted) {
            continue;
        }
        if wanted && !another_can_lead(draft, &leader, member) {
            draft.wait(Waiting::Successor { member });
            continue;
        }
        draft.act(Action::SetFenced {
            member,
            fenced: wanted,
        });
    }
}

fn another_can_lead(draft: &Draft<'_>, leader: &Leader<'_>, member: MemberId) -> bool {
    let mut voters = leader.raft.membership.voters.iter();
    voters.any(|voter| {
        *voter != member
            && leader.is_caught_up(*voter)
            && !draft.cluster.spec.fenced.contains(voter)
            && !draft.observed.was_fenced(*voter)
    })
}
