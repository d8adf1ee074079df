//! `taskstore restore`, and the order that a member is started with to do the same on its volume.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use jiff::Timestamp;
use serde::Deserialize;

use super::backup::{At, Output, only};
use super::dev;
use crate::app::disk;
use crate::app::restore::fill;
use crate::backup::credentials::Credentials;
use crate::backup::destination::Destination;
use crate::backup::error::Error;
use crate::backup::layout::{BackupName, Lineage};
use crate::backup::log::replay::Upto;
use crate::backup::progress::Noted;
use crate::backup::restore::Wanted;
use crate::config::RestoreOrder;
use crate::storage::identity::{Content, Volume};
use crate::storage::log::Geometry;

#[derive(Debug, Clone, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    pub at: At,
    /// The backup to begin from. Without it, the newest that is not beyond what is asked.
    pub backup: Option<String>,
    /// The last log entry that counts.
    #[arg(long, conflicts_with = "upto_time")]
    pub upto_index: Option<u64>,
    /// What was accepted until then counts, like 2026-01-31T12:00:00Z. Without both, all that is in the bucket.
    #[arg(long)]
    pub upto_time: Option<Timestamp>,
    /// Of the new store: no store may be in it yet.
    #[arg(long, default_value = "taskstore-data")]
    pub data_dir: PathBuf,
    /// Prints JSON.
    #[arg(long)]
    pub json: bool,
}

/// Fills the data directory of a `taskstore dev` store.
pub async fn run(args: RestoreArgs) -> anyhow::Result<ExitCode> {
    let (from, credentials) = (args.at.destination()?, args.at.credentials());
    let lineage = only(&from.connect(&credentials).await?, &args.at).await?;
    let incarnation = lineage.incarnation.checked_add(1);
    let incarnation = incarnation.context("the store has had as many lives as there can be")?;
    let order = RestoreOrder {
        from,
        credentials,
        wanted: Wanted {
            lineage,
            backup: args.backup.as_deref().map(BackupName::parse).transpose()?,
            upto: upto(
                args.upto_index,
                args.upto_time.map(Timestamp::as_millisecond),
            )?,
        },
    };
    let volume = Arc::new(Volume::open(&dev::store_dir(&args.data_dir))?);
    let content = volume.content();
    if let Content::Stamped(_) = content.map_err(|error| anyhow!("{error}"))? {
        bail!("{} holds a store already", args.data_dir.display());
    }
    let config = dev::config(&args.data_dir, incarnation);
    let log = Geometry::for_budget(config.log_budget_bytes);
    let successor = disk::successor(&config, log);
    let facts = fill(&volume, successor, &order, &Noted::default()).await?;
    Output::asked(args.json).restored(&facts, &args.data_dir);
    Ok(ExitCode::SUCCESS)
}

fn upto(index: Option<u64>, time_ms: Option<i64>) -> Result<Upto, Error> {
    Ok(match (index, time_ms) {
        (None, None) => Upto::Latest,
        (Some(index), None) => Upto::Index(index),
        (None, Some(time_ms)) => {
            let before = |_| Error::invalid("time", "must not be before 1970");
            Upto::WallTimeMs(u64::try_from(time_ms).map_err(before)?)
        }
        (Some(_), Some(_)) => {
            return Err(Error::invalid(
                "upto",
                "must have at most one of index and time",
            ));
        }
    })
}

/// What `taskstore member --restore` is given.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    url: String,
    endpoint: Option<String>,
    region: Option<String>,
    #[serde(default)]
    path_style: bool,
    account: Option<String>,
    ca_bundle: Option<String>,
    /// A folder below the backup-credentials-dir; without it the pod's identity is used.
    #[serde(default)]
    credentials: String,
    cluster_id: String,
    incarnation: u16,
    backup: Option<String>,
    upto_index: Option<u64>,
    upto_time_ms: Option<i64>,
}

impl FromStr for Order {
    type Err = serde_json::Error;

    fn from_str(json: &str) -> Result<Order, serde_json::Error> {
        serde_json::from_str(json)
    }
}

impl Order {
    pub fn checked(self, credentials_dir: Option<&Path>) -> Result<RestoreOrder, Error> {
        Ok(RestoreOrder {
            credentials: Credentials::referred(credentials_dir, &self.credentials)?,
            from: Destination {
                url: self.url,
                endpoint: self.endpoint,
                region: self.region,
                path_style: self.path_style,
                account: self.account,
                ca_pem: self.ca_bundle,
            },
            wanted: Wanted {
                lineage: Lineage::new(&self.cluster_id, self.incarnation)?,
                backup: self.backup.as_deref().map(BackupName::parse).transpose()?,
                upto: upto(self.upto_index, self.upto_time_ms)?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_says_what_is_restored_and_from_where() {
        let order = r#"{"url": "s3://b/p", "pathStyle": true, "credentials": "restore", "clusterId": "c",
                        "incarnation": 3, "uptoTimeMs": 5}"#;
        let order: Order = order.parse().unwrap();
        let order = order.checked(Some(Path::new("/credentials"))).unwrap();
        let folder = PathBuf::from("/credentials/restore");
        assert_eq!(order.credentials, Credentials::Folder(folder));
        assert_eq!(order.wanted.lineage, Lineage::new("c", 3).unwrap());
        assert_eq!(order.wanted.upto, Upto::WallTimeMs(5));
        assert!(order.from.path_style);
    }

    #[test]
    fn what_cannot_be_ordered_is_refused_by_name() {
        let rows = [
            (r#"{"url": "s3://b"}"#, "clusterId"),
            (
                r#"{"url": "s3://b", "clusterId": "c", "incarnation": 1, "secret": "s"}"#,
                "secret",
            ),
            (
                r#"{"url": "s3://b", "clusterId": "/", "incarnation": 1}"#,
                "cluster_id",
            ),
            (
                r#"{"url": "s3://b", "clusterId": "c", "incarnation": 0}"#,
                "incarnation",
            ),
            (
                r#"{"url": "s3://b", "clusterId": "c", "incarnation": 1, "uptoIndex": 1, "uptoTimeMs": 1}"#,
                "at most one",
            ),
        ];
        for (json, words) in rows {
            let refused = match json.parse::<Order>() {
                Err(error) => error.to_string(),
                Ok(order) => order.checked(None).unwrap_err().to_string(),
            };
            assert!(refused.contains(words), "{refused}");
        }
    }
}
