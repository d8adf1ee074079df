//! The arguments of `taskstore backup`, and what they say by themselves.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use taskstore_api::tls::ClientTls;
use taskstore_api::v1;

use crate::backup::credentials::Credentials;
use crate::backup::destination::Destination;
use crate::backup::layout::{BackupName, Lineage};

#[derive(Debug, Clone, Args)]
pub struct BackupArgs {
    #[command(flatten)]
    pub at: At,
    /// Prints JSON.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub action: Action,
}

/// Where the backups are.
#[derive(Debug, Clone, Args)]
pub struct At {
    /// s3://bucket/prefix, gs://bucket/prefix, azure://container/prefix or file:///folder
    #[arg(long, global = true, env = "TASKSTORE_BACKUP_URL", default_value = "")]
    pub url: String,
    /// Instead of the provider's own, http(s)://host:port.
    #[arg(long = "endpoint", global = true)]
    pub endpoint: Option<String>,
    /// S3: the bucket's region.
    #[arg(long, global = true)]
    pub region: Option<String>,
    /// S3: the bucket stands in the path and not in the host's name.
    #[arg(long, global = true)]
    pub path_style: bool,
    /// Azure: the storage account.
    #[arg(long, global = true)]
    pub account: Option<String>,
    /// Certificate authorities trusted beside the public ones, in PEM.
    #[arg(long, global = true)]
    pub ca_file: Option<PathBuf>,
    /// Holds the credentials, a file for each value (AWS_ACCESS_KEY_ID, …). Without it they come from the
    /// environment.
    #[arg(long, global = true)]
    pub credentials_dir: Option<PathBuf>,
    /// The store whose backups are meant, where the bucket holds those of several.
    #[arg(long, global = true)]
    pub cluster_id: Option<String>,
    /// The life of that store, where it had several.
    #[arg(long, global = true)]
    pub incarnation: Option<u16>,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// Has a running member make a backup, over its admin port.
    Create(Create),
    /// Shows every backup, and what is none.
    List,
    /// Shows a backup's manifest.
    Inspect { name: String },
    /// Reads a whole backup and proves it.
    Verify {
        name: String,
        /// Reads the log that was shipped behind it too, to its end.
        #[arg(long)]
        with_log: bool,
    },
    /// Restores the newest backups and the log as far as memory, and compares what comes of them.
    Drill(Drill),
    /// Brings a backup to this disk as one snapshot file, proven.
    Export { name: String, file: PathBuf },
    /// Deletes a backup.
    Delete { name: String },
    /// Deletes what need not be kept; never the newest backup.
    Prune(Prune),
    /// Proves that these credentials may do all that backups need.
    Check(Check),
}

#[derive(Debug, Clone, Args)]
pub struct Create {
    /// Of the backup; the same name again shows the backup that is there.
    pub name: String,
    /// The member's admin port, host:port. It reaches the bucket, not this process.
    #[arg(long)]
    pub admin: String,
    /// The name in the member's certificate, m<number>.i<incarnation>.<cluster id>.taskstore
    #[arg(long)]
    pub server_name: String,
    /// Holds the operator's ca.crt, tls.crt and tls.key.
    #[arg(long)]
    pub admin_tls_dir: PathBuf,
    /// The credentials' folder below the member's --backup-credentials-dir; without it the member's own
    /// identity is used.
    #[arg(long, default_value = "")]
    pub credentials: String,
    #[arg(long, default_value_t = 0)]
    pub bytes_per_second_max: u64,
}

#[derive(Debug, Clone, Args)]
pub struct Drill {
    /// For the time of the drill it needs room for a snapshot.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub scratch_dir: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub struct Prune {
    /// Beyond the newest so many a backup goes.
    #[arg(long)]
    pub keep_count: Option<usize>,
    /// Older than this a backup goes.
    #[arg(long)]
    pub keep_days: Option<u64>,
    /// Is kept in any case; may be given more than once.
    #[arg(long = "in-use")]
    pub in_use: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub struct Check {
    /// The store that will write there; nothing of it need be there yet.
    #[arg(default_value = "check")]
    pub cluster: String,
}

impl At {
    pub fn destination(&self) -> anyhow::Result<Destination> {
        let ca_pem = match &self.ca_file {
            None => None,
            Some(file) => {
                let read = std::fs::read_to_string(file);
                Some(read.with_context(|| format!("cannot read the CA file {}", file.display()))?)
            }
        };
        Ok(Destination {
            url: self.url.clone(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            path_style: self.path_style,
            account: self.account.clone(),
            ca_pem,
        })
    }

    pub fn credentials(&self) -> Credentials {
        match &self.credentials_dir {
            Some(folder) => Credentials::Folder(folder.clone()),
            None => Credentials::Environment,
        }
    }

    pub fn is_meant(&self, lineage: &Lineage) -> bool {
        let cluster = self.cluster_id.as_ref();
        cluster.is_none_or(|id| *id == lineage.cluster_id)
            && self
                .incarnation
                .is_none_or(|number| number == lineage.incarnation)
    }
}

impl Create {
    pub fn request(&self, to: Destination) -> anyhow::Result<v1::BackupRequest> {
        let name = BackupName::parse(&self.name)?.to_string();
        Ok(v1::BackupRequest {
            destination: Some(v1::BackupDestination {
                url: to.url,
                endpoint: to.endpoint.unwrap_or_default(),
                region: to.region.unwrap_or_default(),
                path_style: to.path_style,
                account: to.account.unwrap_or_default(),
                ca_pem: to.ca_pem.unwrap_or_default(),
                credentials: self.credentials.clone(),
            }),
            name,
            previous: None,
            bytes_per_second_max: self.bytes_per_second_max,
        })
    }

    pub fn tls(&self) -> anyhow::Result<ClientTls> {
        let read = |file: &str| {
            let path = self.admin_tls_dir.join(file);
            let text = std::fs::read_to_string(&path);
            text.with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(ClientTls {
            ca_pem: read("ca.crt")?,
            cert_pem: read("tls.crt")?,
            key_pem: read("tls.key")?,
        })
    }
}
