//! Creates, patches and deletes of plain objects.

use crds::names::label;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Scope;
use crate::error::{Error, kubernetes};
use crate::plan::action::{Fixture, Owned, Ownership};
use crate::resources;

/// Bounds of what a kind must be to be written here.
pub trait Written:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + Serialize
    + DeserializeOwned
{
}
impl<K> Written for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned
{
}

/// Creates it, or finds that it exists already and is of this cluster.
pub async fn create<K: Written>(
    scope: &Scope<'_>,
    doing: &'static str,
    object: &K,
    kind: &'static str,
) -> Result<(), Error> {
    let api = scope.api::<K>();
    match api.create(&PostParams::default(), object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let name = object.name_any();
            let found = api
                .get_metadata_opt(&name)
                .await
                .map_err(kubernetes(doing))?;
            let is_ours = found.is_none_or(|found| {
                found.labels().get(label::CLUSTER).map(String::as_str) == Some(scope.name())
            });
            if is_ours {
                Ok(())
            } else {
                Err(Error::NameTaken { kind, name })
            }
        }
        Err(error) => Err(kubernetes(doing)(error)),
    }
}

/// A merge patch that is refused when the object moved. One that is gone was late as well.
pub async fn patch<K: Written>(
    scope: &Scope<'_>,
    doing: &'static str,
    name: &str,
    version: &str,
    mut change: Value,
) -> Result<(), Error> {
    change["metadata"]["resourceVersion"] = json!(version);
    let patched = scope
        .api::<K>()
        .patch(name, &PatchParams::default(), &Patch::Merge(&change))
        .await;
    match patched {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Err(Error::Stale { doing }),
        Err(error) => Err(kubernetes(doing)(error)),
    }
}

/// Deletes exactly this object, and with a version only as it was then; another one of the same name stays.
pub async fn delete<K: Written>(
    scope: &Scope<'_>,
    doing: &'static str,
    name: &str,
    uid: &str,
    version: Option<&str>,
) -> Result<(), Error> {
    let parameters = DeleteParams::background().preconditions(Preconditions {
        uid: Some(uid.to_owned()),
        resource_version: version.map(str::to_owned),
    });
    match scope.api::<K>().delete(name, &parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(kubernetes(doing)(error)),
    }
}

pub async fn create_fixture(scope: &Scope<'_>, fixture: Fixture) -> Result<(), Error> {
    let cluster = scope.cluster;
    match fixture {
        Fixture::ServiceAccount => {
            create(
                scope,
                "account created",
                &resources::service_account(cluster),
                "ServiceAccount",
            )
            .await
        }
        Fixture::PeerService => {
            create(
                scope,
                "peer service created",
                &resources::service::peers(cluster),
                "Service",
            )
            .await
        }
        Fixture::ClientService => {
            create(
                scope,
                "client service created",
                &resources::service::clients(cluster),
                "Service",
            )
            .await
        }
    }
}

pub async fn repair_fixture(
    scope: &Scope<'_>,
    fixture: Fixture,
    version: &str,
) -> Result<(), Error> {
    let service = match fixture {
        // It has no fields that could drift.
        Fixture::ServiceAccount => return Ok(()),
        Fixture::PeerService => resources::service::peers(scope.cluster),
        Fixture::ClientService => resources::service::clients(scope.cluster),
    };
    let change = json!({ "spec": service.spec });
    patch::<Service>(
        scope,
        "service repaired",
        &service.name_any(),
        version,
        change,
    )
    .await
}

pub async fn set_owner(
    scope: &Scope<'_>,
    kind: Owned,
    name: &str,
    version: &str,
    owner: Ownership,
) -> Result<(), Error> {
    let references = match owner {
        Ownership::Cluster => json!([resources::owner(scope.cluster)]),
        Ownership::Nobody => json!([]),
    };
    let change = json!({ "metadata": { "ownerReferences": references } });
    let doing = "owner set";
    let names = |fixture| match fixture {
        Fixture::ServiceAccount => crds::names::service_account(scope.name()),
        Fixture::PeerService => crds::names::peer_service(scope.name()),
        Fixture::ClientService => crds::names::client_service(scope.name()),
    };
    match kind {
        Owned::Volume => patch::<PersistentVolumeClaim>(scope, doing, name, version, change).await,
        Owned::Pod => patch::<Pod>(scope, doing, name, version, change).await,
        Owned::Fixture(fixture @ Fixture::ServiceAccount) => {
            patch::<ServiceAccount>(scope, doing, &names(fixture), version, change).await
        }
        Owned::Fixture(fixture) => {
            patch::<Service>(scope, doing, &names(fixture), version, change).await
        }
    }
}

pub async fn create_budget(scope: &Scope<'_>, min_available: u32) -> Result<(), Error> {
    let budget = budget(scope, min_available);
    create(scope, "budget created", &budget, "PodDisruptionBudget").await
}

fn budget(scope: &Scope<'_>, min_available: u32) -> PodDisruptionBudget {
    let is_any_fenced = scope.observed.is_any_fenced();
    resources::disruption_budget::build(scope.cluster, min_available, is_any_fenced)
}

pub async fn set_budget(scope: &Scope<'_>, min_available: u32, version: &str) -> Result<(), Error> {
    let doing = "budget set";
    let mut budget = budget(scope, min_available);
    budget.metadata.resource_version = Some(version.to_owned());
    // A patch keeps what it does not name: somebody's maxUnavailable, or one more label in the selector.
    let replaced = scope
        .api::<PodDisruptionBudget>()
        .replace(&budget.name_any(), &PostParams::default(), &budget)
        .await;
    match replaced {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Err(Error::Stale { doing }),
        Err(error) => Err(kubernetes(doing)(error)),
    }
}

pub async fn delete_budget(scope: &Scope<'_>, uid: &str) -> Result<(), Error> {
    let name = crds::names::disruption_budget(scope.name());
    delete::<PodDisruptionBudget>(scope, "budget deleted", &name, uid, None).await
}
