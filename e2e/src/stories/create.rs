//! A cluster is made, and the API server refuses those that break a rule.

use super::Story;
use super::load::Load;
use super::made::small;
use crate::images::workspace;
use crate::store::{READY_LIMIT, Store};
use anyhow::{Context, Result, ensure};
use crds::TaskStoreCluster;
use crds::validate::cases::{Case, cases};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, PostParams};
use std::time::Instant;

/// From `kubectl apply` to Ready, and it serves.
pub async fn create(story: Story) -> Result<()> {
    let store = Store::open(&story.cluster, &story.namespace, "store").await?;
    let start = Instant::now();
    story.apply(&small("store", 3)).await?;
    store.ready(3, READY_LIMIT).await?;
    let seconds = start.elapsed().as_secs_f64();
    story.figures.add("apply_to_ready_seconds", seconds);
    let load = Load::start(&store, "load").await?;
    load.goes_on(300).await?;
    load.finish().await.map(drop)
}

/// Every rule is kept by the API server, in our words, as the table says; the examples keep them.
pub async fn rules(story: Story) -> Result<()> {
    let examples = workspace().join("crds/examples");
    let examples = examples.to_string_lossy();
    let dry_apply = [
        "apply",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        &examples,
    ];
    story.kubectl(&dry_apply).await?;
    let kube = story.cluster.client().await?;
    let kind = ApiResource::erase::<TaskStoreCluster>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(kube, &story.namespace, &kind);
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    for (number, case) in cases().into_iter().enumerate() {
        let sent = send(&api, &dry_run, &case, number).await;
        let refusal = match sent.with_context(|| case.name)? {
            Ok(_) => None,
            Err(kube::Error::Api(status)) => Some(status.message),
            Err(error) => return Err(error).context(case.name),
        };
        ensure!(
            case.verdict.is_met_by(refusal.as_deref()),
            "{}: expected {:?}, the API server says {refusal:?}",
            case.name,
            case.verdict
        );
    }
    Ok(())
}

/// The old object is made for real, but paused: no members are made for it.
async fn send(
    api: &Api<DynamicObject>,
    dry_run: &PostParams,
    case: &Case,
    number: usize,
) -> Result<kube::Result<DynamicObject>> {
    let Some(old) = &case.old else {
        let new = serde_json::from_value(case.new.clone())?;
        return Ok(api.create(dry_run, &new).await);
    };
    let (mut old, mut new) = (old.clone(), case.new.clone());
    let name = format!("case-{number}");
    for object in [&mut old, &mut new] {
        object["metadata"]["name"] = name.clone().into();
        object["spec"]["paused"] = true.into();
    }
    let made = api
        .create(&PostParams::default(), &serde_json::from_value(old)?)
        .await?;
    let mut new: DynamicObject = serde_json::from_value(new)?;
    new.metadata.uid = made.metadata.uid;
    // The operator writes to it too: only a stale version is sent again.
    let answer = loop {
        new.metadata.resource_version = api.get(&name).await?.metadata.resource_version;
        match api.replace(&name, dry_run, &new).await {
            Err(kube::Error::Api(status)) if status.reason == "Conflict" => {}
            answer => break answer,
        }
    };
    api.delete(&name, &DeleteParams::default()).await?;
    Ok(answer)
}
