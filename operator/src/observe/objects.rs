//! Kubernetes objects, reduced to what decisions read. Total: what cannot be read is left out, never guessed.

use std::collections::BTreeMap;

use crds::names::{MEMBER_CONTAINER, annotation, label};
use crds::restore::RestorePhase;
use crds::{MemberId, TaskStoreCluster, TaskStoreRestore, quantity};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;

use super::app::{app, is_beside, is_member_ready, status_of, waits_for};
use super::{
    Budget, ClientSecret, Drift, Life, Object, Owner, Pod, PodPhase, Restore, RestoreOrder, Start,
    Trouble, Volume, VolumeState,
};
use crate::certificates;
use crate::resources;
use crate::resources::secret::{CLIENT_CERTIFICATE, CLIENT_KEY};

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

pub(super) fn life(meta: &ObjectMeta) -> Life {
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
    let bytes = |known: Option<&BTreeMap<String, Quantity>>| {
        known
            .and_then(|known| known.get("storage"))
            .and_then(quantity::units)
    };
    let spec = claim.spec.as_ref();
    let resources = spec.and_then(|spec| spec.resources.as_ref());
    let status = claim.status.as_ref();
    Some(Volume {
        name: meta.name.clone()?,
        uid: meta.uid.clone()?,
        version: meta.resource_version.clone()?,
        cluster_id: label(meta, label::CLUSTER_ID)?.to_owned(),
        member: member(meta)?,
        state,
        owner: owner(meta, cluster_uid),
        life: life(meta),
        requested_bytes: bytes(resources.and_then(|known| known.requests.as_ref())).unwrap_or(0),
        capacity_bytes: bytes(status.and_then(|known| known.capacity.as_ref())),
    })
}

pub fn pod(pod: &core::Pod, cluster_uid: &str) -> Option<Pod> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref()?;
    let status = pod.status.clone().unwrap_or_default();
    let container = resources::pod::member_container(spec)?;
    let arguments = container.args.as_deref().unwrap_or_default();
    let annotations = meta.annotations.clone().unwrap_or_default();
    let known = status_of(&status, MEMBER_CONTAINER);
    let is_beside = is_beside(spec);
    let is_running = known
        .and_then(|known| known.state.as_ref())
        .is_some_and(|state| state.running.is_some());
    let phase = match status.phase.as_deref() {
        Some("Pending") if is_beside && is_running => PodPhase::Running,
        Some("Pending") | None => PodPhase::Pending,
        Some("Running") => PodPhase::Running,
        Some("Failed" | "Succeeded") => PodPhase::Ended,
        Some(_) => PodPhase::Unknown,
    };
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let ready = conditions.iter().find(|known| known.type_ == "Ready");
    let is_ready = match is_beside {
        false => ready.is_some_and(|known| known.status == "True"),
        true => is_member_ready(known, ready),
    };
    let running = known.and_then(|known| known.container_id.clone());
    // The kubelet takes a moment to see a changed image.
    let is_replaced =
        running.is_some() && running.as_ref() == annotations.get(annotation::REPLACED_CONTAINER);
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
        ready: is_ready && !is_replaced,
        life: life(meta),
        owner: owner(meta, cluster_uid),
        start: start(arguments),
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
        named_image: annotations.get(annotation::IMAGE).cloned(),
        container: running,
        trouble: trouble(&status),
        app: app(spec, &status, &annotations),
        backup_secret: resources::backup::mounted(spec).map(str::to_owned),
    })
}

fn start(arguments: &[String]) -> Start {
    let rewritten = arguments
        .iter()
        .find_map(|argument| MemberId::parse(argument.strip_prefix("--rewrite-from=")?));
    let has = |flag| {
        let mut arguments = arguments.iter();
        arguments.any(|argument| argument.starts_with(flag))
    };
    match rewritten {
        Some(from) => Start::Rewrite { from },
        None if has("--inspect") => Start::Inspect,
        None if has("--restore=") => Start::Restore,
        None => Start::Serve,
    }
}

/// What a TaskStoreRestore says to the cluster that names it.
pub fn restore(found: Option<&TaskStoreRestore>, cluster: &TaskStoreCluster) -> Restore {
    let Some(found) = found else {
        return Restore::Missing;
    };
    let status = found.status.clone().unwrap_or_default();
    let uid = cluster.metadata.uid.as_ref();
    let is_ours = status
        .cluster_uid
        .as_ref()
        .is_none_or(|made| Some(made) == uid);
    match status.source {
        _ if status.phase == RestorePhase::Failed || !is_ours => Restore::Ended,
        None => Restore::Pending,
        Some(source) => Restore::Ordered(Box::new(RestoreOrder {
            source,
            upto: found.spec.upto.clone(),
        })),
    }
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
    let (reason, message) = waits_for(status_of(status, MEMBER_CONTAINER)?)?;
    Some(Trouble::Container(match message {
        Some(message) => format!("{reason}: {message}"),
        None => reason.to_owned(),
    }))
}

pub fn budget(
    budget: &PodDisruptionBudget,
    cluster: &TaskStoreCluster,
    is_any_fenced: bool,
) -> Budget {
    let meta = &budget.metadata;
    let status = budget.status.clone().unwrap_or_default();
    let min_available = match budget
        .spec
        .as_ref()
        .and_then(|spec| spec.min_available.as_ref())
    {
        Some(IntOrString::Int(count)) => u32::try_from(*count).unwrap_or(0),
        // Somebody wrote a percentage, which the comparison below finds.
        _ => 0,
    };
    let wanted = resources::disruption_budget::build(cluster, min_available, is_any_fenced);
    let mut known = object(meta, budget, &wanted, cluster);
    // One more condition of the selector leaves voters without a budget.
    let selector =
        |budget: &PodDisruptionBudget| budget.spec.clone().and_then(|spec| spec.selector);
    if selector(budget) != selector(&wanted) {
        known.drift = Drift::Changed;
    }
    let count = |pods: i32| usize::try_from(pods).unwrap_or(0);
    Budget {
        object: known,
        min_available,
        generation: meta.generation.unwrap_or(0),
        observed_generation: status.observed_generation.unwrap_or(0),
        disruptions_allowed: status.disruptions_allowed,
        expected: count(status.expected_pods),
        healthy: count(status.current_healthy),
        disrupted: status.disrupted_pods.map_or(0, |pods| pods.len()),
    }
}

/// Whether a Secret can be the certificate of the client port.
pub fn client_secret(found: Option<&core::Secret>) -> ClientSecret {
    let Some(found) = found else {
        return ClientSecret::Missing;
    };
    let entry = |key: &str| {
        let data = found.data.as_ref()?;
        Some(data.get(key)?.0.as_slice())
    };
    let without = |key: &str| ClientSecret::Invalid(format!("it has no {key}"));
    let Some(certificate) = entry(CLIENT_CERTIFICATE) else {
        return without(CLIENT_CERTIFICATE);
    };
    let Some(key) = entry(CLIENT_KEY) else {
        return without(CLIENT_KEY);
    };
    if let Err(error) = certificates::expires(certificate) {
        return ClientSecret::Invalid(format!("{CLIENT_CERTIFICATE}: {error}"));
    }
    if PrivateKeyDer::from_pem_slice(key).is_err() {
        return ClientSecret::Invalid(format!("{CLIENT_KEY} holds no private key"));
    }
    ClientSecret::Good
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    fn cluster() -> TaskStoreCluster {
        let mut cluster = TaskStoreCluster::new("demo", Default::default());
        cluster.metadata.uid = Some("uid".into());
        cluster
    }

    #[test]
    fn a_budget_whose_selector_was_narrowed_protects_nobody_for_certain() {
        let mut object = resources::disruption_budget::build(&cluster(), 3, false);
        assert_eq!(budget(&object, &cluster(), false).object.drift, Drift::None);
        assert!(budget(&object, &cluster(), false).is_closed_for_certain(3));
        let selector = object.spec.as_mut().unwrap().selector.as_mut().unwrap();
        selector.match_expressions = Some(vec![LabelSelectorRequirement {
            key: "x".into(),
            operator: "Exists".into(),
            values: None,
        }]);
        assert_eq!(
            budget(&object, &cluster(), false).object.drift,
            Drift::Changed
        );
        assert!(!budget(&object, &cluster(), false).is_closed_for_certain(3));
    }

    #[test]
    fn a_budget_evicts_pods_that_are_not_ready_only_where_no_app_and_no_fence_makes_them_so() {
        let policy = |cluster: &TaskStoreCluster| {
            let spec = resources::disruption_budget::build(cluster, 2, false).spec;
            spec.unwrap().unhealthy_pod_eviction_policy.unwrap()
        };
        let alone = cluster();
        let mut beside = cluster();
        let template = serde_json::json!({"spec": {"containers": []}});
        beside.spec.template = Some(serde_json::from_value(template).unwrap());
        assert_eq!(policy(&alone), "AlwaysAllow");
        assert_eq!(policy(&beside), "IfHealthyBudget");
        let mut fenced = cluster();
        fenced.spec.fenced = vec![MemberId::new(1, 2)];
        assert_eq!(policy(&fenced), "IfHealthyBudget");
        let object = resources::disruption_budget::build(&alone, 3, false);
        assert_eq!(budget(&object, &beside, false).object.drift, Drift::Changed);
        // The spec has taken the fence back, and a member has not heard of that.
        assert_eq!(budget(&object, &alone, true).object.drift, Drift::Changed);
        assert!(!budget(&object, &beside, false).is_closed_for_certain(3));
    }

    #[test]
    fn a_budget_in_percent_has_drifted_whatever_is_wanted() {
        let mut object = resources::disruption_budget::build(&cluster(), 3, false);
        object.spec.as_mut().unwrap().min_available = Some(IntOrString::String("100%".into()));
        assert_eq!(
            budget(&object, &cluster(), false).object.drift,
            Drift::Changed
        );
    }

    #[test]
    fn a_users_secret_needs_a_certificate_and_a_key_that_can_be_read() {
        let now = Timestamp::from_second(1_795_000_000).unwrap();
        let pair = certificates::authority("uid", now).unwrap();
        let secret = |entries: &[(&str, &str)]| core::Secret {
            data: Some(
                entries
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
                    .collect::<BTreeMap<_, _>>(),
            ),
            ..core::Secret::default()
        };
        let (certificate, key) = (pair.certificate_pem.as_str(), pair.key_pem.as_str());
        let state = |entries: &[(&str, &str)]| client_secret(Some(&secret(entries)));
        assert_eq!(client_secret(None), ClientSecret::Missing);
        assert_eq!(
            state(&[("tls.crt", certificate), ("tls.key", key)]),
            ClientSecret::Good
        );
        assert_eq!(
            state(&[("tls.crt", certificate)]),
            ClientSecret::Invalid("it has no tls.key".into())
        );
        for useless in [
            [("tls.crt", "no certificate"), ("tls.key", key)],
            [("tls.crt", certificate), ("tls.key", "no key")],
        ] {
            assert!(
                matches!(state(&useless), ClientSecret::Invalid(_)),
                "{useless:?}"
            );
        }
    }
}
