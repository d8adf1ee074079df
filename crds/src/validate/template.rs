//! What a pod template may not ask for, because a member lives in the same pod. Expected flow: what passes here
//! is proven by a dry run, which knows the rest of Kubernetes' rules better than we do.

use std::fmt::Display;
use std::ops::RangeInclusive;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde_json::Value;

use super::Violation;
use crate::cluster::TaskStoreCluster;
use crate::names::{
    BACKUP_VOLUME, CA_VOLUME, CLIENT_PORT, DATA_VOLUME, HEALTH_PORT, MEMBER_CONTAINER, TLS_VOLUME,
    label,
};
use crate::template::{PodTemplate, Unreadable};

const OWN_PORTS: RangeInclusive<i32> = CLIENT_PORT as i32..=HEALTH_PORT as i32;
const OWN_VOLUMES: [&str; 4] = [DATA_VOLUME, TLS_VOLUME, CA_VOLUME, BACKUP_VOLUME];
const OWN_PREFIX: &str = "taskstore.dev/";
const OWN_LABELS: [&str; 4] = [
    label::APP_NAME,
    label::APP_INSTANCE,
    label::APP_COMPONENT,
    label::MANAGED_BY,
];

pub fn violations(cluster: &TaskStoreCluster) -> Vec<Violation> {
    let Some(template) = &cluster.spec.template else {
        return Vec::new();
    };
    let mut found = metadata(template);
    let pod = match template.pod_spec() {
        Ok(pod) => pod,
        Err(Unreadable { path, why }) => {
            found.push(violation(
                path,
                format!("is not what a pod has there: {why}"),
            ));
            return found;
        }
    };
    let read = serde_json::to_value(&pod).unwrap_or_default();
    let mut lost = Vec::new();
    dropped("", &Value::Object(template.spec.clone()), &read, &mut lost);
    let unknown = "is not a field of a pod that this operator knows, and would be lost";
    found.extend(lost.into_iter().map(|path| violation(path, unknown)));
    found.extend(pod_fields(&pod));
    found.extend(scheduling(cluster, &pod));
    found.extend(volumes(&pod));
    if pod.containers.is_empty() {
        let words =
            "must hold at least one container; leave spec.template out to run members alone";
        found.push(violation("containers", words));
    }
    for (path, container) in containers(&pod) {
        found.extend(of_container(&path, container));
    }
    found
}

/// `path` lies below the template's spec; the message is said about it.
fn violation(path: impl Display, message: impl Display) -> Violation {
    let field = format!("spec.template.spec.{path}");
    let message = format!("{field} {message}").into();
    Violation {
        field: field.into(),
        message,
    }
}

fn metadata(template: &PodTemplate) -> Vec<Violation> {
    let refused = |kind: &str, key: &String| {
        let field = format!("spec.template.metadata.{kind}[{key}]");
        let message = format!("{field} may not be set: the operator knows its pods by it");
        Violation {
            field: field.into(),
            message: message.into(),
        }
    };
    let is_own = |key: &&String| key.starts_with(OWN_PREFIX);
    let is_own_label = |key: &&String| is_own(key) || OWN_LABELS.contains(&key.as_str());
    let labels = template.metadata.labels.keys().filter(is_own_label);
    let annotations = template.metadata.annotations.keys().filter(is_own);
    labels
        .map(|key| refused("labels", key))
        .chain(annotations.map(|key| refused("annotations", key)))
        .collect()
}

fn pod_fields(pod: &PodSpec) -> Vec<Violation> {
    let is_true = |flag: Option<bool>| flag == Some(true);
    let is_other = |word: &Option<String>, only: &str| word.as_deref().is_some_and(|w| w != only);
    let refused = [
        (
            is_true(pod.host_network),
            "hostNetwork",
            "may not be set: a member has its ports and its address for itself",
        ),
        (
            is_true(pod.host_pid),
            "hostPID",
            "may not be set: processes of the whole node would see the member, and it them",
        ),
        (
            is_true(pod.share_process_namespace),
            "shareProcessNamespace",
            "may not be set: every container could read the member's keys and end its process",
        ),
        (
            pod.node_name.is_some(),
            "nodeName",
            "may not be set: the scheduler places a member where its volume can be",
        ),
        (
            pod.active_deadline_seconds.is_some(),
            "activeDeadlineSeconds",
            "may not be set: it would end the member",
        ),
        (
            is_other(&pod.restart_policy, "Always"),
            "restartPolicy",
            "must be Always: a pod that ends takes its member down",
        ),
        (
            is_other(&pod.dns_policy, "ClusterFirst"),
            "dnsPolicy",
            "must be ClusterFirst: members find each other by names of the cluster",
        ),
        (
            pod.hostname.is_some(),
            "hostname",
            "may not be set: members find each other by it",
        ),
        (
            pod.subdomain.is_some(),
            "subdomain",
            "may not be set: members find each other by it",
        ),
        (
            is_true(pod.set_hostname_as_fqdn),
            "setHostnameAsFQDN",
            "may not be set: a member's whole name may be longer than a host name",
        ),
        (
            pod.service_account.is_some(),
            "serviceAccount",
            "may not be set: Kubernetes calls it serviceAccountName now",
        ),
    ];
    refused
        .into_iter()
        .filter(|(is_set, ..)| *is_set)
        .map(|(_, field, message)| violation(field, message))
        .collect()
}

/// What there can be only one of is set in one place.
fn scheduling(cluster: &TaskStoreCluster, pod: &PodSpec) -> Vec<Violation> {
    let ours = &cluster.spec.scheduling;
    let mut found = Vec::new();
    if ours.affinity.is_some() && pod.affinity.is_some() {
        found.push(violation(
            "affinity",
            "is set in spec.scheduling.affinity as well",
        ));
    }
    if ours.priority_class_name.is_some() && pod.priority_class_name.is_some() {
        let words = "is set in spec.scheduling.priorityClassName as well";
        found.push(violation("priorityClassName", words));
    }
    let theirs = pod.node_selector.iter().flatten();
    for (key, value) in theirs {
        if ours.node_selector.get(key).is_some_and(|own| own != value) {
            let words = "is another one in spec.scheduling.nodeSelector";
            found.push(violation(format!("nodeSelector[{key}]"), words));
        }
    }
    found
}

fn volumes(pod: &PodSpec) -> Vec<Violation> {
    let volumes = pod.volumes.iter().flatten().enumerate();
    volumes
        .filter(|(_, volume)| OWN_VOLUMES.contains(&volume.name.as_str()))
        .map(|(index, volume)| {
            let words = format!("may not be {}: the member's own has that name", volume.name);
            violation(format!("volumes[{index}].name"), words)
        })
        .collect()
}

fn containers(pod: &PodSpec) -> impl Iterator<Item = (String, &Container)> {
    let listed = |name: &'static str, containers: &'_ [Container]| {
        let path = move |index| format!("{name}[{index}]");
        (0..containers.len()).map(path).collect::<Vec<_>>()
    };
    let init = pod.init_containers.as_deref().unwrap_or_default();
    let paths = listed("initContainers", init);
    let more = listed("containers", &pod.containers);
    let all = init.iter().chain(&pod.containers);
    paths.into_iter().chain(more).zip(all)
}

fn of_container(path: &str, container: &Container) -> Vec<Violation> {
    let mut found = Vec::new();
    if container.name == MEMBER_CONTAINER {
        let words =
            format!("may not be {MEMBER_CONTAINER}: the member's own container has that name");
        found.push(violation(format!("{path}.name"), words));
    }
    let policy = container.restart_policy.as_deref();
    if policy.is_some_and(|policy| policy != "Always") {
        let words = "must be Always: a pod whose containers have ended takes its member down";
        found.push(violation(format!("{path}.restartPolicy"), words));
    }
    for (index, port) in container.ports.iter().flatten().enumerate() {
        if OWN_PORTS.contains(&port.container_port) {
            let words = format!(
                "may not be {}: ports {} to {} are the member's",
                port.container_port,
                OWN_PORTS.start(),
                OWN_PORTS.end()
            );
            found.push(violation(
                format!("{path}.ports[{index}].containerPort"),
                words,
            ));
        }
    }
    let mounts = container
        .volume_mounts
        .iter()
        .flatten()
        .map(|one| &one.name);
    let devices = container
        .volume_devices
        .iter()
        .flatten()
        .map(|one| &one.name);
    let mounts = mounts.enumerate().map(|at| ("volumeMounts", at));
    let devices = devices.enumerate().map(|at| ("volumeDevices", at));
    for (list, (index, name)) in mounts.chain(devices) {
        if OWN_VOLUMES.contains(&name.as_str()) {
            let words = format!("may not be {name}: that volume is the member's");
            found.push(violation(format!("{path}.{list}[{index}].name"), words));
        }
    }
    found
}

/// Paths that were written and are not there after a reading. Nothing is said by a null.
fn dropped(path: &str, raw: &Value, read: &Value, lost: &mut Vec<String>) {
    let below = |key: &str| match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    };
    match (raw, read) {
        (Value::Object(raw), Value::Object(read)) => {
            for (key, value) in raw.iter().filter(|(_, value)| !value.is_null()) {
                match read.get(key) {
                    Some(known) => dropped(&below(key), value, known, lost),
                    None => lost.push(below(key)),
                }
            }
        }
        (Value::Array(raw), Value::Array(read)) => {
            for (index, (raw, read)) in raw.iter().zip(read).enumerate() {
                dropped(&format!("{path}[{index}]"), raw, read, lost);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
