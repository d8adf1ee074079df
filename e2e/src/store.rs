//! One TaskStoreCluster on a Kubernetes, as its user and its enemy see it: wait for it, talk to it,
//! kill parts of it.

use crate::cluster::{Cluster, Kind};
use crate::forward::Forward;
use crate::{install, local};
use anyhow::{Context, Result, bail};
use crds::conditions::get;
use crds::names::{self, CLIENT_PORT, label};
use crds::{ConditionType, Reason, TaskStoreCluster};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use std::sync::Arc;
use std::time::Duration;
use taskstore_api::{Endpoints, TaskStoreClient, Trust};
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// Whatever should come to pass does so within this, on a machine busy with other things too: images
/// pulled, pods made again, voters changed.
pub const READY_LIMIT: Duration = Duration::from_secs(180);
/// The same for kubectl.
pub const KUBECTL_LIMIT: &str = "--timeout=180s";
/// So many connections of one client, each to any member: a dead one is left for the next.
const CONNECTIONS: usize = 3;

#[derive(Clone)]
pub struct Store {
    pub cluster: Cluster,
    pub namespace: String,
    pub name: String,
    pub kube: kube::Client,
    forward: Arc<OnceCell<Forward>>,
}

impl Store {
    pub async fn open(cluster: &Cluster, namespace: &str, name: &str) -> Result<Self> {
        Ok(Self {
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            kube: cluster.client().await?,
            forward: Arc::default(),
        })
    }

    pub fn api(&self) -> Api<TaskStoreCluster> {
        Api::namespaced(self.kube.clone(), &self.namespace)
    }

    pub fn pods_api(&self) -> Api<Pod> {
        Api::namespaced(self.kube.clone(), &self.namespace)
    }

    pub async fn get(&self) -> Result<TaskStoreCluster> {
        Ok(self.api().get(&self.name).await?)
    }

    /// Merges JSON into the spec.
    pub async fn patch(&self, spec: &str) -> Result<()> {
        let spec: serde_json::Value = serde_json::from_str(spec)?;
        let change = Patch::Merge(serde_json::json!({ "spec": spec }));
        self.api()
            .patch(&self.name, &PatchParams::default(), &change)
            .await
            .context("patch the spec")?;
        Ok(())
    }

    /// Waits for a state of the object; when it does not come, the error shows its status.
    pub async fn until(
        &self,
        what: &str,
        limit: Duration,
        met: impl Fn(&TaskStoreCluster) -> bool,
    ) -> Result<TaskStoreCluster> {
        let condition = |found: Option<&TaskStoreCluster>| found.is_some_and(&met);
        let wait = await_condition(self.api(), &self.name, condition);
        let Ok(found) = timeout(limit, wait).await else {
            let status = self.get().await.map(|cluster| cluster.status);
            let seconds = limit.as_secs();
            bail!("{what}: not within {seconds} s; the status is {status:?}");
        };
        found?.with_context(|| format!("{what}: {} was deleted", self.name))
    }

    /// Waits until so many voters are Ready, nothing is in flight and the spec has been seen.
    pub async fn ready(&self, replicas: i32, limit: Duration) -> Result<TaskStoreCluster> {
        let what = format!("{}/{} Ready with {replicas}", self.namespace, self.name);
        self.until(&what, limit, |cluster| settled(cluster, replicas))
            .await
    }

    /// Waits until the members' pods are exactly the voters', and all of them are Ready.
    pub async fn healed(&self, replicas: i32, limit: Duration) -> Result<TaskStoreCluster> {
        let cluster = self.ready(replicas, limit).await?;
        for member in cluster.status.iter().flat_map(|status| &status.members) {
            self.pod_ready(&member.pod, limit).await?;
        }
        self.ready(replicas, limit).await
    }

    pub async fn pod_ready(&self, pod: &str, limit: Duration) -> Result<()> {
        let ready = |pod: Option<&Pod>| pod.is_some_and(is_ready);
        timeout(limit, await_condition(self.pods_api(), pod, ready))
            .await
            .with_context(|| format!("pod {pod} is not Ready after {} s", limit.as_secs()))??;
        Ok(())
    }

    pub async fn pod_gone(&self, pod: &str) -> Result<()> {
        let gone = |pod: Option<&Pod>| pod.is_none();
        timeout(READY_LIMIT, await_condition(self.pods_api(), pod, gone))
            .await
            .with_context(|| format!("the pod {pod} never ends"))??;
        Ok(())
    }

    pub fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.kube.clone(), &self.namespace)
    }

    /// Whether a claim is kept and will never be used again.
    pub async fn is_retired(&self, claim: &str) -> Result<bool> {
        let labels = self.claims().get(claim).await?.metadata.labels;
        let retired = labels.and_then(|mut labels| labels.remove(label::RETIRED));
        Ok(retired.as_deref() == Some(label::TRUE))
    }

    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let selector = names::pod_selector(&self.name);
        let list = ListParams::default().labels(&selector);
        Ok(self.pods_api().list(&list).await?.items)
    }

    /// The pod of the member that leads, as the operator last saw it.
    pub async fn leader(&self) -> Result<String> {
        let named = |cluster: &TaskStoreCluster| leader(cluster).is_some();
        let cluster = self.until("a leader", READY_LIMIT, named).await?;
        leader(&cluster).context("the condition just held")
    }

    /// Crashes a pod and removes it; returns when another has its name.
    pub async fn kill(&self, pod: &str) -> Result<()> {
        let uid = self.pods_api().get(pod).await?.metadata.uid;
        crash(&self.cluster, uid.as_deref()).await?;
        self.remove(pod, &DeleteParams::default().grace_period(0))
            .await
    }

    /// Removes a pod as anyone would: it is told to end. Returns when another has its name.
    pub async fn delete_pod(&self, pod: &str) -> Result<()> {
        self.remove(pod, &DeleteParams::default()).await
    }

    async fn remove(&self, pod: &str, how: &DeleteParams) -> Result<()> {
        let api = self.pods_api();
        let uid = api.get(pod).await?.metadata.uid;
        api.delete(pod, how).await?;
        let another = |found: Option<&Pod>| found.is_some_and(|found| found.metadata.uid != uid);
        timeout(READY_LIMIT, await_condition(api, pod, another))
            .await
            .with_context(|| format!("pod {pod} was not made again"))??;
        Ok(())
    }

    /// Where members are reached from this machine.
    async fn addresses(&self) -> Result<Vec<String>> {
        if self.cluster.kind == Kind::Given {
            let open = async {
                let status = self.get().await?.status.unwrap_or_default();
                let members = status.members.into_iter();
                let pods: Vec<String> = members.map(|member| member.pod).collect();
                Forward::open(&self.cluster, &self.namespace, &pods, CLIENT_PORT).await
            };
            return Ok(self
                .forward
                .get_or_try_init(|| open)
                .await?
                .addresses
                .clone());
        }
        let services: Api<Service> = Api::namespaced(self.kube.clone(), &self.namespace);
        let service = services.get(&names::client_service(&self.name)).await?;
        let address = service
            .spec
            .and_then(|spec| spec.cluster_ip)
            .with_context(|| format!("the Service of {} has no address", self.name))?;
        Ok(vec![format!("{address}:{CLIENT_PORT}"); CONNECTIONS])
    }

    /// A client with connections of its own.
    pub async fn client(&self) -> Result<TaskStoreClient> {
        let maps: Api<ConfigMap> = Api::namespaced(self.kube.clone(), &self.namespace);
        let ca_pem = maps
            .get(&names::ca_config_map(&self.name))
            .await?
            .data
            .and_then(|mut data| data.remove("ca.crt"))
            .context("the CA's ConfigMap holds no ca.crt")?;
        let endpoints = Endpoints {
            addresses: self.addresses().await?,
            trust: Trust::Tls {
                ca_pem,
                server_name: Some(names::client_host(&self.name, &self.namespace)),
            },
        };
        Ok(TaskStoreClient::connect(&endpoints)?)
    }
}

/// The operator that acts, by its Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acting {
    /// Of one process: a restarted one is another holder, also in the same pod.
    pub holder: String,
}

impl Acting {
    /// The identity is the pod's name and a random suffix for each process.
    pub fn pod(&self) -> &str {
        let pod = self.holder.rsplit_once('-');
        pod.map_or(self.holder.as_str(), |(pod, _)| pod)
    }
}

/// The node that the acting operator runs on: what is done to it is another story than the operator's own.
pub async fn operator_node(kube: &kube::Client) -> Result<Option<String>> {
    let acting = acting_operator(kube, None).await?;
    let pods: Api<Pod> = Api::namespaced(kube.clone(), install::NAMESPACE);
    let spec = pods.get(acting.pod()).await?.spec;
    Ok(spec.and_then(|spec| spec.node_name))
}

/// Waits for an operator that acts and is not `other`: with one that crashed, until its Lease ran out.
pub async fn acting_operator(kube: &kube::Client, other: Option<&Acting>) -> Result<Acting> {
    let leases: Api<Lease> = Api::namespaced(kube.clone(), install::NAMESPACE);
    let acting = |lease: Option<&Lease>| {
        let holder = lease.and_then(holder)?.to_owned();
        Some(Acting { holder }).filter(|acting| Some(acting) != other)
    };
    let held = |lease: Option<&Lease>| acting(lease).is_some();
    let wait = await_condition(leases, install::DEPLOYMENT, held);
    let lease = timeout(READY_LIMIT, wait)
        .await
        .with_context(|| format!("no operator but {other:?} leads"))??;
    acting(lease.as_ref()).context("the operators' Lease is gone")
}

/// Crashes the acting operator: its Lease stays as it was. Returns who it was.
pub async fn kill_operator(cluster: &Cluster, kube: &kube::Client) -> Result<Acting> {
    let pods: Api<Pod> = Api::namespaced(kube.clone(), install::NAMESPACE);
    let mut gone = None;
    loop {
        let acting = acting_operator(kube, gone.as_ref()).await?;
        let Some(pod) = pods.get_opt(acting.pod()).await? else {
            // The Lease still names one that is gone: another takes it over soon.
            gone = Some(acting);
            continue;
        };
        crash(cluster, pod.metadata.uid.as_deref()).await?;
        let now = DeleteParams::default().grace_period(0);
        pods.delete(acting.pod(), &now)
            .await
            .with_context(|| format!("delete {}", acting.pod()))?;
        return Ok(acting);
    }
}

/// SIGKILL to a pod's processes, for which even a deletion without grace is an orderly end. On a
/// given cluster nobody can do that, and a deletion has to do.
async fn crash(cluster: &Cluster, uid: Option<&str>) -> Result<()> {
    match cluster.kind {
        Kind::Local(_) => local::kill_pod(uid.context("a pod has a UID")?).await,
        Kind::Given => Ok(()),
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then_some(holder)
}

fn leader(cluster: &TaskStoreCluster) -> Option<String> {
    cluster.status.as_ref()?.leader.clone()
}

/// Whether a condition has this reason.
pub fn says(cluster: &TaskStoreCluster, kind: ConditionType, reason: Reason) -> bool {
    let conditions = cluster.status.as_ref().map(|status| &status.conditions);
    conditions
        .and_then(|conditions| get(conditions, kind))
        .is_some_and(|known| known.reason == reason.as_str())
}

/// Serving, with this many voters, all of them Ready, and nothing left to do.
fn settled(cluster: &TaskStoreCluster, replicas: i32) -> bool {
    let Some(status) = &cluster.status else {
        return false;
    };
    let is = |kind: ConditionType, value: &str| {
        status
            .conditions
            .iter()
            .any(|condition| condition.type_ == kind.as_str() && condition.status == value)
    };
    is(ConditionType::Ready, "True")
        && is(ConditionType::MembershipStable, "True")
        && status.operation.is_none()
        && status.observed_generation == cluster.metadata.generation
        && (status.replicas, status.ready_replicas) == (replicas, replicas)
}

pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
