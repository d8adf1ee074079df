//! TaskStoreRestores: makes the cluster that each asks for, and tells how far it has come.
//!
//! ```text
//!  TaskStoreRestore ───────────┐
//!  clusters made by one ─────▶ ├──▶ next (pure) ─▶ status, or one cluster
//!  leadership gained ────────▶ │
//! ```
//!
//! The cluster is nobody's but the user's: deleting a TaskStoreRestore deletes no cluster.

pub mod next;

use std::sync::Arc;
use std::time::Duration;

use crds::conditions::shortened;
use crds::names::label;
use crds::{TaskStoreBackup, TaskStoreCluster, TaskStoreRestore};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::runtime::controller::Action as Requeue;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clients::objects::{recheck, replace_status};
use crate::context::Context;
use crate::error::{Error, kubernetes};
pub use next::{Found, Next, next};

/// For what no event tells of.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(2);

/// Looks after the restores of one namespace, or of all, until `stop`.
pub async fn run(ctx: Arc<Context>, scope: Option<String>, stop: CancellationToken) {
    let of_ours = watcher::Config::default().labels(label::RESTORE_UID);
    let (restores, clusters) = match &scope {
        Some(namespace) => (
            Api::namespaced(ctx.client.clone(), namespace),
            Api::namespaced(ctx.client.clone(), namespace),
        ),
        None => (Api::all(ctx.client.clone()), Api::all(ctx.client.clone())),
    };
    let role = ctx.role.clone();
    let changes = stream::unfold(role, |mut role| async move {
        role.changed().await.ok()?;
        Some(((), role))
    });
    let made = |cluster: TaskStoreCluster| {
        let name = cluster.spec.restored_by.clone()?;
        Some(ObjectRef::new(&name).within(&cluster.namespace()?))
    };
    Controller::new(restores, watcher::Config::default())
        .watches(clusters, of_ours, made)
        .reconcile_all_on(changes)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, on_error, ctx)
        .for_each(|_| std::future::ready(()))
        .await;
}

fn on_error(restore: Arc<TaskStoreRestore>, error: &Error, _: Arc<Context>) -> Requeue {
    warn!(restore = %restore.name_any(), %error, "restore not taken on");
    Requeue::requeue(RETRY)
}

async fn reconcile(restore: Arc<TaskStoreRestore>, ctx: Arc<Context>) -> Result<Requeue, Error> {
    let is_final = restore
        .status
        .as_ref()
        .is_some_and(|status| status.phase.is_final());
    if !ctx.leads() || is_final || restore.metadata.deletion_timestamp.is_some() {
        return Ok(Requeue::await_change());
    }
    let now = Timestamp::now();
    let found = find(&ctx, &restore).await?;
    let mut next = next(&restore, &found, now);
    if next.makes_cluster {
        match make_cluster(&ctx, &restore).await? {
            Made::Yes => {}
            Made::Refused(words) => next::fail(&mut next.status, now, words),
            Made::NotNow(words) => next.status.message = Some(shortened(words)),
        }
    }
    let looks_again = next.looks_again || next.makes_cluster;
    if restore.status.as_ref() != Some(&next.status) {
        let mut wanted = restore.as_ref().clone();
        wanted.status = Some(next.status);
        replace_status(&ctx.client, "restore status", &wanted).await?;
    }
    Ok(match looks_again {
        true => Requeue::requeue(LOOK_AGAIN),
        false => Requeue::await_change(),
    })
}

async fn find(ctx: &Context, restore: &TaskStoreRestore) -> Result<Found, Error> {
    let namespace = restore.namespace().unwrap_or_default();
    let clusters: Api<TaskStoreCluster> = Api::namespaced(ctx.client.clone(), &namespace);
    let backups: Api<TaskStoreBackup> = Api::namespaced(ctx.client.clone(), &namespace);
    let cluster = clusters.get_opt(&restore.spec.cluster.name).await;
    let backup = match &restore.spec.source.backup {
        Some(name) => backups
            .get_opt(name)
            .await
            .map_err(kubernetes("backup read"))?,
        None => None,
    };
    Ok(Found {
        cluster: cluster.map_err(kubernetes("cluster read"))?,
        backup,
    })
}

/// What the API server said to the cluster.
enum Made {
    Yes,
    /// For good.
    Refused(String),
    /// Somebody may change that: a quota, a policy, a right.
    NotNow(String),
}

async fn make_cluster(ctx: &Context, restore: &TaskStoreRestore) -> Result<Made, Error> {
    let kind = ApiResource::erase::<TaskStoreCluster>(&());
    let namespace = restore.namespace().unwrap_or_default();
    let wanted = &restore.spec.cluster;
    let mut spec = wanted.spec.clone();
    spec.insert("restoredBy".into(), json!(restore.name_any()));
    let mut cluster = DynamicObject::new(&wanted.name, &kind).within(&namespace);
    let uid = restore.uid().unwrap_or_default();
    cluster.labels_mut().insert(label::RESTORE_UID.into(), uid);
    cluster.data = json!({ "spec": spec });
    // An old cache must not make a cluster again that was made and deleted.
    recheck(&ctx.client, "restore read again", restore).await?;
    let clusters: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), &namespace, &kind);
    match clusters.create(&PostParams::default(), &cluster).await {
        Ok(_) => {
            info!(namespace, cluster = wanted.name, restore = %restore.name_any(), "cluster made");
            Ok(Made::Yes)
        }
        // The next pass looks whose it is.
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(Made::Yes),
        Err(kube::Error::Api(status)) if status.is_invalid() || status.code == 400 => {
            Ok(Made::Refused(status.message.clone()))
        }
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            Ok(Made::NotNow(status.message.clone()))
        }
        Err(error) => Err(kubernetes("cluster made")(error)),
    }
}
