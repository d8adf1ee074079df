//! The pod of one member, rendered from the spec and the member's identity.
//!
//! It meets the `restricted` pod security standard with a read-only root, tolerates lost nodes without
//! limit (Raft liveness decides, not taints), and records the hash of what was rendered and the renderer's
//! revision, so that a newer operator restarts nothing: it compares a pod with what that revision renders.
//! With a template in the spec the user's containers are put around the member, see `sidecar`.

use std::collections::BTreeMap;

use crds::cluster::Spread;
use crds::names::{
    self, ADMIN_PORT, CLIENT_PORT, DATA_VOLUME, HEALTH_PORT, MEMBER_CONTAINER, PEER_PORT,
    TLS_VOLUME,
};
use crds::names::{annotation, label};
use crds::{MemberId, TaskStoreCluster, quantity};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, HTTPGetAction, KeyToPath, LocalObjectReference,
    PersistentVolumeClaimVolumeSource, Pod, PodSecurityContext, PodSpec, Probe,
    ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecretProjection, SecurityContext,
    Toleration, TopologySpreadConstraint, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::secret::{CA_CERTIFICATE, CLIENT_CERTIFICATE, CLIENT_KEY, PEER_CERTIFICATE, PEER_KEY};
use super::{
    RUN_AS, backup, cluster_name, member_labels, member_selector, metadata, namespace, restore,
    sidecar,
};
use crate::observe::{RestoreOrder, Start};

/// Rises with every change of what this file renders, while [`template_hash`] goes on knowing what earlier
/// revisions rendered. Pods keep the revision they were made with until a change of the user's reaches them.
pub const RENDERER_REVISION: u32 = 1;

/// SIGTERM hands leadership over and ends within 10 s; the rest is for a slow disk.
const GRACE_SECONDS: i64 = 30;
/// A member that replays a long log is alive meanwhile; one that never says so within this is restarted.
const STARTUP_PROBES_MAX: i32 = 120;
const LIVENESS_PERIOD_SECONDS: i32 = 5;
const LIVENESS_FAILURES: i32 = 6;

const DATA_DIR: &str = "/data";
const TLS_DIR: &str = "/tls";

/// A member as its pod needs to know it.
#[derive(Clone, Debug)]
pub struct Identity<'a> {
    pub cluster_id: &'a str,
    pub member: MemberId,
    /// Name of the volume claim.
    pub volume: &'a str,
    pub volume_uid: &'a str,
    /// Of a member that is started to fill its disk.
    pub restore: Option<&'a RestoreOrder>,
}

pub fn build(
    cluster: &TaskStoreCluster,
    identity: &Identity<'_>,
    image: &str,
    start: Start,
    is_voter: bool,
) -> Pod {
    let name = names::pod(cluster_name(cluster), identity.member);
    let mut metadata = metadata(cluster, name);
    let mut labels = member_labels(cluster, identity.cluster_id, identity.member);
    if is_voter {
        labels.insert(label::VOTER.into(), label::TRUE.into());
    }
    metadata.labels = Some(labels);
    let mut annotations = BTreeMap::from([
        (annotation::TEMPLATE_HASH.into(), hash(cluster)),
        (
            annotation::RENDERER_REVISION.into(),
            RENDERER_REVISION.to_string(),
        ),
    ]);
    if let Some(named) = &cluster.spec.image {
        annotations.insert(annotation::IMAGE.into(), named.clone());
    }
    metadata.annotations = Some(annotations);
    if let Some(app) = sidecar::App::of(cluster) {
        app.mark(&mut metadata);
    }
    Pod {
        metadata,
        spec: Some(spec(cluster, identity, image, start)),
        ..Pod::default()
    }
}

/// The hash that a renderer of this revision records, whatever the image and the member: it moves with what
/// the user asks for and with nothing else. None for the revision of a newer operator, whose pods are its own
/// business.
pub fn template_hash(cluster: &TaskStoreCluster, revision: u32) -> Option<String> {
    match revision {
        RENDERER_REVISION => Some(hash(cluster)),
        _ => None,
    }
}

/// What runs when the spec names no image is the operator's.
pub fn image<'a>(cluster: &'a TaskStoreCluster, default: &'a str) -> &'a str {
    cluster.spec.image.as_deref().unwrap_or(default)
}

/// Of what is rendered for nobody, who stands for every member, so that whatever is rendered counts.
fn hash(cluster: &TaskStoreCluster) -> String {
    let member = MemberId(0);
    let nobody = Identity {
        cluster_id: "",
        member,
        volume: &names::volume_claim(cluster_name(cluster), member),
        volume_uid: "",
        restore: None,
    };
    let spec = spec(cluster, &nobody, "", Start::Serve);
    let rendered = match sidecar::App::of(cluster) {
        None => serde_json::to_vec(&spec),
        Some(app) => serde_json::to_vec(&app.without_images(spec)),
    };
    let rendered = rendered.expect("a pod spec is always valid JSON");
    let hash = blake3::hash(&rendered).to_hex();
    hash.as_str()[..16].to_owned()
}

fn spec(cluster: &TaskStoreCluster, identity: &Identity<'_>, image: &str, start: Start) -> PodSpec {
    let mut spec = template(cluster);
    spec.hostname = Some(names::pod(cluster_name(cluster), identity.member));
    if let Some(container) = spec.containers.first_mut() {
        container.image = Some(image.to_owned());
        container.args = Some(arguments(cluster, identity, start));
    }
    spec.volumes = Some(vec![
        data_volume(identity.volume),
        tls_volume(cluster, identity.member),
    ]);
    let restored = identity.restore.map(|order| &order.source.destination);
    if let Some(secret) = restored.and_then(|from| from.credentials.as_ref()) {
        backup::mount(&secret.name, false, &mut spec);
    }
    if let Some(secret) = backup::secret(cluster).filter(|_| start == Start::Serve) {
        backup::mount(secret, true, &mut spec);
    }
    match (sidecar::App::of(cluster), start) {
        (None, _) => spec,
        (Some(app), Start::Serve) => app.around(cluster, spec),
        (Some(app), Start::Inspect | Start::Rewrite { .. } | Start::Restore) => {
            app.around_nothing(cluster, spec)
        }
    }
}

/// The member's container, alone in its pod or the first of the init containers.
pub fn member_container(spec: &PodSpec) -> Option<&Container> {
    let init = spec.init_containers.iter().flatten();
    init.chain(&spec.containers)
        .find(|container| container.name == MEMBER_CONTAINER)
}

fn arguments(cluster: &TaskStoreCluster, identity: &Identity<'_>, start: Start) -> Vec<String> {
    let mut arguments = vec![
        "member".to_owned(),
        format!("--data-dir={DATA_DIR}"),
        format!("--tls-dir={TLS_DIR}"),
        format!("--cluster-id={}", identity.cluster_id),
        format!("--incarnation={}", identity.member.incarnation()),
        format!("--member-id={}", identity.member),
        format!("--volume-uid={}", identity.volume_uid),
        format!(
            "--name={}",
            names::member_host(cluster_name(cluster), namespace(cluster), identity.member)
        ),
    ];
    if let Some(bytes) = quantity::units(&cluster.spec.storage.log_budget) {
        arguments.push(format!("--log-budget-bytes={bytes}"));
    }
    match start {
        Start::Serve => {}
        Start::Inspect => arguments.push("--inspect".to_owned()),
        Start::Rewrite { from } => arguments.push(format!("--rewrite-from={from}")),
        Start::Restore => {
            if let Some(RestoreOrder { source, upto }) = identity.restore {
                let (from, lineage) = (&source.destination, &source.lineage);
                let order = restore::order(from, lineage, source.backup.as_deref(), upto);
                arguments.push(format!("--restore={order}"));
            }
        }
    }
    arguments
}

/// Without what is a member's own.
pub(super) fn template(cluster: &TaskStoreCluster) -> PodSpec {
    let scheduling = &cluster.spec.scheduling;
    let mut tolerations = always_tolerated();
    tolerations.extend(scheduling.tolerations.iter().cloned());
    PodSpec {
        subdomain: Some(names::peer_service(cluster_name(cluster))),
        service_account_name: Some(names::service_account(cluster_name(cluster))),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        restart_policy: Some("Always".into()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        containers: vec![container(cluster)],
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(RUN_AS),
            run_as_group: Some(RUN_AS),
            fs_group: Some(RUN_AS),
            // A volume of many files is not walked at every start.
            fs_group_change_policy: Some("OnRootMismatch".into()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".into(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        image_pull_secrets: some_unless_empty(
            cluster
                .spec
                .image_pull_secrets
                .iter()
                .map(|secret| LocalObjectReference {
                    name: secret.name.clone(),
                })
                .collect(),
        ),
        tolerations: Some(tolerations),
        node_selector: (!scheduling.node_selector.is_empty())
            .then(|| scheduling.node_selector.clone()),
        affinity: scheduling.affinity.clone(),
        priority_class_name: scheduling.priority_class_name.clone(),
        topology_spread_constraints: Some(spread(cluster)),
        ..PodSpec::default()
    }
}

fn container(cluster: &TaskStoreCluster) -> Container {
    let resources = &cluster.spec.resources;
    Container {
        name: MEMBER_CONTAINER.into(),
        image_pull_policy: Some(cluster.spec.image_pull_policy.as_str().into()),
        ports: Some(vec![
            port("client", CLIENT_PORT),
            port("admin", ADMIN_PORT),
            port("peers", PEER_PORT),
            port("health", HEALTH_PORT),
        ]),
        resources: Some(ResourceRequirements {
            requests: (!resources.requests.is_empty()).then(|| resources.requests.clone()),
            limits: (!resources.limits.is_empty()).then(|| resources.limits.clone()),
            ..ResourceRequirements::default()
        }),
        // A founder that waits for initialize is started and alive, but not Ready.
        startup_probe: Some(probe("/live", 1, STARTUP_PROBES_MAX)),
        liveness_probe: Some(probe("/live", LIVENESS_PERIOD_SECONDS, LIVENESS_FAILURES)),
        readiness_probe: Some(probe("/ready", 1, 3)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                ..Capabilities::default()
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![
            VolumeMount {
                name: DATA_VOLUME.into(),
                mount_path: DATA_DIR.into(),
                ..VolumeMount::default()
            },
            VolumeMount {
                name: TLS_VOLUME.into(),
                mount_path: TLS_DIR.into(),
                read_only: Some(true),
                ..VolumeMount::default()
            },
        ]),
        ..Container::default()
    }
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: i32::from(number),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::Int(i32::from(HEALTH_PORT)),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// A lost node is not a lost member: without these the pod would be deleted after five minutes.
fn always_tolerated() -> Vec<Toleration> {
    [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ]
    .into_iter()
    .map(|taint| Toleration {
        key: Some(taint.into()),
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        ..Toleration::default()
    })
    .collect()
}

/// Zones first, then nodes. Tainted nodes do not count, or a dead one would hold a place free for ever.
fn spread(cluster: &TaskStoreCluster) -> Vec<TopologySpreadConstraint> {
    let when = match cluster.spec.scheduling.spread {
        Spread::Soft => "ScheduleAnyway",
        Spread::Required => "DoNotSchedule",
    };
    ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        .into_iter()
        .map(|key| TopologySpreadConstraint {
            max_skew: 1,
            topology_key: key.into(),
            when_unsatisfiable: when.into(),
            node_taints_policy: Some("Honor".into()),
            label_selector: Some(LabelSelector {
                match_labels: Some(member_selector(cluster)),
                ..LabelSelector::default()
            }),
            ..TopologySpreadConstraint::default()
        })
        .collect()
}

fn data_volume(claim: &str) -> Volume {
    Volume {
        name: DATA_VOLUME.into(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.to_owned(),
            ..PersistentVolumeClaimVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// The member's own certificate and the client port's, side by side in one directory: the second may come
/// from a Secret of the user's.
fn tls_volume(cluster: &TaskStoreCluster, member: MemberId) -> Volume {
    let name = cluster_name(cluster);
    let client = cluster
        .spec
        .tls
        .secret_name
        .clone()
        .unwrap_or_else(|| names::client_secret(name));
    let own = [CA_CERTIFICATE, PEER_CERTIFICATE, PEER_KEY].map(|key| (key, key));
    Volume {
        name: TLS_VOLUME.into(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o440),
            sources: Some(vec![
                projection(names::member_secret(name, member), &own),
                projection(
                    client,
                    &[
                        (CLIENT_CERTIFICATE, "client.crt"),
                        (CLIENT_KEY, "client.key"),
                    ],
                ),
            ]),
        }),
        ..Volume::default()
    }
}

fn projection(secret: String, items: &[(&str, &str)]) -> VolumeProjection {
    VolumeProjection {
        secret: Some(SecretProjection {
            name: secret,
            items: Some(
                items
                    .iter()
                    .map(|(key, path)| KeyToPath {
                        key: (*key).to_owned(),
                        path: (*path).to_owned(),
                        mode: None,
                    })
                    .collect(),
            ),
            ..SecretProjection::default()
        }),
        ..VolumeProjection::default()
    }
}

fn some_unless_empty<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::BackupPolicy;
    use crds::cluster::SecretName;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    fn cluster() -> TaskStoreCluster {
        let mut cluster = TaskStoreCluster::new("demo", Default::default());
        cluster.metadata.namespace = Some("shop".into());
        cluster
    }

    fn hash_of(cluster: &TaskStoreCluster) -> String {
        template_hash(cluster, RENDERER_REVISION).unwrap()
    }

    /// When this fails, running pods of every user would restart with the next operator: what is rendered
    /// gets another revision, and `template_hash` goes on knowing this one.
    #[test]
    fn the_first_revision_renders_what_it_always_has() {
        assert_eq!(template_hash(&cluster(), 1).unwrap(), "831b4e0ce6ba87b8");
    }

    #[test]
    fn the_hash_moves_with_every_wish_for_a_pod_and_with_no_other() {
        let before = hash_of(&cluster());
        let moves: [fn(&mut TaskStoreCluster); 7] = [
            |cluster| cluster.spec.backup = Some(with_credentials("bucket")),
            |cluster| cluster.spec.storage.log_budget = Quantity("2Gi".into()),
            |cluster| {
                let cpu = ("cpu".to_owned(), Quantity("2".into()));
                cluster.spec.resources.limits.extend([cpu]);
            },
            |cluster| cluster.spec.tls.secret_name = Some("web".into()),
            |cluster| cluster.spec.scheduling.spread = Spread::Required,
            |cluster| cluster.spec.scheduling.priority_class_name = Some("high".into()),
            |cluster| cluster.spec.image_pull_policy = crds::cluster::ImagePullPolicy::Always,
        ];
        for (number, change) in moves.into_iter().enumerate() {
            let mut changed = cluster();
            change(&mut changed);
            assert_ne!(hash_of(&changed), before, "change {number}");
        }
        let mut other = cluster();
        other.spec.replicas = 5;
        other.spec.image = Some("taskstore:2".into());
        other.metadata.generation = Some(7);
        other.spec.backup = Some(BackupPolicy::default());
        assert_eq!(hash_of(&other), before);
    }

    fn with_credentials(secret: &str) -> BackupPolicy {
        let mut policy = BackupPolicy::default();
        policy.destination.credentials = Some(SecretName {
            name: secret.into(),
        });
        policy
    }

    #[test]
    fn every_pod_records_the_hash_of_its_revision() {
        for number in [1, 2] {
            let identity = Identity {
                cluster_id: "c",
                member: MemberId::new(1, number),
                volume: "demo-1-1",
                volume_uid: "v",
                restore: None,
            };
            let pod = build(&cluster(), &identity, "taskstore:1", Start::Inspect, true);
            let annotations = pod.metadata.annotations.unwrap();
            assert_eq!(annotations[annotation::TEMPLATE_HASH], hash_of(&cluster()));
        }
        assert_eq!(template_hash(&cluster(), RENDERER_REVISION + 1), None);
    }
}
