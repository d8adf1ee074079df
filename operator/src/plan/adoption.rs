//! Volumes of a cluster that is gone, or whose status is: every one is opened read-only and reports, and
//! only then it is decided who starts.
//!
//! The set is the voters and learners of the newest configuration found on any of them. It goes on only
//! with a quorum of every half of that configuration present and undamaged; then every present member of
//! the set starts, and no other. A configuration that may not have been committed is treated like a joint
//! one: its quorum is asked for as well.

use std::collections::BTreeSet;

use crds::MemberId;
use crds::status::{Identity, OperationKind, Step};

use super::safety::quorum;
use super::{Action, Draft, Seat, Waiting, healing, identity};
use crate::observe::{Membership, Phase, Report, Start};

pub fn plan(draft: &mut Draft<'_>, cluster_id: &str, members: &[MemberId]) {
    for member in members {
        healing::certificate(draft, *member);
    }
    for member in members {
        healing::pod(draft, *member, Start::Inspect, Seat::Learner);
    }
    let unheard: Vec<MemberId> = members
        .iter()
        .copied()
        .filter(|member| inspected(draft, *member).is_none())
        .collect();
    if !unheard.is_empty() {
        draft.wait(Waiting::Inspection { members: unheard });
        return;
    }
    let reports: Vec<(MemberId, &Report)> = members
        .iter()
        .filter_map(|member| Some((*member, inspected(draft, *member)?)))
        .collect();
    decide(draft, cluster_id, &reports);
}

/// What a member has found on the very volume it was given. One that is still reading it has found nothing
/// yet, and taking that for an answer could miss the newest configuration.
fn inspected<'a>(draft: &Draft<'a>, member: MemberId) -> Option<&'a Report> {
    let observed = draft.observed;
    let volume = observed.volume_of(member)?;
    observed
        .report_of(member)
        .filter(|report| match report.phase {
            Phase::Blank | Phase::Damaged => true,
            Phase::Removed => report.volume_uid == volume.uid,
            // Initialized and without a word of Raft, it is still opening its log.
            Phase::Empty if !report.initialized => report.volume_uid == volume.uid,
            Phase::Empty | Phase::Recovering | Phase::Serving => {
                report.volume_uid == volume.uid && report.raft.is_some()
            }
            Phase::Unknown | Phase::Starting | Phase::Stopping => false,
        })
}

fn decide(draft: &mut Draft<'_>, cluster_id: &str, reports: &[(MemberId, &Report)]) {
    let undamaged: BTreeSet<MemberId> = reports
        .iter()
        .filter(|(_, report)| {
            !matches!(
                report.phase,
                Phase::Damaged | Phase::Blank | Phase::Unknown | Phase::Removed
            )
        })
        .map(|(member, _)| *member)
        .collect();
    let found: Vec<&Membership> = reports
        .iter()
        .filter(|(member, _)| undamaged.contains(member))
        .filter_map(|(_, report)| report.raft.as_ref())
        .map(|raft| &raft.membership)
        .filter(|membership| !membership.voters.is_empty())
        .collect();
    let committed = found
        .iter()
        .filter(|known| known.is_committed)
        .max_by_key(|known| known.log_id);
    let newest = found.iter().max_by_key(|known| known.log_id);
    let Some(newest) = newest else {
        first_set(draft, cluster_id, reports);
        return;
    };
    let configurations = [committed, Some(newest)].into_iter().flatten();
    for half in configurations
        .clone()
        .flat_map(|known| [&known.voters, &known.outgoing])
    {
        let present = half.intersection(&undamaged).count();
        let needed = quorum(half.len());
        if !half.is_empty() && present < needed {
            let voters = half.iter().copied().collect();
            draft.wait(Waiting::AdoptionQuorum {
                present,
                needed,
                voters,
            });
            return;
        }
    }
    let mut set = BTreeSet::new();
    for known in configurations {
        set.extend(
            known
                .voters
                .iter()
                .chain(&known.outgoing)
                .chain(&known.learners),
        );
    }
    let founders: Vec<MemberId> = set.intersection(&undamaged).copied().collect();
    let incarnation = founders.first().map_or(1, |member| member.incarnation());
    draft.begin(
        format!("adopt-{cluster_id}"),
        OperationKind::Adopt,
        Step::Start,
        founders.clone(),
    );
    draft.plan.progress.identity = Some(Identity {
        cluster_id: cluster_id.to_owned(),
        incarnation,
        founders,
        initialized: true,
    });
    draft.plan.progress.membership = Some(committed.unwrap_or(newest).to_status());
    draft
        .plan
        .actions
        .retain(|action| !matches!(action, Action::CreatePod { .. }));
}

/// Stamped volumes without any configuration: a bootstrap that never came to `initialize`. It may go on
/// only when the whole first set is there, because a missing one could have been initialized.
fn first_set(draft: &mut Draft<'_>, cluster_id: &str, reports: &[(MemberId, &Report)]) {
    let untouched = reports.iter().all(|(_, report)| {
        matches!(report.phase, Phase::Empty | Phase::Blank) && !report.initialized
    });
    if !untouched || reports.len() != draft.replicas() {
        draft.wait(Waiting::NothingToAdopt);
        return;
    }
    let founders: Vec<MemberId> = reports.iter().map(|(member, _)| *member).collect();
    let incarnation = founders.first().map_or(1, |member| member.incarnation());
    identity::bootstrap(draft, cluster_id.to_owned(), incarnation, founders);
}
