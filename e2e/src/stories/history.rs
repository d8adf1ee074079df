//! What happened to a store's objects, in the one order that the API server gives all writes: etcd
//! counts them, whatever the kind, and a resourceVersion is that count.

use crate::store::Store;
use anyhow::{Context, Result};
use crds::TaskStoreCluster;
use crds::names;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Resource;
use kube::api::{Api, WatchEvent, WatchParams};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// The API server ends a watch on its own after five minutes; no change here takes as long.
const WATCH_SECONDS: u32 = 290;
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Everything written since its start; it records until it is dropped.
pub struct History {
    pub clusters: Record<TaskStoreCluster>,
    pub pods: Record<Pod>,
    pub budgets: Record<PodDisruptionBudget>,
}

impl History {
    pub async fn start(store: &Store) -> Result<Self> {
        let (kube, namespace) = (&store.kube, store.namespace.as_str());
        let name = |name: &str| format!("metadata.name={name}");
        let none = WatchParams::default();
        let params = |fields: &str| none.clone().timeout(WATCH_SECONDS).fields(fields);
        let pods = none.clone().timeout(WATCH_SECONDS);
        let pods = pods.labels(&names::pod_selector(&store.name));
        let budget = names::disruption_budget(&store.name);
        Ok(Self {
            clusters: record(
                Api::namespaced(kube.clone(), namespace),
                params(&name(&store.name)),
            )
            .await?,
            pods: record(Api::namespaced(kube.clone(), namespace), pods).await?,
            budgets: record(
                Api::namespaced(kube.clone(), namespace),
                params(&name(&budget)),
            )
            .await?,
        })
    }
}

/// One kind's writes, each with its revision.
pub struct Record<K> {
    seen: Arc<Mutex<Vec<(u64, K)>>>,
    task: JoinHandle<()>,
}

impl<K> Drop for Record<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<K: Clone> Record<K> {
    pub fn all(&self) -> Vec<(u64, K)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }

    /// Waits for a write; the first that is as wanted.
    pub async fn first(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(u64, &K) -> bool,
    ) -> Result<(u64, K)> {
        let start = Instant::now();
        loop {
            let found = self.all().into_iter().find(|(at, one)| wanted(*at, one));
            if let Some(found) = found {
                return Ok(found);
            }
            anyhow::ensure!(
                start.elapsed() < limit,
                "{what}: not within {} s",
                limit.as_secs()
            );
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}

/// Begins with what is there now.
async fn record<K>(api: Api<K>, params: WatchParams) -> Result<Record<K>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let mut events = api.watch(&params, "0").await.context("watch")?.boxed();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    let task = tokio::spawn(async move {
        while let Some(Ok(event)) = events.next().await {
            if let WatchEvent::Added(one) | WatchEvent::Modified(one) | WatchEvent::Deleted(one) =
                event
            {
                let at = one.meta().resource_version.as_deref();
                let at = at.and_then(|at| at.parse().ok()).unwrap_or(0);
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push((at, one));
            }
        }
    });
    Ok(Record { seen, task })
}
