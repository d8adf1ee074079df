//! `kubectl taskstore`: what a person asks of one cluster, with that person's own rights.
//!
//! ```text
//!  status ──────▶ the object ─────────────────────────▶ words
//!     └─ lag ───▶ reach ──port-forward, mutual TLS──▶ members
//!  plan ────────▶ look ▶ observe ▶ plan (the operator's own) ▶ words
//!  switchover ──▶ reach ▶ the leader's TransferLeader
//! ```
//!
//! The admin port knows one client, the operator. Whoever may read the Secret with the cluster's CA can
//! be it: `reach` makes that certificate for itself, in memory. So asking members takes the right to that
//! Secret, which is as strong as the operator, and to forward ports of pods. Only `switchover` changes
//! anything.

pub mod look;
pub mod plan;
pub mod reach;
pub mod status;
pub mod switchover;

use anyhow::{Context as _, Result};
use crds::TaskStoreCluster;
use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};

use crate::resources::{cluster_name, namespace};

/// The cluster that is asked about, as it was when we looked.
pub struct Place {
    pub client: Client,
    pub cluster: TaskStoreCluster,
}

impl Place {
    pub async fn open(client: Client, namespace: &str, name: &str) -> Result<Self> {
        let clusters: Api<TaskStoreCluster> = Api::namespaced(client.clone(), namespace);
        let cluster = clusters
            .get(name)
            .await
            .with_context(|| format!("read the TaskStoreCluster {name} in {namespace}"))?;
        Ok(Self { client, cluster })
    }

    pub fn name(&self) -> &str {
        cluster_name(&self.cluster)
    }

    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", namespace(&self.cluster), self.name())
    }

    /// Objects of its namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace(&self.cluster))
    }
}

/// Cells in columns as wide as their widest.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
