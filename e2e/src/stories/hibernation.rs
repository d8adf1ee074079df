//! A cluster is laid to rest under load and woken: the volumes stay, and so does every task.

use super::Story;
use super::made::loaded;
use crate::store::{KUBECTL_LIMIT, READY_LIMIT, says};
use anyhow::{Result, ensure};
use crds::{ConditionType, Reason};
use std::time::Instant;

pub async fn hibernate_and_wake(story: Story) -> Result<()> {
    let (store, load) = loaded(&story, 3).await?;
    let volumes = ["get", "persistentvolumeclaims", "-o", "name"];
    let kept = story.kubectl(&volumes).await?;

    let start = Instant::now();
    store.patch(r#"{"hibernated": true}"#).await?;
    let gone = ["wait", "--for=delete", "pods", "--all", KUBECTL_LIMIT];
    story.kubectl(&gone).await?;
    let seconds = start.elapsed().as_secs_f64();
    story.figures.add("hibernate_seconds", seconds);
    store
        .until("it says that it sleeps", READY_LIMIT, |cluster| {
            says(cluster, ConditionType::Progressing, Reason::Hibernated)
        })
        .await?;
    ensure!(
        story.kubectl(&volumes).await? == kept,
        "volumes went or came while it slept"
    );

    let start = Instant::now();
    store.patch(r#"{"hibernated": false}"#).await?;
    store.healed(3, READY_LIMIT).await?;
    let seconds = start.elapsed().as_secs_f64();
    story.figures.add("wake_seconds", seconds);
    ensure!(
        story.kubectl(&volumes).await? == kept,
        "it woke with other volumes"
    );
    load.goes_on(50).await?;
    load.finish().await.map(drop)
}
