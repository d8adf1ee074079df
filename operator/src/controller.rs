//! Watches, and what they wake.
//!
//! ```text
//!  TaskStoreCluster ────────────────────────┐
//!  Pods, PVCs, Services, budgets ──label──▶ ├──▶ queue, one entry a cluster ──▶ reconcile
//!  TaskStoreBackups ──spec.cluster────────▶ │
//!  members' status streams, orders ────────▶│
//!  leadership gained ──────────────────────▶┘
//! ```
//!
//! One set of watches per namespace (or one for all): a Roles-only install may not watch the whole cluster.
//! Owned objects are found by label, because kept volumes have no owner. A standby fills its caches and
//! does nothing else, so that it can act at once.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crds::names::label;
use crds::{TaskStoreBackup, TaskStoreCluster, TaskStoreRestore};
use futures::{StreamExt, future, stream};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::controller::{Action as Requeue, Config, Error as ControllerError, applier};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::clients::members::Key;
use crate::context::Context;
use crate::error::Error;
use crate::leadership::Role;
use crate::observe::Caches;
use crate::orphans;
use crate::reconcile::reconcile;
use crate::restores;

/// Events of one burst are one pass. Short: a bootstrap is a chain of some twenty passes.
const DEBOUNCE: Duration = Duration::from_millis(10);
/// Passes at a time, over all clusters; each is mostly waiting for the API server.
const CONCURRENCY: u16 = 16;
/// Wake-ups that wait to be sorted; a full queue makes the watches wait, nothing is dropped.
const QUEUE: usize = 4_096;
const FILL_RECHECK: Duration = Duration::from_millis(100);
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// On SIGTERM passes in flight may finish within this.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);

type Waker = mpsc::Sender<ObjectRef<TaskStoreCluster>>;

/// The namespaces to look after; none means all.
pub type Namespaces = Vec<String>;

/// Runs until `stop`. `filled` is called once, when every cache has been filled.
pub async fn run(
    ctx: Arc<Context>,
    namespaces: Namespaces,
    members_wake: mpsc::Receiver<Key>,
    stop: CancellationToken,
    filled: impl FnOnce() + Send,
) {
    let scopes: Vec<Option<String>> = if namespaces.is_empty() {
        vec![None]
    } else {
        namespaces.into_iter().map(Some).collect()
    };
    let mut watches = JoinSet::new();
    let mut appliers = JoinSet::new();
    let mut areas = Vec::new();
    for scope in scopes {
        let (waker, queue) = mpsc::channel(QUEUE);
        let caches = watch_all(&ctx.client, scope.as_deref(), &waker, &mut watches);
        appliers.spawn(work(
            ctx.clone(),
            caches.clone(),
            waker.clone(),
            queue,
            stop.clone(),
        ));
        appliers.spawn(restores::run(ctx.clone(), scope.clone(), stop.clone()));
        areas.push(Area {
            scope,
            caches,
            waker,
        });
    }
    let areas = Arc::new(areas);
    watches.spawn(route(areas.clone(), members_wake));
    watches.spawn(follow_role(ctx.clone(), areas.clone()));

    let all_filled = future::join_all(areas.iter().map(|area| area.caches.filled()));
    tokio::select! {
        () = stop.cancelled() => {}
        _ = all_filled => {
            filled();
            stop.cancelled().await;
        }
    }
    let finished = async { while appliers.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIMEOUT, finished).await.is_err() {
        warn!("passes in flight were cut off; the next operator picks them up");
    }
    ctx.members.forget_all();
    ctx.orders.forget_all();
}

/// One set of watches, and what it wakes.
struct Area {
    scope: Option<String>,
    caches: Caches,
    waker: Waker,
}

impl Caches {
    /// A half-filled cache would make existing objects look lost.
    async fn filled(&self) {
        filled(&self.clusters).await;
        filled(&self.pods).await;
        filled(&self.claims).await;
        filled(&self.services).await;
        filled(&self.accounts).await;
        filled(&self.budgets).await;
        filled(&self.backups).await;
        filled(&self.restores).await;
    }
}

/// A store wakes only the last of those that wait for it, so each looks again by itself.
async fn filled<K>(store: &Store<K>)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    // An error says that the watch has ended, which only happens while we stop.
    while tokio::time::timeout(FILL_RECHECK, store.wait_until_ready())
        .await
        .is_err()
    {}
}

fn watch_all(
    client: &Client,
    scope: Option<&str>,
    waker: &Waker,
    tasks: &mut JoinSet<()>,
) -> Caches {
    let ours = || watcher::Config::default().labels(label::CLUSTER);
    Caches {
        clusters: watch(
            client,
            scope,
            watcher::Config::default(),
            waker,
            tasks,
            |cluster| Some(ObjectRef::from_obj(cluster)),
        ),
        pods: watch(client, scope, ours(), waker, tasks, cluster_of),
        claims: watch(client, scope, ours(), waker, tasks, cluster_of),
        services: watch(client, scope, ours(), waker, tasks, cluster_of),
        accounts: watch(client, scope, ours(), waker, tasks, cluster_of),
        budgets: watch(client, scope, ours(), waker, tasks, cluster_of),
        backups: watch(
            client,
            scope,
            watcher::Config::default(),
            waker,
            tasks,
            cluster_of_backup,
        ),
        // They tell which backups must stay, and nothing has to be done at once for that.
        restores: watch(
            client,
            scope,
            watcher::Config::default(),
            waker,
            tasks,
            |_: &TaskStoreRestore| None,
        ),
    }
}

fn cluster_of<K: Resource>(object: &K) -> Option<ObjectRef<TaskStoreCluster>> {
    let name = object.meta().labels.as_ref()?.get(label::CLUSTER)?;
    Some(ObjectRef::new(name).within(object.meta().namespace.as_deref()?))
}

fn cluster_of_backup(backup: &TaskStoreBackup) -> Option<ObjectRef<TaskStoreCluster>> {
    let cluster = ObjectRef::new(&backup.spec.cluster);
    Some(cluster.within(backup.metadata.namespace.as_deref()?))
}

fn watch<K>(
    client: &Client,
    scope: Option<&str>,
    config: watcher::Config,
    waker: &Waker,
    tasks: &mut JoinSet<()>,
    cluster_of: impl Fn(&K) -> Option<ObjectRef<TaskStoreCluster>> + Send + 'static,
) -> Store<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let api: Api<K> = match scope {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let (store, writer) = reflector::store();
    let waker = waker.clone();
    let events = watcher(api, config)
        // Half of an object, and nothing of ours reads it.
        .modify(|object: &mut K| object.managed_fields_mut().clear())
        .default_backoff();
    tasks.spawn(async move {
        let mut touched = std::pin::pin!(reflector::reflector(writer, events).touched_objects());
        while let Some(event) = touched.next().await {
            match event {
                Ok(object) => {
                    if let Some(cluster) = cluster_of(&object) {
                        let _ = waker.send(cluster).await;
                    }
                }
                Err(error) => warn!(kind = %K::kind(&()), %error, "watch interrupted"),
            }
        }
    });
    store
}

/// Hands a member's news to the area that its cluster is in.
async fn route(areas: Arc<Vec<Area>>, mut news: mpsc::Receiver<Key>) {
    while let Some((namespace, name)) = news.recv().await {
        let area = areas
            .iter()
            .find(|area| area.scope.as_ref().is_none_or(|scope| *scope == namespace));
        if let Some(area) = area {
            let _ = area
                .waker
                .send(ObjectRef::new(&name).within(&namespace))
                .await;
        }
    }
}

/// A new leader looks at everything; a former one closes its streams.
async fn follow_role(ctx: Arc<Context>, areas: Arc<Vec<Area>>) {
    let mut role = ctx.role.clone();
    loop {
        let now = *role.borrow_and_update();
        ctx.metrics.leads(now == Role::Leading);
        match now {
            Role::Standby => {
                ctx.members.forget_all();
                ctx.orders.forget_all();
            }
            Role::Leading => {
                for area in areas.iter() {
                    for cluster in area.caches.clusters.state() {
                        let _ = area.waker.send(ObjectRef::from_obj(cluster.as_ref())).await;
                    }
                    // Some may name a cluster that is not there.
                    for backup in area.caches.backups.state() {
                        if let Some(cluster) = cluster_of_backup(&backup) {
                            let _ = area.waker.send(cluster).await;
                        }
                    }
                }
            }
        }
        if role.changed().await.is_err() {
            return;
        }
    }
}

/// Reconciles what the queue names, until `stop`; passes in flight are finished.
async fn work(
    ctx: Arc<Context>,
    caches: Caches,
    waker: Waker,
    mut queue: mpsc::Receiver<ObjectRef<TaskStoreCluster>>,
    stop: CancellationToken,
) {
    let failures: Arc<Mutex<HashMap<Key, u32>>> = Arc::default();
    let succeeded = failures.clone();
    let requests = stream::poll_fn(move |cx| queue.poll_recv(cx))
        .map(Ok::<_, std::convert::Infallible>)
        .take_until(stop.cancelled_owned());
    let store = caches.clusters.clone();
    let all = caches.clone();
    let run_one = move |cluster: Arc<TaskStoreCluster>, ctx: Arc<Context>| {
        let (caches, succeeded) = (caches.clone(), succeeded.clone());
        Box::pin(async move {
            caches.filled().await;
            let key = key(&cluster);
            let outcome = reconcile(cluster, ctx, caches).await;
            if outcome.is_ok() {
                succeeded
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&key);
            }
            outcome
        })
    };
    let on_error = move |cluster: Arc<TaskStoreCluster>, error: &Error, _: Arc<Context>| {
        let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(key(&cluster)).or_insert(0);
        *count = count.saturating_add(1);
        let wait = backoff(*count);
        warn!(cluster = %cluster.name_any(), %error, retry_ms = wait.as_millis(), "pass failed");
        Requeue::requeue(wait)
    };
    let config = Config::default()
        .debounce(DEBOUNCE)
        .concurrency(CONCURRENCY);
    let passes = applier(run_one, on_error, ctx.clone(), store, requests, config);
    let mut passes = std::pin::pin!(passes);
    while let Some(pass) = passes.next().await {
        if let Err(ControllerError::ObjectNotFound(gone)) = pass {
            let key = (gone.namespace.unwrap_or_default(), gone.name);
            ctx.forget(&key);
            tokio::spawn(give_up_backups(
                ctx.clone(),
                all.clone(),
                waker.clone(),
                key,
            ));
        }
    }
}

/// Nobody makes the backups of a cluster that is not there; its object may come a little after theirs.
async fn give_up_backups(ctx: Arc<Context>, caches: Caches, waker: Waker, key: Key) {
    caches.filled().await;
    let cluster = ObjectRef::new(&key.1).within(&key.0);
    if !ctx.leads() || caches.clusters.get(&cluster).is_some() {
        return;
    }
    match orphans::give_up(&ctx.client, &caches, &key, Timestamp::now()).await {
        Ok(None) => {}
        Ok(Some(wait)) => {
            tokio::time::sleep(wait).await;
            let _ = waker.send(cluster).await;
        }
        Err(error) => {
            debug!(%error, "backups without a cluster are not given up");
            tokio::time::sleep(BACKOFF_MAX).await;
            let _ = waker.send(cluster).await;
        }
    }
}

fn key(cluster: &TaskStoreCluster) -> Key {
    (cluster.namespace().unwrap_or_default(), cluster.name_any())
}

/// Doubles from `BACKOFF_MIN` to `BACKOFF_MAX`, with jitter so that many clusters do not knock at once.
fn backoff(failures: u32) -> Duration {
    let doubled = BACKOFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled
        .min(BACKOFF_MAX)
        .mul_f64(0.75 + fastrand::f64() / 2.0)
}
