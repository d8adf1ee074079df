//! The S3 server is what backups need: the member's own client, in a pod, may write, read, write only once,
//! list and delete there; with wrong keys it may not.

use super::Story;
use crate::store::READY_LIMIT;
use crate::{bucket, images};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};
use kube::runtime::wait::await_condition;

pub async fn fit_for_backups(story: Story) -> Result<()> {
    bucket::make()?;
    bucket::secret(&story.cluster, &story.namespace).await?;
    let bad = ["create", "secret", "generic", "wrong"];
    let keys = [
        "--from-literal=AWS_ACCESS_KEY_ID=taskstore-local",
        "--from-literal=AWS_SECRET_ACCESS_KEY=wrong",
    ];
    story.kubectl(&[&bad[..], &keys].concat()).await?;
    let ca = format!("--from-literal=ca.crt={}", bucket::ca_pem()?);
    story.kubectl(&["create", "configmap", "ca", &ca]).await?;

    let (phase, said) = check(&story, "right", bucket::SECRET).await?;
    ensure!(phase == "Succeeded", "the check ended as {phase}: {said}");
    let (phase, said) = check(&story, "wrong", "wrong").await?;
    ensure!(
        phase == "Failed" && said.contains("right to write"),
        "a check with a wrong key ended as {phase}: {said}"
    );
    let left = bucket::folder().join(&story.namespace);
    ensure!(!left.exists(), "the checks left {}", left.display());
    Ok(())
}

/// How `taskstore backup check` ends in a pod, and what it says.
async fn check(story: &Story, name: &str, secret: &str) -> Result<(String, String)> {
    let image = images::product().await?.node.reference;
    let (url, endpoint) = (bucket::url(&story.namespace), bucket::endpoint());
    story
        .apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext: {{ runAsNonRoot: true, seccompProfile: {{ type: RuntimeDefault }} }}
  containers:
  - name: check
    image: {image}
    args: [backup, check, --url, \"{url}\", --endpoint, \"{endpoint}\", --path-style,
           --ca-file, /ca/ca.crt, --credentials-dir, /credentials]
    securityContext: {{ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{ drop: [ALL] }} }}
    volumeMounts: [{{ name: ca, mountPath: /ca }}, {{ name: credentials, mountPath: /credentials }}]
  volumes:
  - {{ name: ca, configMap: {{ name: ca }} }}
  - {{ name: credentials, secret: {{ secretName: {secret} }} }}
"
        ))
        .await?;
    let pods: Api<Pod> = Api::namespaced(story.cluster.client().await?, &story.namespace);
    let ended = |pod: Option<&Pod>| {
        phase(pod).is_some_and(|phase| phase != "Pending" && phase != "Running")
    };
    let pod = tokio::time::timeout(READY_LIMIT, await_condition(pods.clone(), name, ended))
        .await
        .context("the check does not end")??;
    let said = pods.logs(name, &LogParams::default()).await?;
    Ok((phase(pod.as_ref()).unwrap_or_default().to_owned(), said))
}

fn phase(pod: Option<&Pod>) -> Option<&str> {
    pod?.status.as_ref()?.phase.as_deref()
}
