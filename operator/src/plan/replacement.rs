//! A voter that is lost gives its place to a new one, with a new id on a volume of its own.
//!
//! ```text
//! Replace  Reserve ▶ CreateMembers ▶ AddLearners ▶ CatchUp ▶ HandOver ▶ Promote ▶ Retire
//!          as a scale-out, see joining                       if it leads  +new −old  as a scale-in
//! ```
//!
//! Who is lost says Raft, not the kubelet: the pod of a dead node stays Terminating, is never forced, and
//! nothing waits for it. A member that comes back before the joint change keeps its place. What bounds it:
//! `spec.replacement.after`, so many an hour, one at a time, and never below a quorum.

use crds::cluster::OnDrain;
use crds::status::{Operation, OperationKind, Step};
use crds::{MemberId, duration};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::joining::{self, Arrival};
use super::membership::{guard, hand_over, is_gone, unique, without};
use super::{Action, Draft, Waiting, loss, safety};
use crate::observe::Leader;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

impl Draft<'_> {
    /// Since when a member is lost; absent: it is not. Recorded by the pass that first saw it.
    pub(super) fn lost_since(&self, leader: &Leader<'_>, member: MemberId) -> Option<Timestamp> {
        self.loss(leader, member)?;
        let known = self.recorded.members.iter().find(|one| one.id == member);
        let since = known.and_then(|known| known.lost_since.as_ref());
        Some(since.map_or_else(|| loss::begins(self.now), |since| since.0))
    }

    /// Whether a member is lost for so long that it is given up. If only time is missing, the plan wakes then.
    pub(super) fn is_lost_for_good(&mut self, leader: &Leader<'_>, member: MemberId) -> bool {
        let Some(since) = self.lost_since(leader, member) else {
            return false;
        };
        let due = self.due(member, since);
        if due > self.now {
            self.wake_at(due);
        }
        due <= self.now
    }

    /// When a voter that is lost since then is given up.
    fn due(&self, member: MemberId, since: Timestamp) -> Timestamp {
        let is_drained = self.cluster.spec.replacement.on_drain == OnDrain::Replace
            && self.observed.is_without_node(member);
        if is_drained {
            return since;
        }
        let after = duration::seconds(&self.cluster.spec.replacement.after);
        let after = after.and_then(|seconds| i64::try_from(seconds).ok());
        after
            .and_then(|seconds| since.checked_add(SignedDuration::from_secs(seconds)).ok())
            .unwrap_or(Timestamp::MAX)
    }
}

/// What is to be done about voters that are lost.
enum Verdict {
    Nothing,
    /// This one gives its place now.
    Due(MemberId),
    Wait(Waiting),
}

fn verdict(draft: &mut Draft<'_>, leader: &Leader<'_>) -> Verdict {
    let voters = &leader.raft.membership.voters;
    let mut lost: Vec<(MemberId, Timestamp)> = voters
        .iter()
        .filter_map(|voter| Some((*voter, draft.lost_since(leader, *voter)?)))
        .collect();
    // Who does not vote any more costs more than who still does.
    lost.sort_by_key(|(member, since)| (leader.is_alive(*member), *since, *member));
    let Some((first, _)) = lost.first().copied() else {
        return Verdict::Nothing;
    };
    if voters.len() == 1 {
        return Verdict::Wait(Waiting::NothingToReplaceFrom { member: first });
    }
    let next = lost
        .iter()
        .find(|(member, since)| draft.due(*member, *since) <= draft.now && may_go(leader, *member));
    let Some((member, _)) = next.copied() else {
        let due = lost
            .iter()
            .map(|(member, since)| (draft.due(*member, *since), *member));
        let Some((at, member)) = due.filter(|(due, _)| *due > draft.now).min() else {
            // It waits for the others, who are waited for already.
            return Verdict::Nothing;
        };
        draft.wake_at(at);
        return Verdict::Wait(Waiting::ReplacementPause { member, at });
    };
    let Some(at) = limited_until(draft) else {
        return Verdict::Due(member);
    };
    draft.wake_at(at);
    let max = draft.cluster.spec.replacement.max_per_hour;
    Verdict::Wait(Waiting::ReplacementLimit { member, max, at })
}

/// Begins the replacement of the voter that needs it most.
pub fn begin(draft: &mut Draft<'_>, leader: &Leader<'_>) {
    let Verdict::Due(victim) = verdict(draft, leader) else {
        return;
    };
    let prefix = format!("replace-{}-{}-", victim.incarnation(), victim.number());
    let id = unique(draft, prefix);
    draft.begin(id, OperationKind::Replace, Step::Reserve, Vec::new());
    if let Some(operation) = draft.plan.progress.operation.as_mut() {
        operation.replaces = Some(victim);
    }
    let now = draft.now;
    let begun = &mut draft.plan.progress.replacements;
    begun.retain(|at| is_within_hour(at.0, now));
    begun.push(Time(now));
}

/// Says what a replacement waits for, after everything that is waited for sooner.
pub fn explain(draft: &mut Draft<'_>, leader: &Leader<'_>) {
    if let Verdict::Wait(waiting) = verdict(draft, leader) {
        draft.wait(waiting);
    }
}

/// Says so where the only voter does not lead: no leader's word will ever come without it.
pub fn explain_alone(draft: &mut Draft<'_>) {
    let known = draft.plan.progress.membership.as_ref();
    let alone = known.and_then(|known| match known.voters.as_slice() {
        [only] if known.joint.is_empty() => Some(*only),
        _ => None,
    });
    if let Some(member) = alone {
        draft.wait(Waiting::NothingToReplaceFrom { member });
    }
}

/// One that still votes, on a volume that is not to be used again, goes only while all others are alive:
/// its going must never be what costs the quorum.
fn may_go(leader: &Leader<'_>, victim: MemberId) -> bool {
    let mut others = leader.raft.membership.voters.iter();
    !leader.is_alive(victim) || others.all(|voter| leader.is_alive(*voter))
}

/// When the next one may begin; absent: now.
fn limited_until(draft: &Draft<'_>) -> Option<Timestamp> {
    let max = usize::try_from(draft.cluster.spec.replacement.max_per_hour).unwrap_or(1);
    let begun = &draft.plan.progress.replacements;
    let recent: Vec<Timestamp> = begun
        .iter()
        .map(|at| at.0)
        .filter(|at| is_within_hour(*at, draft.now))
        .collect();
    let oldest = recent.len().checked_sub(max.max(1))?;
    recent.get(oldest)?.checked_add(HOUR).ok()
}

fn is_within_hour(at: Timestamp, now: Timestamp) -> bool {
    at.checked_add(HOUR).is_ok_and(|over| over > now)
}

/// Ends it when the old member is gone, or when it is taken back with nothing left to undo.
pub fn review(draft: &mut Draft<'_>, leader: &Leader<'_>, operation: &Operation) {
    if leader.raft.membership.is_joint() {
        return;
    }
    let is_over = if has_changed(leader, operation) {
        let victim = operation.replaces;
        victim.is_none_or(|victim| is_gone(draft, victim) && has_no_certificate(draft, victim))
    } else {
        is_unwanted(draft, leader, operation) && joining::never_joined(leader, operation)
    };
    if is_over {
        draft.finish();
    }
}

/// The next step.
pub fn change(draft: &mut Draft<'_>, leader: &Leader<'_>, operation: &Operation) {
    let Some(victim) = operation.replaces else {
        return;
    };
    if has_changed(leader, operation) {
        retire(draft, victim);
        return;
    }
    let is_unwanted = is_unwanted(draft, leader, operation);
    if joining::advance(draft, leader, operation, 1, is_unwanted) == Arrival::UnderWay {
        return;
    }
    let mut voters = without(&leader.raft.membership.voters, &[victim]);
    voters.extend(&operation.members);
    if let safety::Removal::Unsafe { alive, needed } = safety::removal(leader, &voters) {
        draft.wait(Waiting::QuorumForRemoval { alive, needed });
        return;
    }
    if leader.id == victim {
        hand_over(draft, leader, &voters);
        return;
    }
    draft.act(Action::SetVoters {
        leader: leader.id,
        voters,
        guard: guard(leader),
    });
}

/// The joint change is done: the new one votes, and the old one has left.
fn has_changed(leader: &Leader<'_>, operation: &Operation) -> bool {
    let voters = &leader.raft.membership.voters;
    let mut new = operation.members.iter();
    !operation.members.is_empty()
        && new.all(|member| voters.contains(member))
        && operation
            .replaces
            .is_none_or(|victim| !voters.contains(&victim))
}

/// The old one is back; or has left already; or fewer are wanted, and a scale-in takes it first; or the new
/// one failed.
fn is_unwanted(draft: &mut Draft<'_>, leader: &Leader<'_>, operation: &Operation) -> bool {
    let voters = &leader.raft.membership.voters;
    let is_lost = operation
        .replaces
        .is_some_and(|victim| voters.contains(&victim) && draft.loss(leader, victim).is_some());
    !is_lost || draft.replicas() < voters.len() || joining::has_failed(draft, leader, operation)
}

/// Volume and pod are retired as those of everyone who left; the certificate also where neither is left.
fn retire(draft: &mut Draft<'_>, victim: MemberId) {
    draft.step(Step::Retire);
    if is_gone(draft, victim) && !has_no_certificate(draft, victim) {
        draft.act(Action::DeleteCertificate { member: victim });
        // Nothing tells us that a Secret is gone: Secrets are not watched.
        draft.wake_at(draft.now);
    }
}

fn has_no_certificate(draft: &Draft<'_>, member: MemberId) -> bool {
    draft.observed.credentials.withdrawn.contains(&member)
}
