//! One pass over one cluster: validate → prove a new template → observe → plan → apply → status.
//!
//! Nothing is remembered between passes but what can be read again. What must be known to the next
//! operator is written to status before anything is done (`Plan::must_record`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::{TaskStoreCluster, TaskStoreClusterStatus, Violation};
use jiff::Timestamp;
use kube::runtime::controller::Action as Requeue;

use crate::apply::{Scope, apply, proof};
use crate::clients::members::Key;
use crate::clients::objects::replace_status;
use crate::context::{Context, Held};
use crate::error::{Error, kubernetes};
use crate::observe::{Caches, Observed, observe, streams};
use crate::plan::{Plan, plan};
use crate::resources::{cluster_name, namespace};
use crate::status;

/// A pass that takes longer is given up and started again from what is there.
const PASS_TIMEOUT: Duration = Duration::from_secs(30);
/// After a write that came late; the event of the change that was faster usually comes first.
const STALE_RETRY: Duration = Duration::from_millis(300);
/// Nothing tells us that what a template was refused for, like an account that is not there, has changed.
const PROOF_RETRY: Duration = Duration::from_secs(10);

pub async fn reconcile(
    cluster: Arc<TaskStoreCluster>,
    ctx: Arc<Context>,
    caches: Caches,
) -> Result<Requeue, Error> {
    if !ctx.leads() {
        return Ok(Requeue::await_change());
    }
    let started = Instant::now();
    let outcome = tokio::time::timeout(PASS_TIMEOUT, pass(&cluster, &ctx, &caches))
        .await
        .unwrap_or(Err(Error::TimedOut { doing: "reconcile" }));
    let word = outcome.as_ref().map_or_else(Error::kind, |_| "ok");
    ctx.metrics.reconciled(word, started.elapsed());
    match outcome {
        Ok(wake) => Ok(wake),
        Err(Error::Stale { .. } | Error::Earlier { .. }) => Ok(Requeue::requeue(STALE_RETRY)),
        Err(error) => Err(error),
    }
}

async fn pass(
    cluster: &TaskStoreCluster,
    ctx: &Context,
    caches: &Caches,
) -> Result<Requeue, Error> {
    let now = Timestamp::now();
    let violations = crds::validate(cluster, None);
    if !violations.is_empty() {
        write_status(ctx, cluster, status::invalid(cluster, &violations, now)).await?;
        return Ok(Requeue::await_change());
    }
    let key = (
        namespace(cluster).to_owned(),
        cluster_name(cluster).to_owned(),
    );
    let credentials = ctx.held(&key, |held| {
        let uid = cluster.metadata.uid.clone().unwrap_or_default();
        if held.cluster_uid != uid {
            ctx.orders.forget(&key);
            *held = Held {
                cluster_uid: uid,
                ..Held::default()
            };
        }
        held.facts.clone()
    });
    if let Some(words) = template_refused(ctx, cluster, &key).await? {
        let violation = Violation {
            field: "spec.template".into(),
            message: words.into(),
        };
        write_status(ctx, cluster, status::invalid(cluster, &[violation], now)).await?;
        return Ok(Requeue::requeue(PROOF_RETRY));
    }
    let mut observed = observe(
        &ctx.client,
        caches,
        cluster,
        ctx.members.known(&key),
        credentials,
        &ctx.default_image,
    )
    .await
    .map_err(kubernetes("observe"))?;
    observed.backups.orders = ctx.orders.known(&key);
    ctx.held(&key, |held| {
        held.facts
            .client_secret
            .clone_from(&observed.credentials.client_secret);
        observed.refused_growth.clone_from(&held.refused_growth);
    });

    let plan = plan(cluster, &observed, now);
    let done = if plan.must_record(cluster) {
        Ok(())
    } else {
        apply(&Scope::new(ctx, cluster, &observed), &plan.actions).await
    };
    listen(ctx, cluster, &observed);
    write_status(
        ctx,
        cluster,
        status::next(cluster, &observed, &plan, done.as_ref().err(), now),
    )
    .await?;
    done.map(|()| wake(&plan, now))
}

/// In the words of the API server, which is asked once for each generation.
async fn template_refused(
    ctx: &Context,
    cluster: &TaskStoreCluster,
    key: &Key,
) -> Result<Option<String>, Error> {
    let proven = ctx.held(key, |held| held.proven_generation);
    if !proof::is_due(cluster, proven) {
        return Ok(None);
    }
    let refusal = proof::refused(&ctx.client, cluster).await?;
    if refusal.is_none() {
        let generation = cluster.metadata.generation;
        ctx.held(key, |held| held.proven_generation = generation);
    }
    Ok(refusal)
}

/// Opens and closes status streams as the world now asks for.
fn listen(ctx: &Context, cluster: &TaskStoreCluster, observed: &Observed) {
    let key = (
        namespace(cluster).to_owned(),
        cluster_name(cluster).to_owned(),
    );
    let Some(tls) = ctx.held(&key, |held| held.tls.clone()) else {
        return;
    };
    let present: Vec<_> = observed.pods.values().map(|pod| pod.member).collect();
    ctx.members
        .watch(&key, &tls, streams::wanted(observed, cluster), &present);
}

/// Writes a status that differs, and only onto the version it was made from.
pub async fn write_status(
    ctx: &Context,
    cluster: &TaskStoreCluster,
    status: TaskStoreClusterStatus,
) -> Result<(), Error> {
    if cluster.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let mut wanted = cluster.clone();
    wanted.status = Some(status);
    ctx.metrics.status_written();
    replace_status(&ctx.client, "status", &wanted).await
}

fn wake(plan: &Plan, now: Timestamp) -> Requeue {
    match plan.wake_at {
        Some(at) => {
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO);
            // A timer that fires a little early would only fire again.
            Requeue::requeue(wait.max(Duration::from_millis(50)))
        }
        None => Requeue::await_change(),
    }
}
