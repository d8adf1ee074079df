//! `kubectl taskstore` on a living cluster: it shows the members, hands over under load, shows what the operator
//! would do next, and says what its caller has no right to.

use super::Story;
use super::made::loaded;
use crate::images;
use crate::install::{DEPLOYMENT, NAMESPACE};
use crate::process::{output, search_path};
use crate::store::{KUBECTL_LIMIT, READY_LIMIT, Store};
use anyhow::{Context, Result, ensure};
use crds::TaskStoreCluster;
use std::future::Future;
use std::path::PathBuf;

pub async fn asked(story: Story) -> Result<()> {
    let plugin = Plugin {
        folder: images::plugin().await?,
        story: story.clone(),
    };
    let (store, load) = loaded(&story, 3).await?;
    let name = store.name.as_str();

    let leader = store.leader().await?;
    let shown = plugin.says(&["status", name]).await?;
    let of_leader = shown.lines().find(|line| line.contains(&leader));
    ensure!(
        of_leader.is_some_and(|line| line.contains("Voter, leads"))
            && shown.contains("3 of 3 voters Ready")
            && shown.contains("leads in term")
            && shown.contains("No operation is in flight"),
        "status says:\n{shown}"
    );
    let idle = plugin.says(&["plan", name]).await?;
    ensure!(
        idle.contains("would do nothing"),
        "at rest the plan is:\n{idle}"
    );

    let to = follower(&store, &leader).await?;
    load.take_gap_ms();
    let handed = plugin.says(&["switchover", name, "--to", &to]).await?;
    let leads = |cluster: &TaskStoreCluster| {
        let status = cluster.status.as_ref();
        status.and_then(|status| status.leader.as_ref()) == Some(&to)
    };
    store.until(&handed, READY_LIMIT, leads).await?;
    load.goes_on(50).await?;
    let gap = load.take_gap_ms();
    story.figures.add("switchover_write_gap_ms", gap);

    // Paused, the operator does nothing; what it would do is what it does once it may.
    store.patch(r#"{"paused": true, "replicas": 5}"#).await?;
    let paused = plugin.says(&["plan", name]).await?;
    ensure!(
        paused.contains("PausedBySpec"),
        "paused the plan is:\n{paused}"
    );
    let next = without_operator(&story, async {
        store.patch(r#"{"paused": false}"#).await?;
        plugin.says(&["plan", name]).await
    });
    let next = next.await?;
    ensure!(
        next.contains("operation: ScaleOut, step Reserve") && next.contains("reserve 2 members"),
        "for a scale to 5 the plan is:\n{next}"
    );
    store.healed(5, READY_LIMIT).await?;

    let viewer = viewer(&story).await?;
    let file = viewer.path().to_string_lossy();
    let seen = plugin
        .says(&["status", name, "--kubeconfig", &file])
        .await?;
    ensure!(
        seen.contains("5 of 5 voters Ready") && seen.contains("is not known: read the Secret"),
        "to one who may only view, status says:\n{seen}"
    );
    let refused = plugin
        .says(&["switchover", name, "--kubeconfig", &file])
        .await;
    let refused = refused.err().context("one who may only view handed over")?;
    ensure!(
        format!("{refused:#}").contains("read the Secret"),
        "one who may only view is told {refused:#}"
    );
    load.finish().await.map(drop)
}

/// The built plugin, and the kubectl that finds it.
struct Plugin {
    folder: PathBuf,
    story: Story,
}

impl Plugin {
    /// What `kubectl taskstore` prints, in the story's namespace.
    async fn says(&self, arguments: &[&str]) -> Result<String> {
        let in_namespace = ["--namespace", self.story.namespace.as_str()];
        let all = [&["taskstore"], arguments, &in_namespace].concat();
        let known = search_path();
        let folders = std::env::split_paths(&known);
        let path = std::env::join_paths(std::iter::once(self.folder.clone()).chain(folders))?;
        output(self.story.cluster.kubectl_command(&all).env("PATH", path)).await
    }
}

/// Does something while no operator runs, and brings it back in any case.
async fn without_operator<T>(story: &Story, work: impl Future<Output = Result<T>>) -> Result<T> {
    let deployment = format!("deployment/{DEPLOYMENT}");
    let scale = async |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        let scale = ["--namespace", NAMESPACE, "scale", &deployment, &replicas];
        story.cluster.kubectl(&scale).await
    };
    let replicas = ["get", &deployment, "-o", "jsonpath={.spec.replicas}"];
    let replicas = [&["--namespace", NAMESPACE], &replicas[..]].concat();
    let replicas = story.cluster.kubectl(&replicas).await?;
    scale("0").await?;
    let done = async {
        let gone = "--selector=app.kubernetes.io/name=taskstore-operator";
        let wait = ["wait", "--for=delete", "pod", gone, KUBECTL_LIMIT];
        let wait = [&["--namespace", NAMESPACE], &wait[..]].concat();
        story.cluster.kubectl(&wait).await?;
        work.await
    };
    let done = done.await;
    scale(replicas.trim()).await?;
    done
}

/// A voter that does not lead.
async fn follower(store: &Store, leader: &str) -> Result<String> {
    let status = store.get().await?.status.unwrap_or_default();
    let mut pods = status.members.into_iter().map(|member| member.pod);
    pods.find(|pod| pod != leader).context("only one member")
}

/// The kubeconfig of somebody who has the role `view` in the story's namespace.
async fn viewer(story: &Story) -> Result<tempfile::NamedTempFile> {
    story
        .kubectl(&["create", "serviceaccount", "viewer"])
        .await?;
    let account = format!("--serviceaccount={}:viewer", story.namespace);
    let bind = [
        "create",
        "rolebinding",
        "viewer",
        "--clusterrole=view",
        &account,
    ];
    story.kubectl(&bind).await?;
    let token = story.kubectl(&["create", "token", "viewer"]).await?;
    let file = tempfile::NamedTempFile::new()?;
    let mut config = kube::config::Kubeconfig::read_from(&story.cluster.kubeconfig)?;
    let user = config
        .auth_infos
        .first_mut()
        .context("a kubeconfig has a user")?;
    user.auth_info = Some(kube::config::AuthInfo {
        token: Some(token.trim().to_owned().into()),
        ..kube::config::AuthInfo::default()
    });
    std::fs::write(file.path(), serde_json::to_string(&config)?)?;
    Ok(file)
}
