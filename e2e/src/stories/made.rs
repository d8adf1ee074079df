//! What product stories begin with: a small cluster, and load on it.

use super::Story;
use super::load::Load;
use crate::store::{READY_LIMIT, Store};
use anyhow::Result;

/// A cluster that many of fit on a small machine.
pub fn small(name: &str, replicas: u32) -> String {
    on_class(name, replicas, "")
}

/// The same on volumes of a class; none is the default class.
pub fn on_class(name: &str, replicas: u32, class: &str) -> String {
    let class = match class {
        "" => String::new(),
        class => format!(", className: {class}"),
    };
    format!(
        "apiVersion: taskstore.dev/v1alpha1
kind: TaskStoreCluster
metadata: {{ name: {name} }}
spec:
  replicas: {replicas}
  storage: {{ size: 1Gi, logBudget: 256Mi{class} }}
  resources: {{ requests: {{ cpu: 20m, memory: 64Mi }} }}
"
    )
}

/// A Ready cluster of this size under load.
pub async fn loaded(story: &Story, replicas: u32) -> Result<(Store, Load)> {
    let store = Store::open(&story.cluster, &story.namespace, "store").await?;
    story.apply(&small(&store.name, replicas)).await?;
    store.ready(i32::try_from(replicas)?, READY_LIMIT).await?;
    let load = Load::start(&store, "load").await?;
    load.goes_on(100).await?;
    Ok((store, load))
}
