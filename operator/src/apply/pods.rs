//! A member's volume and pod.

use crds::MemberId;
use crds::names::{self, label};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::{Value, json};

use super::Scope;
use super::objects::{create as create_object, delete as delete_object, patch};
use crate::error::Error;
use crate::observe::Start;
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
    let name = names::volume_claim(scope.name(), member);
    patch::<PersistentVolumeClaim>(scope, "volume marked formatted", &name, version, change).await
}

pub async fn retire_volume(
    scope: &Scope<'_>,
    member: MemberId,
    version: &str,
) -> Result<(), Error> {
    let change = labels(label::RETIRED, json!(label::TRUE));
    let name = names::volume_claim(scope.name(), member);
    patch::<PersistentVolumeClaim>(scope, "volume retired", &name, version, change).await
}

pub async fn delete_volume(scope: &Scope<'_>, member: MemberId, uid: &str) -> Result<(), Error> {
    let name = names::volume_claim(scope.name(), member);
    delete_object::<PersistentVolumeClaim>(scope, "volume deleted", &name, uid).await
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
        volume_uid,
    };
    let image = scope
        .cluster
        .spec
        .image
        .as_deref()
        .unwrap_or(&scope.observed.default_image);
    let pod = resources::pod::build(scope.cluster, &identity, image, start, is_voter);
    create_object(scope, "pod created", &pod, "Pod").await
}

pub async fn mark_voter(scope: &Scope<'_>, member: MemberId, version: &str) -> Result<(), Error> {
    let change = labels(label::VOTER, json!(label::TRUE));
    let name = names::pod(scope.name(), member);
    patch::<Pod>(scope, "voter label set", &name, version, change).await
}

pub async fn delete(scope: &Scope<'_>, member: MemberId, uid: &str) -> Result<(), Error> {
    let name = names::pod(scope.name(), member);
    delete_object::<Pod>(scope, "pod deleted", &name, uid).await
}

fn labels(key: &str, value: Value) -> Value {
    json!({ "metadata": { "labels": { key: value } } })
}
