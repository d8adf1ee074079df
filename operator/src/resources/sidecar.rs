//! The user's containers around a member: the pod of a template, and the member in it.
//!
//! The member is a native sidecar, the first of the init containers: it runs before anything of the user's, is
//! restarted by itself, and nothing that happens to the app's containers touches it.
//!
//! When such a pod is deleted, the kubelet ends the app's containers first and the sidecars after them, the
//! first one last. Until the app has ended, the member serves it as before, also as the leader, so that the app
//! can settle what it holds; then SIGTERM hands leadership over, and nothing acknowledged is lost with it. No
//! preStop hook is needed: it would run at once and only end the member's lead earlier. All containers share one
//! grace period, so the member gets `MEMBER_GRACE_SECONDS` on top of the app's, and an app that outlives its own
//! takes from it: the kubelet leaves the member 2 s at least. That is enough to hand over; were it not, it would
//! cost an election and no data.
//!
//! The Service for clients sends to pods that are Ready, which the app's containers decide as well: one whose app is
//! down gets no clients from outside its pod.
//!
//! A pod is Pending to Kubernetes until each of the app's containers has started once, and evictions of pods that are
//! Pending ask no budget: while the apps of most members have never started, drains can take a quorum.

use std::collections::BTreeMap;

use crds::TaskStoreCluster;
use crds::names::{self, CA_VOLUME, CLIENT_PORT, annotation};
use crds::template::TemplateMetadata;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, EnvVar, PodSecurityContext, PodSpec, SecurityContext, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::cluster_name;
use super::secret::CA_CERTIFICATE;

/// What an app gets that does not say.
const APP_GRACE_SECONDS: i64 = 30;
/// SIGTERM hands leadership over and ends within 10 s.
const MEMBER_GRACE_SECONDS: i64 = 15;

const ALWAYS: &str = "Always";
const CA_DIR: &str = "/var/run/taskstore";
/// host:port of the local member; the second is what our own command line reads.
const ADDRESS_VARIABLES: [&str; 2] = ["TASKSTORE_ADDRESS", "TASKSTORE_ENDPOINTS"];
const CA_FILE_VARIABLE: &str = "TASKSTORE_CA_FILE";

/// What a cluster's template asks for.
pub struct App<'a> {
    metadata: &'a TemplateMetadata,
    spec: PodSpec,
}

impl<'a> App<'a> {
    /// None when members run alone; a template that is no pod's was refused by `crds::validate` before.
    pub fn of(cluster: &'a TaskStoreCluster) -> Option<Self> {
        let template = cluster.spec.template.as_ref()?;
        Some(Self {
            metadata: &template.metadata,
            spec: template.pod_spec().ok()?,
        })
    }

    /// Images that are changed in place, by container. An init container that ends has run already: another
    /// image of it takes another pod.
    pub fn images(&self) -> BTreeMap<String, String> {
        let sidecars = self.spec.init_containers.iter().flatten();
        let running = sidecars
            .filter(|container| is_sidecar(container))
            .chain(&self.spec.containers);
        running
            .filter_map(|container| Some((container.name.clone(), container.image.clone()?)))
            .collect()
    }

    /// Whether this container is an init container that runs as long as its pod.
    pub fn has_sidecar(&self, name: &str) -> bool {
        let mut sidecars = self.spec.init_containers.iter().flatten();
        sidecars.any(|container| is_sidecar(container) && container.name == name)
    }

    /// The template's labels and annotations below our own, and what the spec names.
    pub fn mark(&self, metadata: &mut ObjectMeta) {
        let labels = metadata.labels.get_or_insert_default();
        for (key, value) in &self.metadata.labels {
            labels.entry(key.clone()).or_insert(value.clone());
        }
        let annotations = metadata.annotations.get_or_insert_default();
        for (key, value) in &self.metadata.annotations {
            annotations.entry(key.clone()).or_insert(value.clone());
        }
        annotations.insert(annotation::APP_IMAGES.into(), named(&self.images()));
    }

    /// What the template's hash is made of.
    pub fn without_images(&self, mut spec: PodSpec) -> (PodSpec, &TemplateMetadata) {
        let sidecars = spec.init_containers.iter_mut().flatten();
        let running = sidecars
            .filter(|container| is_sidecar(container))
            .chain(&mut spec.containers);
        for container in running {
            container.image = None;
        }
        (spec, self.metadata)
    }

    /// The pod of a member that would run alone, with the app's containers.
    pub fn around(self, cluster: &TaskStoreCluster, alone: PodSpec) -> PodSpec {
        let app = self.spec;
        let wiring = Wiring::of(cluster);
        let secured = alone.security_context;
        let members = alone.containers.into_iter();
        let members = members.map(|member| as_sidecar(member, secured.as_ref()));
        let theirs = app.init_containers.into_iter().flatten();
        let theirs = theirs.map(|container| wiring.connect(container));
        let containers = app.containers.into_iter();
        // An account of its own is for its own use, and so is that account's token.
        let token = match app.service_account_name {
            Some(_) => app.automount_service_account_token,
            None => app.automount_service_account_token.or(Some(false)),
        };
        let grace = app
            .termination_grace_period_seconds
            .unwrap_or(APP_GRACE_SECONDS);
        PodSpec {
            init_containers: Some(members.chain(theirs).collect()),
            containers: containers.map(|one| wiring.connect(one)).collect(),
            volumes: joined(
                joined(alone.volumes, app.volumes),
                wiring.volume.map(|ca| vec![ca]),
            ),
            hostname: alone.hostname,
            subdomain: alone.subdomain,
            restart_policy: alone.restart_policy,
            service_account_name: app.service_account_name.or(alone.service_account_name),
            automount_service_account_token: token,
            enable_service_links: app.enable_service_links.or(alone.enable_service_links),
            termination_grace_period_seconds: Some(grace.saturating_add(MEMBER_GRACE_SECONDS)),
            security_context: Some(with_volume_rights(app.security_context, secured)),
            image_pull_secrets: joined(alone.image_pull_secrets, app.image_pull_secrets),
            tolerations: joined(alone.tolerations, app.tolerations),
            node_selector: joined(alone.node_selector, app.node_selector),
            affinity: alone.affinity.or(app.affinity),
            priority_class_name: alone.priority_class_name.or(app.priority_class_name),
            topology_spread_constraints: joined(
                alone.topology_spread_constraints,
                app.topology_spread_constraints,
            ),
            ..app
        }
    }

    /// The same pod for a member that serves nobody: where the app's may run, and without its containers.
    pub fn around_nothing(self, cluster: &TaskStoreCluster, alone: PodSpec) -> PodSpec {
        let grace = alone.termination_grace_period_seconds;
        let whole = self.around(cluster, alone);
        let member = whole.init_containers.into_iter().flatten().next();
        PodSpec {
            init_containers: None,
            containers: member
                .map(|member| Container {
                    restart_policy: None,
                    ..member
                })
                .into_iter()
                .collect(),
            termination_grace_period_seconds: grace,
            ..whole
        }
    }
}

/// The images that a spec names, as they are recorded on a pod.
pub fn named(images: &BTreeMap<String, String>) -> String {
    serde_json::to_string(images).expect("a map of strings is always valid JSON")
}

/// Whether an init container runs as long as its pod.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some(ALWAYS)
}

/// What the whole pod promised for a member alone is promised by its container.
fn as_sidecar(mut member: Container, pod: Option<&PodSecurityContext>) -> Container {
    member.restart_policy = Some(ALWAYS.into());
    if let Some(pod) = pod {
        let own = member.security_context.take().unwrap_or_default();
        member.security_context = Some(SecurityContext {
            run_as_non_root: pod.run_as_non_root,
            run_as_user: pod.run_as_user,
            run_as_group: pod.run_as_group,
            seccomp_profile: pod.seccomp_profile.clone(),
            ..own
        });
    }
    member
}

/// Users and profiles are the app's own affair; a member's volumes need a group that it belongs to, any will do.
fn with_volume_rights(
    app: Option<PodSecurityContext>,
    alone: Option<PodSecurityContext>,
) -> PodSecurityContext {
    let (app, alone) = (app.unwrap_or_default(), alone.unwrap_or_default());
    PodSecurityContext {
        fs_group: app.fs_group.or(alone.fs_group),
        fs_group_change_policy: app.fs_group_change_policy.or(alone.fs_group_change_policy),
        ..app
    }
}

/// How a container finds its member.
struct Wiring {
    /// The cluster's own CA. Where the user's Secret holds the certificate, its CA is the user's to hand out.
    volume: Option<Volume>,
}

impl Wiring {
    fn of(cluster: &TaskStoreCluster) -> Self {
        let own = cluster.spec.tls.secret_name.is_none();
        let volume = own.then(|| Volume {
            name: CA_VOLUME.into(),
            config_map: Some(ConfigMapVolumeSource {
                name: names::ca_config_map(cluster_name(cluster)),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        });
        Self { volume }
    }

    /// What the user has set under these names stays. Ours come first, so that the user's can refer to them.
    fn connect(&self, mut container: Container) -> Container {
        let theirs = container.env.take().unwrap_or_default();
        let is_set = |name: &str| theirs.iter().any(|one| one.name == name);
        let unset = ADDRESS_VARIABLES.into_iter().filter(|name| !is_set(name));
        let address = || format!("localhost:{CLIENT_PORT}");
        let mut variables: Vec<EnvVar> = unset.map(|name| variable(name, address())).collect();
        if self.volume.is_some() && !is_set(CA_FILE_VARIABLE) {
            let file = format!("{CA_DIR}/{CA_CERTIFICATE}");
            variables.push(variable(CA_FILE_VARIABLE, file));
            let mounts = container.volume_mounts.get_or_insert_default();
            mounts.push(VolumeMount {
                name: CA_VOLUME.into(),
                mount_path: CA_DIR.into(),
                read_only: Some(true),
                ..VolumeMount::default()
            });
        }
        variables.extend(theirs);
        container.env = Some(variables);
        container
    }
}

fn variable(name: &str, value: String) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: Some(value),
        ..EnvVar::default()
    }
}

fn joined<T: Extend<I> + IntoIterator<Item = I>, I>(
    ours: Option<T>,
    theirs: Option<T>,
) -> Option<T> {
    match (ours, theirs) {
        (Some(mut ours), Some(theirs)) => {
            ours.extend(theirs);
            Some(ours)
        }
        (ours, theirs) => ours.or(theirs),
    }
}
