//! The S3 server beside the local Kubernetes, as those who keep backups see it: where it is, whom it
//! knows, and a bucket on it. A bucket outlives the Kubernetes when `down` is told to keep it; keys and
//! certificates are new with each `up`.

use crate::cluster::Cluster;
use crate::local::layout::{
    S3, S3_ACCESS_KEY_ID, S3_NAME, S3_NAMESPACE, S3_PORT, buckets, pki, s3_secret,
};
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;

pub const BUCKET: &str = "backups";
/// The Secret of `secret`.
pub const SECRET: &str = "bucket";

/// Where pods reach it, with the path style.
pub fn endpoint() -> String {
    format!("https://{S3_NAME}.{S3_NAMESPACE}.svc:{S3_PORT}")
}

/// Where this machine reaches it.
pub fn endpoint_here() -> String {
    format!("https://{S3}:{S3_PORT}")
}

/// The CA of its certificate.
pub fn ca_pem() -> Result<String> {
    fs::read_to_string(pki().join("ca.crt")).context("there is no local cluster")
}

/// A place in the bucket.
pub fn url(prefix: &str) -> String {
    format!("s3://{BUCKET}/{prefix}")
}

/// The bucket as it lies on this machine: an object is a file.
pub fn folder() -> PathBuf {
    buckets().join(BUCKET)
}

/// Makes the bucket; one that is there stays as it is.
pub fn make() -> Result<()> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))
}

/// Puts the credentials into a namespace, as the Secret SECRET.
pub async fn secret(cluster: &Cluster, namespace: &str) -> Result<()> {
    let secret = fs::read_to_string(s3_secret()).context("there is no local cluster")?;
    let yaml = format!(
        "apiVersion: v1
kind: Secret
metadata: {{ name: {SECRET}, namespace: {namespace} }}
stringData: {{ AWS_ACCESS_KEY_ID: {S3_ACCESS_KEY_ID}, AWS_SECRET_ACCESS_KEY: \"{secret}\" }}
"
    );
    let apply = ["apply", "--server-side", "-f", "-"];
    cluster.kubectl_feed(&apply, &yaml).await.map(drop)
}
