//! A member's volume and pod.

use std::collections::BTreeMap;

use crds::names::{self, annotation, label};
use crds::{MemberId, quantity};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tracing::warn;

use super::Scope;
use super::objects::{create as create_object, delete as delete_object, patch};
use crate::error::{Error, kubernetes};
use crate::observe::{RefusedGrowth, Restore, Start};
use crate::plan::action::short;
use crate::resources;

pub async fn create_volume(scope: &Scope<'_>, member: MemberId) -> Result<(), Error> {
    let claim = resources::volume_claim::build(scope.cluster, &scope.cluster_id, member);
    create_object(scope, "volume created", &claim, "PersistentVolumeClaim").await
}

pub async fn mark_formatted(
    scope: &Scope<'_>,
    member: MemberId,
    version: &str,
) -> Result<(), Error> {
    let change = labels(label::FORMATTED, json!(label::TRUE));
    let name = volume_name(scope, member);
    patch::<PersistentVolumeClaim>(scope, "volume marked formatted", &name, version, change).await
}

pub async fn retire_volume(
    scope: &Scope<'_>,
    member: MemberId,
    version: &str,
) -> Result<(), Error> {
    let change = labels(label::RETIRED, json!(label::TRUE));
    let name = volume_name(scope, member);
    patch::<PersistentVolumeClaim>(scope, "volume retired", &name, version, change).await
}

pub async fn delete_volume(scope: &Scope<'_>, member: MemberId, uid: &str) -> Result<(), Error> {
    let name = volume_name(scope, member);
    delete_object::<PersistentVolumeClaim>(scope, "volume deleted", &name, uid, None).await
}

/// Retries of the same refusal are the plan's to time.
pub async fn grow_volume(
    scope: &Scope<'_>,
    member: MemberId,
    size: &str,
    version: &str,
) -> Result<(), Error> {
    let change = json!({ "spec": { "resources": { "requests": { "storage": size } } } });
    let name = volume_name(scope, member);
    let doing = "volume grown";
    let grown = patch::<PersistentVolumeClaim>(scope, doing, &name, version, change).await;
    let refused = match &grown {
        Err(Error::Kubernetes {
            source: kube::Error::Api(answer),
            ..
        }) if answer.is_forbidden() || answer.is_invalid() => Some(RefusedGrowth {
            bytes: quantity::units(&Quantity(size.to_owned())).unwrap_or(0),
            words: reason(&answer.message).to_owned(),
            at: Timestamp::now(),
        }),
        _ => None,
    };
    let Some(refused) = refused else {
        return grown;
    };
    warn!(
        member = short(member),
        words = refused.words,
        "volume not grown"
    );
    scope.ctx.held(&scope.key(), |held| {
        held.refused_growth.insert(member, refused);
    });
    Ok(())
}

/// Without whom it is about: `persistentvolumeclaims "demo-1-1" is forbidden: …`.
fn reason(message: &str) -> &str {
    let marks = [" is forbidden: ", " is invalid: "];
    let mut found = marks.iter().filter_map(|mark| message.split_once(mark));
    found.next().map_or(message, |(_, reason)| reason)
}

/// Both labels at once, so that the volume is never nobody's.
pub async fn hand_volume(
    scope: &Scope<'_>,
    from: MemberId,
    to: MemberId,
    version: &str,
) -> Result<(), Error> {
    let change = json!({ "metadata": { "labels": {
        label::MEMBER_ID: to.to_string(),
        label::INCARNATION: to.incarnation().to_string(),
    } } });
    let name = volume_name(scope, from);
    patch::<PersistentVolumeClaim>(scope, "volume handed on", &name, version, change).await
}

/// The claim that carries the member's id; one that a recovery handed on is named after another member.
pub fn volume_name(scope: &Scope<'_>, member: MemberId) -> String {
    match scope.observed.volume_of(member) {
        Some(volume) => volume.name.clone(),
        None => names::volume_claim(scope.name(), member),
    }
}

pub async fn create(
    scope: &Scope<'_>,
    member: MemberId,
    volume_uid: &str,
    start: Start,
    is_voter: bool,
) -> Result<(), Error> {
    let identity = resources::pod::Identity {
        cluster_id: &scope.cluster_id,
        member,
        volume: &volume_name(scope, member),
        volume_uid,
        restore: match (start, &scope.observed.restore) {
            (Start::Restore, Some(Restore::Ordered(order))) => Some(order),
            (Start::Restore, _) => {
                return Err(Error::Stale {
                    doing: "pod created",
                });
            }
            _ => None,
        },
    };
    let image = resources::pod::image(scope.cluster, &scope.observed.default_image);
    let pod = resources::pod::build(scope.cluster, &identity, image, start, is_voter);
    create_object(scope, "pod created", &pod, "Pod").await
}

pub async fn mark_voter(scope: &Scope<'_>, member: MemberId, version: &str) -> Result<(), Error> {
    let change = labels(label::VOTER, json!(label::TRUE));
    let name = names::pod(scope.name(), member);
    patch::<Pod>(scope, "voter label set", &name, version, change).await
}

pub async fn delete(
    scope: &Scope<'_>,
    member: MemberId,
    uid: &str,
    version: Option<&str>,
) -> Result<(), Error> {
    let name = names::pod(scope.name(), member);
    delete_object::<Pod>(scope, "pod deleted", &name, uid, version).await
}

/// Only what changes is named, so that what others added to the pod stays.
pub async fn set_image(
    scope: &Scope<'_>,
    member: MemberId,
    image: &str,
    version: &str,
    replaces: Option<&str>,
) -> Result<(), Error> {
    let mut annotations = json!({ annotation::IMAGE: scope.cluster.spec.image });
    if let Some(container) = replaces {
        annotations[annotation::REPLACED_CONTAINER] = json!(container);
    }
    let container = json!([{ "name": names::MEMBER_CONTAINER, "image": image }]);
    let observed = scope.observed.pod_of(member);
    let list = match observed.and_then(|pod| pod.app.as_ref()) {
        None => "containers",
        Some(_) => "initContainers",
    };
    let spec = json!({ list: container });
    patch_containers(scope, "image set", member, version, annotations, spec).await
}

/// The same for containers around a member: which of them are sidecars says the template.
pub async fn set_app_images(
    scope: &Scope<'_>,
    member: MemberId,
    images: &BTreeMap<String, String>,
    version: &str,
    replaces: &[String],
) -> Result<(), Error> {
    let doing = "images set";
    let Some(app) = resources::sidecar::App::of(scope.cluster) else {
        return Err(Error::Stale { doing });
    };
    let named = resources::sidecar::named(&app.images());
    let annotations = json!({
        annotation::APP_IMAGES: named,
        annotation::REPLACED_APP_CONTAINERS: replaces.join(","),
    });
    let (mut init, mut main) = (Vec::new(), Vec::new());
    for (name, image) in images {
        let list = if app.has_sidecar(name) {
            &mut init
        } else {
            &mut main
        };
        list.push(json!({ "name": name, "image": image }));
    }
    let mut spec = json!({});
    for (list, containers) in [("initContainers", init), ("containers", main)] {
        if !containers.is_empty() {
            spec[list] = json!(containers);
        }
    }
    patch_containers(scope, doing, member, version, annotations, spec).await
}

async fn patch_containers(
    scope: &Scope<'_>,
    doing: &'static str,
    member: MemberId,
    version: &str,
    annotations: Value,
    spec: Value,
) -> Result<(), Error> {
    let change = json!({
        "metadata": { "resourceVersion": version, "annotations": annotations },
        "spec": spec,
    });
    let patched = scope
        .api::<Pod>()
        .patch(
            &names::pod(scope.name(), member),
            &PatchParams::default(),
            // A merge patch would take the list of containers for the whole of it.
            &Patch::Strategic(&change),
        )
        .await;
    match patched {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Err(Error::Stale { doing }),
        Err(error) => Err(kubernetes(doing)(error)),
    }
}

fn labels(key: &str, value: Value) -> Value {
    json!({ "metadata": { "labels": { key: value } } })
}
