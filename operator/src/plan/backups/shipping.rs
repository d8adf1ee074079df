//! One member ships the log: a follower, as long as it is alive, and who it is stands in status before it is
//! told to, so that a later operator goes on with the same one.

use crds::MemberId;

use super::{Scope, able, failures, has_credentials, nobody, retry_at};
use crate::observe::backups::{Heard, Shipped};
use crate::plan::action::short;
use crate::plan::{Action, Draft};

/// Of an order that ends the shipping.
const STOP: &str = "";

/// Answers why the log is not shipped although it is to be.
pub fn plan(draft: &mut Draft<'_>, scope: &Scope<'_>, is_accepted: bool) -> Option<String> {
    if !scope.policy.log_shipping {
        stop(draft);
        return None;
    }
    // What was told before goes on until there is another place for it.
    if !is_accepted {
        return None;
    }
    let Some(member) = shipper(draft, scope) else {
        return Some(nobody(draft).into());
    };
    if draft.plan.progress.backup.shipper != Some(member) {
        draft.plan.progress.backup.shipper = Some(member);
        return None;
    }
    let observed = draft.observed;
    let last = observed.backups.orders.shipping.as_ref();
    let mut instead_of = last
        .filter(|order| order.about != STOP)
        .map(|order| order.member);
    instead_of = instead_of.filter(|before| *before != member);
    let ours = |about: &str, of: MemberId| about == scope.about && of == member;
    let Some(order) = last.filter(|order| ours(&order.about, order.member)) else {
        draft.act(Action::ShipLog {
            member,
            about: scope.about.clone(),
            instead_of,
            failures: 0,
        });
        return None;
    };
    match &order.heard {
        Heard::Nothing => None,
        Heard::News(Shipped { problem, .. }) if problem.is_empty() => None,
        Heard::News(Shipped { problem, .. }) => Some(format!(
            "{} does not ship the log: {problem}",
            short(member)
        )),
        Heard::Failed(failure) => {
            let failures = failures(order, failure);
            let next = retry_at(failure, failures);
            match next <= draft.now {
                true => draft.act(Action::ShipLog {
                    member,
                    about: scope.about.clone(),
                    instead_of: None,
                    failures,
                }),
                false => draft.wake_at(next),
            }
            // A member that restarts is back in a moment.
            let words = format!("{} does not ship the log: {}", short(member), failure.words);
            (failures > 2).then_some(words)
        }
    }
}

/// The one that does, unless it is not alive or leads where a follower could.
fn shipper(draft: &Draft<'_>, scope: &Scope<'_>) -> Option<MemberId> {
    let able = able(draft, scope);
    let leader = draft.leader?;
    let stays = |member: &MemberId| {
        leader.raft.membership.voters.contains(member)
            && leader.is_alive(*member)
            && has_credentials(draft, scope, *member)
            && (*member != leader.id || able.iter().all(|other| other == member))
    };
    let current = draft.plan.progress.backup.shipper.filter(stays);
    current.or(able.first().copied())
}

/// Whoever ships is told to stop, and then it is nobody.
pub fn stop(draft: &mut Draft<'_>) {
    let Some(member) = draft.plan.progress.backup.shipper else {
        return;
    };
    let observed = draft.observed;
    let runs = observed.pod_of(member).is_some_and(|pod| pod.runs());
    let order = observed.backups.orders.shipping.as_ref();
    let order = order.filter(|order| order.about == STOP && order.member == member);
    let (is_over, next) = match order.map(|order| (&order.heard, order)) {
        None => (false, Some(0)),
        Some((Heard::Nothing, _)) => (false, None),
        Some((Heard::News(_), _)) => (true, None),
        Some((Heard::Failed(failure), order)) => {
            let failures = failures(order, failure);
            let next = retry_at(failure, failures);
            if next > draft.now {
                draft.wake_at(next);
            }
            (false, (next <= draft.now).then_some(failures))
        }
    };
    if is_over || !runs {
        draft.plan.progress.backup.shipper = None;
    } else if let Some(failures) = next {
        draft.act(Action::StopShipping { member, failures });
    }
}
