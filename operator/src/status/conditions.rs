//! Conditions: what a person and `kubectl wait` read. Every wait of the plan ends up in one of them.

use crds::conditions::{State, get, set};
use crds::status::{Health, LogId, OperationKind, Role, TaskStoreClusterStatus};
use crds::{ConditionType, MemberId, Reason, TaskStoreCluster};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::backups;
use crate::error::Error;
use crate::observe::{ClientSecret, Leader, Link, Observed, Trouble};
use crate::plan::action::{list, short};
use crate::plan::{Action, Plan, Waiting, is_asleep, outdated};

pub type Said = (State, Reason, String);

pub fn set_all(
    status: &mut TaskStoreClusterStatus,
    cluster: &TaskStoreCluster,
    observed: &Observed,
    plan: &Plan,
    leader: Option<&Leader<'_>>,
    failure: Option<&Error>,
    now: Timestamp,
) {
    let tls = tls(status, observed, cluster);
    let backup = plan.backup_ready.as_ref();
    let backup = backup.into_iter().flat_map(|known| {
        [
            (ConditionType::BackupReady, backups::ready(cluster, known)),
            (ConditionType::BackupVerified, backups::verified(known)),
        ]
    });
    if cluster.spec.backup.is_none() {
        let of_backups = [ConditionType::BackupReady, ConditionType::BackupVerified];
        let is_other =
            |known: &Condition| of_backups.iter().all(|kind| known.type_ != kind.as_str());
        status.conditions.retain(is_other);
    }
    let said = [
        (ConditionType::Ready, ready(status, cluster, plan, leader)),
        (
            ConditionType::Quorate,
            quorate(cluster, observed, plan, leader),
        ),
        (
            ConditionType::Progressing,
            progressing(cluster, observed, plan, failure, now),
        ),
        (
            ConditionType::Degraded,
            degraded(status, cluster, observed, plan, leader),
        ),
        (ConditionType::MembershipStable, stable(plan)),
        (ConditionType::TLSReady, tls),
        (ConditionType::Paused, paused(cluster)),
    ];
    for (kind, (state, reason, message)) in said.into_iter().chain(backup) {
        let generation = cluster.metadata.generation;
        set(
            &mut status.conditions,
            kind,
            state,
            reason,
            message,
            generation,
            &Time(now),
        );
    }
}

pub fn said(state: State, reason: Reason, message: impl Into<String>) -> Said {
    (state, reason, message.into())
}

fn is_initialized(plan: &Plan) -> bool {
    plan.progress
        .identity
        .as_ref()
        .is_some_and(|identity| identity.initialized)
}

fn asleep() -> Said {
    let words = "spec.hibernated is set: no member runs, every volume is kept";
    said(State::False, Reason::Hibernated, words)
}

fn ready(
    status: &TaskStoreClusterStatus,
    cluster: &TaskStoreCluster,
    plan: &Plan,
    leader: Option<&Leader<'_>>,
) -> Said {
    if cluster.metadata.deletion_timestamp.is_some() {
        return said(
            State::False,
            Reason::Deleting,
            "the cluster is being deleted",
        );
    }
    if !is_initialized(plan) {
        return said(
            State::False,
            Reason::NotInitialized,
            "the store was not initialized yet",
        );
    }
    if is_asleep(cluster, &plan.progress) {
        return asleep();
    }
    let Some(_) = leader else {
        return said(State::False, Reason::NoLeader, "no leader is known");
    };
    let (ready, voters) = (status.ready_replicas, status.replicas);
    if ready * 2 > voters {
        said(State::True, Reason::Serving, "reads and writes are served")
    } else {
        let words = format!("{ready} of {voters} voters' pods are Ready");
        said(State::False, Reason::MembersNotReady, words)
    }
}

fn quorate(
    cluster: &TaskStoreCluster,
    observed: &Observed,
    plan: &Plan,
    leader: Option<&Leader<'_>>,
) -> Said {
    if leader.is_some() {
        return said(
            State::True,
            Reason::QuorumAlive,
            "a leader with a quorum answers",
        );
    }
    if !is_initialized(plan) {
        return said(
            State::False,
            Reason::NotInitialized,
            "the store was not initialized yet",
        );
    }
    if is_asleep(cluster, &plan.progress) {
        return asleep();
    }
    let voters = plan
        .progress
        .membership
        .as_ref()
        .map(|known| known.voters.clone())
        .unwrap_or_default();
    let answering = voters
        .iter()
        .filter(|voter| {
            observed
                .members
                .get(voter)
                .is_some_and(|member| member.link == Link::Connected)
        })
        .count();
    if answering == 0 {
        said(State::Unknown, Reason::NotObserved, "no voter can be asked")
    } else if answering * 2 > voters.len() {
        said(
            State::False,
            Reason::NoLeader,
            "a quorum of voters answers, none of them leads yet",
        )
    } else {
        let mut words = format!("{answering} of {} voters answer", voters.len());
        if let Some(offer) = &plan.progress.recovery {
            for survivor in &offer.survivors {
                let LogId { term, index } = survivor.last_log;
                words += &format!("; the log of {} ends at {term}.{index}", short(survivor.id));
            }
            if let Some(bound) = &offer.loss_bound {
                words += &format!("; to go on from here would lose {bound}");
            }
        }
        said(State::False, Reason::QuorumLost, words)
    }
}

fn progressing(
    cluster: &TaskStoreCluster,
    observed: &Observed,
    plan: &Plan,
    failure: Option<&Error>,
    now: Timestamp,
) -> Said {
    if cluster.spec.paused {
        let mut words = Waiting::Paused.words();
        let outdated = outdated(cluster, observed);
        if !outdated.is_empty() {
            words = format!(
                "{words}; a changed image or pod setting waits for {}",
                list(&outdated)
            );
        }
        return said(State::False, Reason::PausedBySpec, words);
    }
    if let Some((error, reason)) = failure.and_then(|error| Some((error, error.reason()?))) {
        return said(State::True, reason, error.to_string());
    }
    let operation = plan.progress.operation.as_ref();
    let waits: Vec<String> = plan.waiting.iter().map(Waiting::words).collect();
    let overdue = operation.filter(|operation| {
        operation
            .deadline
            .as_ref()
            .is_some_and(|deadline| deadline.0 <= now)
    });
    if let Some(operation) = overdue {
        let words = format!(
            "{:?} at {:?} takes long: {}",
            operation.kind,
            operation.step,
            waits.join("; ")
        );
        return said(State::True, Reason::OperationOverdue, words);
    }
    if let Some(first) = plan.waiting.first() {
        return said(State::True, first.reason(), waits.join("; "));
    }
    if let Some(operation) = operation {
        let reason = match operation.kind {
            OperationKind::Bootstrap => Reason::Bootstrapping,
            OperationKind::Adopt => Reason::Adopting,
            OperationKind::ScaleOut => Reason::ScalingOut,
            OperationKind::ScaleIn => Reason::ScalingIn,
            OperationKind::Replace => Reason::Replacing,
            OperationKind::Rollout => Reason::RollingOut,
            OperationKind::Recover => Reason::Recovering,
            OperationKind::Restore => Reason::Restoring,
        };
        let mut words = format!("{:?}: {}", operation.step, list(&operation.members));
        if let Some(earlier) = operation.replaces {
            let how = match operation.kind {
                OperationKind::Recover => "on the volume of",
                _ => "in place of",
            };
            words = format!("{words} {how} {}", short(earlier));
        }
        return said(State::True, reason, words);
    }
    if is_asleep(cluster, &plan.progress) {
        let words = "laying the members to rest";
        return match observed.pods.is_empty() {
            true => asleep(),
            false => said(State::True, Reason::Hibernating, words),
        };
    }
    let heals = plan.actions.iter().find(|action| is_healing(action));
    if let Some(action) = heals {
        return said(State::True, Reason::Healing, action.to_string());
    }
    said(State::False, Reason::Settled, "nothing to do")
}

fn is_healing(action: &Action) -> bool {
    matches!(
        action,
        Action::CreateFixture(_)
            | Action::RepairFixture { .. }
            | Action::CreateVolume { .. }
            | Action::CreatePod { .. }
            | Action::DeletePod { .. }
            | Action::SetImage { .. }
            | Action::SetAppImages { .. }
            | Action::RenewPod { .. }
    )
}

fn degraded(
    status: &TaskStoreClusterStatus,
    cluster: &TaskStoreCluster,
    observed: &Observed,
    plan: &Plan,
    leader: Option<&Leader<'_>>,
) -> Said {
    for waiting in &plan.waiting {
        if matches!(
            waiting,
            Waiting::VolumeLost { .. }
                | Waiting::VolumeRetired { .. }
                | Waiting::Damaged { .. }
                | Waiting::GrowthRefused { .. }
        ) {
            return said(State::True, waiting.reason(), waiting.words());
        }
    }
    let voters = || {
        status
            .members
            .iter()
            .filter(|member| member.role == Role::Voter)
    };
    if let Some(member) = voters().find(|member| member.health == Health::Damaged) {
        let what = observed
            .report_of(member.id)
            .map(|report| report.damage.clone())
            .unwrap_or_default();
        let words = Waiting::Damaged {
            member: member.id,
            what,
        }
        .words();
        return said(State::True, Reason::MemberDamaged, words);
    }
    if !is_initialized(plan) {
        return said(
            State::False,
            Reason::NotInitialized,
            "the store was not initialized yet",
        );
    }
    if is_asleep(cluster, &plan.progress) {
        return asleep();
    }
    if let Some(words) = drain(status, observed) {
        return said(State::True, Reason::DrainWaiting, words);
    }
    let unschedulable =
        voters().find_map(
            |member| match observed.pod_of(member.id)?.trouble.as_ref()? {
                Trouble::Unschedulable(words) => Some((member.id, words.clone())),
                Trouble::Container(_) => None,
            },
        );
    if let Some((member, words)) = unschedulable {
        let words = format!("{} cannot be scheduled: {words}", short(member));
        return said(State::True, Reason::MemberUnschedulable, words);
    }
    let missing = plan.progress.recovery.as_ref().map(|offer| &offer.missing);
    if let Some(missing) = missing.filter(|missing| !missing.is_empty()) {
        let words = format!("members do not answer: {}", list(missing));
        return said(State::True, Reason::MemberDown, words);
    }
    let down: Vec<MemberId> = voters()
        .filter(|member| {
            leader.is_some_and(|leader| !leader.is_alive(member.id))
                || observed.pod_of(member.id).is_none()
        })
        .map(|member| member.id)
        .collect();
    if !down.is_empty() {
        let words = format!("voters do not answer: {}", list(&down));
        return said(State::True, Reason::MemberDown, words);
    }
    let full = observed.members.iter().find(|(_, member)| {
        member.link == Link::Connected
            && member
                .report
                .as_ref()
                .is_some_and(|report| report.is_disk_high_water)
    });
    if let Some((member, _)) = full {
        let words = format!(
            "the disk of {} is nearly full; creates are refused",
            short(*member)
        );
        return said(State::True, Reason::DiskHighWater, words);
    }
    let fenced: Vec<MemberId> = voters()
        .map(|member| member.id)
        .filter(|member| observed.was_fenced(*member))
        .collect();
    if !fenced.is_empty() {
        let words = format!(
            "{} answer no client and lead nothing: spec.fenced",
            list(&fenced)
        );
        return said(State::True, Reason::MemberFenced, words);
    }
    let lagging: Vec<MemberId> = voters()
        .filter(|member| member.health == Health::Lagging)
        .map(|member| member.id)
        .collect();
    if !lagging.is_empty() {
        return said(
            State::True,
            Reason::MemberLagging,
            format!("voters are behind: {}", list(&lagging)),
        );
    }
    if let Some(words) = shared_node(status) {
        return said(State::True, Reason::VotersShareNode, words);
    }
    if status.replicas == 1 {
        let words = "one replica survives no failure and has no disruption budget";
        return said(State::True, Reason::SingleReplica, words);
    }
    said(
        State::False,
        Reason::AllMembersHealthy,
        "all voters are alive",
    )
}

/// A voter waits for the node it was evicted from, and another voter is still there: that one's eviction
/// waits for the first to be back, or for the node to be usable again.
fn drain(status: &TaskStoreClusterStatus, observed: &Observed) -> Option<String> {
    let voters = || {
        status
            .members
            .iter()
            .filter(|member| member.role == Role::Voter)
    };
    let waiting = voters().find(|member| observed.is_without_node(member.id))?;
    let node = waiting.node.as_ref()?;
    let there = voters().find(|member| {
        member.id != waiting.id
            && observed
                .pod_of(member.id)
                .is_some_and(|pod| pod.node.as_ref() == Some(node))
    })?;
    Some(format!(
        "{} was evicted from node {node} and its volume is there; the eviction of {} from the same node waits \
         until it is back",
        short(waiting.id),
        short(there.id)
    ))
}

fn shared_node(status: &TaskStoreClusterStatus) -> Option<String> {
    let voters: Vec<_> = status
        .members
        .iter()
        .filter(|member| member.role == Role::Voter)
        .collect();
    voters.iter().enumerate().find_map(|(index, one)| {
        let other = voters[index + 1..]
            .iter()
            .find(|other| one.node.is_some() && other.node == one.node)?;
        let node = one.node.as_deref().unwrap_or_default();
        Some(format!(
            "{} and {} run on node {node}",
            short(one.id),
            short(other.id)
        ))
    })
}

fn stable(plan: &Plan) -> Said {
    let Some(membership) = plan
        .progress
        .membership
        .as_ref()
        .filter(|_| is_initialized(plan))
    else {
        return said(
            State::False,
            Reason::NotInitialized,
            "the store was not initialized yet",
        );
    };
    if !membership.joint.is_empty() {
        return said(
            State::False,
            Reason::Joint,
            "a configuration change is half done",
        );
    }
    match &plan.progress.operation {
        Some(operation) => said(
            State::False,
            Reason::Changing,
            format!("{:?} runs", operation.kind),
        ),
        None => {
            let words = format!("voters are {}", list(&membership.voters));
            said(State::True, Reason::Uniform, words)
        }
    }
}

/// What is not checked yet in this process keeps what was said before: a new operator flips nothing.
fn tls(status: &TaskStoreClusterStatus, observed: &Observed, cluster: &TaskStoreCluster) -> Said {
    let known = &observed.credentials;
    let has_client = match (cluster.spec.tls.secret_name.as_ref(), &known.client_secret) {
        (None, _) => known.client_expires.is_some(),
        (Some(wanted), Some((name, state))) if wanted == name => {
            let reason = match state {
                ClientSecret::Good => None,
                ClientSecret::Missing => Some(Reason::SecretMissing),
                ClientSecret::Invalid(_) => Some(Reason::SecretInvalid),
            };
            if let Some(reason) = reason {
                let (name, state) = (name.clone(), state.clone());
                return said(
                    State::False,
                    reason,
                    Waiting::ClientSecret { name, state }.words(),
                );
            }
            true
        }
        (Some(_), _) => false,
    };
    let has_members = status
        .members
        .iter()
        .all(|member| known.member_expires.contains_key(&member.id));
    if known.authority.is_some() && has_client && has_members && !status.members.is_empty() {
        return said(
            State::True,
            Reason::CertificatesLoaded,
            "all certificates are issued",
        );
    }
    let before =
        get(&status.conditions, ConditionType::TLSReady).filter(|known| known.status == "True");
    match before {
        Some(before) => said(
            State::True,
            Reason::CertificatesLoaded,
            before.message.clone(),
        ),
        None => said(
            State::False,
            Reason::CertificatesPending,
            "certificates are being issued",
        ),
    }
}

fn paused(cluster: &TaskStoreCluster) -> Said {
    if cluster.spec.paused {
        said(State::True, Reason::PausedBySpec, "spec.paused is set")
    } else {
        said(State::False, Reason::NotPaused, "spec.paused is not set")
    }
}
