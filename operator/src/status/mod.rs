//! What a pass reports: a pure function of the cluster, what was observed, and what was planned.
//!
//! Only what flips is kept, and a transition time moves only with its flip, so an unchanged world gives an
//! unchanged status and nothing is written.

mod backups;
mod conditions;
mod members;

use crds::conditions::{State, set};
use crds::status::{Summary, Template};
use crds::{ConditionType, Reason, TaskStoreCluster, TaskStoreClusterStatus, Violation, names};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::error::Error;
use crate::observe::{Observed, Start};
use crate::plan::Plan;
use crate::resources::cluster_name;

pub fn next(
    cluster: &TaskStoreCluster,
    observed: &Observed,
    plan: &Plan,
    failure: Option<&Error>,
    now: Timestamp,
) -> TaskStoreClusterStatus {
    let old = cluster.status.clone().unwrap_or_default();
    let progress = &plan.progress;
    let leader = observed.leader(progress.identity.as_ref(), progress.membership.as_ref());
    let members = members::members(cluster, observed, plan, leader.as_ref(), now);
    let voters = plan
        .progress
        .membership
        .as_ref()
        .map_or(0, |known| known.voters.len());
    let ready = members::ready_voters(observed, plan);
    let mut status = TaskStoreClusterStatus {
        observed_generation: match failure {
            None => cluster.metadata.generation,
            Some(_) => old.observed_generation,
        },
        identity: plan.progress.identity.clone(),
        leader: leader.map(|leader| names::pod(cluster_name(cluster), leader.id)),
        membership: plan.progress.membership.clone(),
        operation: plan.progress.operation.clone(),
        replacements: plan.progress.replacements.clone(),
        recovery: plan.progress.recovery.clone(),
        backup: backups::next(cluster, observed, plan),
        restored: plan.progress.restored.clone(),
        template: template(observed).or(old.template),
        summary: Some(summary(&members, voters)),
        selector: Some(names::pod_selector(cluster_name(cluster))),
        replicas: i32::try_from(voters).unwrap_or(i32::MAX),
        ready_replicas: i32::try_from(ready).unwrap_or(i32::MAX),
        members,
        conditions: old.conditions,
    };
    conditions::set_all(
        &mut status,
        cluster,
        observed,
        plan,
        leader.as_ref(),
        failure,
        now,
    );
    status
}

/// The spec breaks a rule: everything else stays as it was last reported.
pub fn invalid(
    cluster: &TaskStoreCluster,
    violations: &[Violation],
    now: Timestamp,
) -> TaskStoreClusterStatus {
    let mut status = cluster.status.clone().unwrap_or_default();
    let words: Vec<String> = violations
        .iter()
        .map(|violation| format!("{}: {}", violation.field, violation.message))
        .collect();
    let generation = cluster.metadata.generation;
    set(
        &mut status.conditions,
        ConditionType::Progressing,
        State::False,
        Reason::InvalidSpec,
        words.join("; "),
        generation,
        &Time(now),
    );
    status.observed_generation = generation;
    status
}

fn template(observed: &Observed) -> Option<Template> {
    let first = observed
        .pods
        .values()
        .find(|pod| pod.start == Start::Serve)?;
    Some(Template {
        renderer_revision: first.renderer_revision,
        hash: first.template_hash.clone(),
        image: first.image.clone(),
    })
}

fn summary(members: &[crds::status::MemberStatus], voters: usize) -> Summary {
    let healthy = members
        .iter()
        .filter(|member| member.role == crds::status::Role::Voter)
        .filter(|member| member.health == crds::status::Health::CaughtUp)
        .count();
    let mut versions: Vec<&str> = members
        .iter()
        .filter_map(|member| member.version.as_deref())
        .collect();
    versions.sort_unstable();
    versions.dedup();
    let version = match versions.as_slice() {
        [] => None,
        [only] => Some((*only).to_owned()),
        [first, .., last] => Some(format!("{first}-{last}")),
    };
    Summary {
        members: Some(format!("{healthy}/{voters}")),
        version,
    }
}
