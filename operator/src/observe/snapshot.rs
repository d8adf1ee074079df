//! Reads the caches of one namespace set into `Observed`.

use std::sync::Arc;

use crds::names::{self, label};
use crds::status::OperationKind;
use crds::{TaskStoreBackup, TaskStoreCluster, TaskStoreRestore};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ListParams;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource, ResourceExt};

use super::{
    Backups, ClientSecret, Credentials, Member, Observed, Pod, PodPhase, Restore, objects,
};
use crate::resources::{self, cluster_name, namespace};
use crds::MemberId;
use std::collections::BTreeMap;

/// What the watches of one namespace (or of all) have seen.
#[derive(Clone)]
pub struct Caches {
    pub clusters: Store<TaskStoreCluster>,
    pub pods: Store<core::Pod>,
    pub claims: Store<core::PersistentVolumeClaim>,
    pub services: Store<core::Service>,
    pub accounts: Store<core::ServiceAccount>,
    pub budgets: Store<PodDisruptionBudget>,
    pub backups: Store<TaskStoreBackup>,
    pub restores: Store<TaskStoreRestore>,
}

/// Builds the picture of one cluster. Asks the API server only while the cluster has no recorded identity,
/// because then a cache that is not yet full must not make an existing cluster look like a new one; and for
/// a Secret of the user's that a pod may be waiting for.
pub async fn observe(
    client: &Client,
    caches: &Caches,
    cluster: &TaskStoreCluster,
    members: BTreeMap<MemberId, Member>,
    mut credentials: Credentials,
    default_image: &str,
) -> Result<Observed, kube::Error> {
    let uid = cluster.metadata.uid.as_deref().unwrap_or_default();
    let has_identity = cluster
        .status
        .as_ref()
        .is_some_and(|status| status.identity.is_some());
    let (claims, pods) = if has_identity {
        (
            of_cluster(&caches.claims, cluster),
            of_cluster(&caches.pods, cluster),
        )
    } else {
        (
            listed(client, cluster).await?,
            listed(client, cluster).await?,
        )
    };
    let volumes = claims
        .iter()
        .filter_map(|claim| objects::volume(claim, uid))
        .map(|volume| (volume.name.clone(), volume))
        .collect();
    let drill_name = names::drill(cluster_name(cluster));
    let mut drills = pods.iter().filter(|pod| pod.name_any() == drill_name);
    let drill = drills.find_map(|pod| super::drill(pod));
    let pods: BTreeMap<String, Pod> = pods
        .iter()
        .filter_map(|pod| objects::pod(pod, uid))
        .map(|pod| (pod.name.clone(), pod))
        .collect();
    credentials.client_secret =
        client_secret(client, cluster, &pods, credentials.client_secret).await?;
    let name = cluster_name(cluster);
    let service = |name: String, wanted: core::Service| {
        named(&caches.services, cluster, &name)
            .map(|found| objects::object(&found.metadata, found.as_ref(), &wanted, cluster))
    };
    let mut observed = Observed {
        volumes,
        pods,
        client_service: service(
            names::client_service(name),
            resources::service::clients(cluster),
        ),
        peer_service: service(
            names::peer_service(name),
            resources::service::peers(cluster),
        ),
        account: named(&caches.accounts, cluster, &names::service_account(name)).map(|found| {
            objects::object(
                &found.metadata,
                found.as_ref(),
                &resources::service_account(cluster),
                cluster,
            )
        }),
        budget: None,
        credentials,
        members,
        refused_growth: BTreeMap::new(),
        backups: Backups::of(
            name,
            &of_namespace(&caches.backups, cluster),
            &of_namespace(&caches.restores, cluster),
        ),
        restore: restore(client, cluster).await?,
        drill,
        default_image: default_image.to_owned(),
    };
    let is_any_fenced = observed.is_any_fenced();
    observed.budget = named(&caches.budgets, cluster, &names::disruption_budget(name))
        .map(|found| objects::budget(&found, cluster, is_any_fenced));
    Ok(observed)
}

/// Read until it is good, and again while a pod is Pending: it may have been taken away since.
async fn client_secret(
    client: &Client,
    cluster: &TaskStoreCluster,
    pods: &BTreeMap<String, Pod>,
    known: Option<(String, ClientSecret)>,
) -> Result<Option<(String, ClientSecret)>, kube::Error> {
    let Some(name) = &cluster.spec.tls.secret_name else {
        return Ok(None);
    };
    let is_good = known == Some((name.clone(), ClientSecret::Good));
    if is_good && !pods.values().any(|pod| pod.phase == PodPhase::Pending) {
        return Ok(known);
    }
    let secrets: Api<core::Secret> = Api::namespaced(client.clone(), namespace(cluster));
    let found = secrets.get_opt(name).await?;
    Ok(Some((name.clone(), objects::client_secret(found.as_ref()))))
}

fn of_namespace<K>(store: &Store<K>, cluster: &TaskStoreCluster) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.state_filter(|object| object.namespace().as_deref() == Some(namespace(cluster)))
}

/// Asked for by whoever has not begun alone.
async fn restore(
    client: &Client,
    cluster: &TaskStoreCluster,
) -> Result<Option<Restore>, kube::Error> {
    let status = cluster.status.as_ref();
    let operation = status.and_then(|status| status.operation.as_ref());
    let has_begun = status.is_some_and(|status| status.identity.is_some())
        && operation.is_none_or(|operation| operation.kind != OperationKind::Restore);
    let Some(name) = cluster.spec.restored_by.as_ref().filter(|_| !has_begun) else {
        return Ok(None);
    };
    let restores: Api<TaskStoreRestore> = Api::namespaced(client.clone(), namespace(cluster));
    let found = restores.get_opt(name).await?;
    Ok(Some(objects::restore(found.as_ref(), cluster)))
}

fn of_cluster<K>(store: &Store<K>, cluster: &TaskStoreCluster) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.state_filter(|object| {
        object.namespace().as_deref() == Some(namespace(cluster))
            && object.labels().get(label::CLUSTER).map(String::as_str)
                == Some(cluster_name(cluster))
    })
}

async fn listed<K>(client: &Client, cluster: &TaskStoreCluster) -> Result<Vec<Arc<K>>, kube::Error>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace(cluster));
    let selector =
        ListParams::default().labels(&format!("{}={}", label::CLUSTER, cluster_name(cluster)));
    Ok(api
        .list(&selector)
        .await?
        .items
        .into_iter()
        .map(Arc::new)
        .collect())
}

fn named<K>(store: &Store<K>, cluster: &TaskStoreCluster, name: &str) -> Option<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.get(&ObjectRef::new(name).within(namespace(cluster)))
}
