//! Kubernetes objects, reduced to what decisions read. Total: what cannot be read is left out, never guessed.

use crds::names::{annotation, label};
use crds::{MemberId, TaskStoreCluster};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;

use super::{
    Budget, Drift, Life, Object, Owner, Pod, PodPhase, Start, Trouble, Volume, VolumeState,
};
use crate::resources;

const ZONE_LABELS: [&str; 2] = [
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/zone",
];

pub fn owner(meta: &ObjectMeta, cluster_uid: &str) -> Owner {
    let references = meta.owner_references.as_deref().unwrap_or_default();
    match references
        .iter()
        .find(|reference| reference.controller == Some(true))
    {
        Some(reference) if reference.uid == cluster_uid => Owner::Ours,
        Some(_) => Owner::Other,
        None => Owner::Nobody,
    }
}

fn life(meta: &ObjectMeta) -> Life {
    if meta.deletion_timestamp.is_some() {
        Life::Deleting
    } else {
        Life::Present
    }
}

fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

fn member(meta: &ObjectMeta) -> Option<MemberId> {
    label(meta, label::MEMBER_ID).and_then(MemberId::parse)
}

/// An object that carries no state, compared with what we would render.
pub fn object<T: Serialize>(
    meta: &ObjectMeta,
    actual: &T,
    wanted: &T,
    cluster: &TaskStoreCluster,
) -> Object {
    let spec = |value: &T| {
        serde_json::to_value(value)
            .ok()
            .and_then(|value| value.get("spec").cloned())
            .unwrap_or_default()
    };
    let drift = if resources::covers(&spec(actual), &spec(wanted)) {
        Drift::None
    } else {
        Drift::Changed
    };
    Object {
        uid: meta.uid.clone().unwrap_or_default(),
        version: meta.resource_version.clone().unwrap_or_default(),
        owner: owner(meta, cluster.metadata.uid.as_deref().unwrap_or_default()),
        drift,
    }
}

pub fn volume(claim: &core::PersistentVolumeClaim, cluster_uid: &str) -> Option<Volume> {
    let meta = &claim.metadata;
    let is_set = |key| label(meta, key) == Some(label::TRUE);
    let state = if is_set(label::RETIRED) {
        VolumeState::Retired
    } else if is_set(label::FORMATTED) {
        VolumeState::Formatted
    } else {
        VolumeState::Unformatted
    };
    Some(Volume {
        name: meta.name.clone()?,
        uid: meta.uid.clone()?,
        version: meta.resource_version.clone()?,
        cluster_id: label(meta, label::CLUSTER_ID)?.to_owned(),
        member: member(meta)?,
        state,
        owner: owner(meta, cluster_uid),
        life: life(meta),
    })
}

pub fn pod(pod: &core::Pod, cluster_uid: &str) -> Option<Pod> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref()?;
    let status = pod.status.clone().unwrap_or_default();
    let container = spec.containers.first()?;
    let arguments = container.args.as_deref().unwrap_or_default();
    let annotations = meta.annotations.clone().unwrap_or_default();
    let phase = match status.phase.as_deref() {
        Some("Pending") | None => PodPhase::Pending,
        Some("Running") => PodPhase::Running,
        Some("Failed" | "Succeeded") => PodPhase::Ended,
        Some(_) => PodPhase::Unknown,
    };
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let ready = conditions
        .iter()
        .any(|known| known.type_ == "Ready" && known.status == "True");
    Some(Pod {
        name: meta.name.clone()?,
        uid: meta.uid.clone()?,
        version: meta.resource_version.clone()?,
        cluster_id: label(meta, label::CLUSTER_ID)?.to_owned(),
        member: member(meta)?,
        created: meta
            .creation_timestamp
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        phase,
        ready,
        life: life(meta),
        owner: owner(meta, cluster_uid),
        start: if arguments.iter().any(|argument| argument == "--inspect") {
            Start::Inspect
        } else {
            Start::Serve
        },
        is_voter: label(meta, label::VOTER) == Some(label::TRUE),
        ip: status.pod_ip.clone().filter(|ip| !ip.is_empty()),
        node: spec.node_name.clone(),
        zone: ZONE_LABELS
            .iter()
            .find_map(|key| label(meta, key))
            .map(str::to_owned),
        template_hash: annotations
            .get(annotation::TEMPLATE_HASH)
            .cloned()
            .unwrap_or_default(),
        renderer_revision: annotations
            .get(annotation::RENDERER_REVISION)
            .and_then(|revision| revision.parse().ok())
            .unwrap_or(0),
        image: container.image.clone().unwrap_or_default(),
        trouble: trouble(&status),
    })
}

fn trouble(status: &core::PodStatus) -> Option<Trouble> {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let unschedulable = conditions.iter().find(|known| {
        known.type_ == "PodScheduled"
            && known.status == "False"
            && known.reason.as_deref() == Some("Unschedulable")
    });
    if let Some(condition) = unschedulable {
        return Some(Trouble::Unschedulable(
            condition.message.clone().unwrap_or_default(),
        ));
    }
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    containers
        .iter()
        .filter_map(|container| container.state.as_ref()?.waiting.as_ref())
        .find(|waiting| waiting.reason.as_deref() != Some("ContainerCreating"))
        .map(|waiting| {
            let reason = waiting.reason.clone().unwrap_or_default();
            Trouble::Container(match &waiting.message {
                Some(message) => format!("{reason}: {message}"),
                None => reason,
            })
        })
}

pub fn budget(budget: &PodDisruptionBudget, cluster: &TaskStoreCluster) -> Budget {
    let meta = &budget.metadata;
    let status = budget.status.clone().unwrap_or_default();
    let min_available = match budget
        .spec
        .as_ref()
        .and_then(|spec| spec.min_available.as_ref())
    {
        Some(IntOrString::Int(count)) => u32::try_from(*count).unwrap_or(0),
        // Somebody wrote a percentage: whatever we want differs from it.
        _ => u32::MAX,
    };
    Budget {
        object: object(
            meta,
            budget,
            &resources::disruption_budget::build(cluster, min_available),
            cluster,
        ),
        min_available,
        generation: meta.generation.unwrap_or(0),
        observed_generation: status.observed_generation.unwrap_or(0),
        disruptions_allowed: status.disruptions_allowed,
        disrupted: status.disrupted_pods.map_or(0, |pods| pods.len()),
    }
}
