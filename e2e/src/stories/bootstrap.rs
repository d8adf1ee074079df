//! The acting operator dies at several moments of a bootstrap; the next one finishes it.

use super::Story;
use super::load::Load;
use super::made::small;
use crate::store::{self, KUBECTL_LIMIT, READY_LIMIT, Store};
use anyhow::{Result, ensure};
use crds::TaskStoreCluster;
use crds::status::{Identity, OperationKind, Step};
use std::time::Instant;

/// A moment of the bootstrap, by what the object's status says.
type Moment = (&'static str, fn(&TaskStoreCluster) -> bool);

const MOMENTS: [Moment; 4] = [
    ("applied", |_| true),
    ("named", |cluster| identity(cluster).is_some()),
    ("formatted", |cluster| at(cluster, Step::Initialize)),
    ("initialized", |cluster| {
        identity(cluster).is_some_and(|identity| identity.initialized)
    }),
];

pub async fn operator_killed(story: Story) -> Result<()> {
    for (name, moment) in MOMENTS {
        let store = Store::open(&story.cluster, &story.namespace, name).await?;
        let start = Instant::now();
        story.apply(&small(name, 3)).await?;
        store.until(name, READY_LIMIT, moment).await?;
        store::kill_operator(&story.cluster, &store.kube).await?;
        let before = identity(&store.get().await?).cloned();
        let ready = store.ready(3, READY_LIMIT).await?;
        story.figures.add(
            &format!("operator_killed_when_{name}_ready_seconds"),
            start.elapsed().as_secs_f64(),
        );
        let after = identity(&ready);
        ensure!(
            before.is_none() || before.as_ref().map(founding) == after.map(founding),
            "{name}: the identity changed from {before:?} to {after:?}"
        );
        let load = Load::start(&store, "load").await?;
        load.goes_on(100).await?;
        load.finish().await?;
        story
            .kubectl(&["delete", "taskstorecluster", name, KUBECTL_LIMIT])
            .await?;
    }
    Ok(())
}

fn identity(cluster: &TaskStoreCluster) -> Option<&Identity> {
    cluster.status.as_ref()?.identity.as_ref()
}

fn founding(identity: &Identity) -> (&str, u16, &[crds::MemberId]) {
    (
        &identity.cluster_id,
        identity.incarnation,
        &identity.founders,
    )
}

/// At this step of the bootstrap, or past it: a status may skip what was quick.
fn at(cluster: &TaskStoreCluster, step: Step) -> bool {
    let status = cluster.status.as_ref();
    let operation = status.and_then(|status| status.operation.as_ref());
    operation.is_some_and(|operation| {
        operation.kind == OperationKind::Bootstrap && operation.step == step
    }) || identity(cluster).is_some_and(|identity| identity.initialized)
}
