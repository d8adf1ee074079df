//! Clusters under load cost the API server nothing: for a minute the operator asks for nothing but its own Lease
//! and its watches.

use super::Story;
use super::load::Load;
use super::made::small;
use crate::audit::{Audit, Request};
use crate::install;
use crate::store::{READY_LIMIT, Store};
use anyhow::{Result, ensure};
use std::time::Duration;

const CLUSTERS: [&str; 3] = ["one", "two", "three"];
const WATCHED_FOR: Duration = Duration::from_secs(60);

pub async fn nothing_asked(story: Story) -> Result<()> {
    let mut stores = Vec::new();
    for name in CLUSTERS {
        story.apply(&small(name, 3)).await?;
        stores.push(Store::open(&story.cluster, &story.namespace, name).await?);
    }
    let mut loads = Vec::new();
    for store in &stores {
        store.healed(3, READY_LIMIT).await?;
        loads.push(Load::start(store, "load").await?);
    }
    for (store, load) in stores.iter().zip(&loads) {
        load.goes_on(100).await?;
        store.healed(3, READY_LIMIT).await?;
    }
    let audit = Audit::from_now()?;
    tokio::time::sleep(WATCHED_FOR).await;
    let heard = audit.of_namespace(install::NAMESPACE)?;
    for load in loads {
        load.goes_on(50).await?;
        load.finish().await?;
    }

    let (leases, others): (Vec<Request>, Vec<Request>) = heard
        .into_iter()
        .filter(|request| request.verb != "watch")
        .partition(|request| request.resource() == "leases");
    ensure!(
        !leases.is_empty(),
        "not even the operator's Lease is in the audit log: nobody was listened to"
    );
    story
        .figures
        .add("lease_requests_a_minute", leases.len() as f64);
    story
        .figures
        .add("other_requests_a_minute", others.len() as f64);
    let told: Vec<String> = others
        .iter()
        .map(|request| format!("{} {}", request.verb, request.uri))
        .collect();
    ensure!(
        told.is_empty(),
        "in a minute of load the operator asked for:\n{}",
        told.join("\n")
    );
    Ok(())
}
