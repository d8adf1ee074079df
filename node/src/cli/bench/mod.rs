//! `taskstore bench`: the store's numbers on this machine, beside what its disk can do.
//!
//! Without `--endpoint` it starts three real members of this very binary, with TLS between them and on
//! the client port, in a directory that it removes at the end.

mod claims;
mod disk;
mod fill;
mod http;
mod load;
mod report;
mod scrape;
mod store;
mod suite;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::task::Store;

#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// Measures the store under --endpoint instead of starting one.
    #[arg(long)]
    pub existing: bool,
    #[command(flatten)]
    pub store: Store,
    /// Where members keep their data: a disk, not memory.
    #[arg(long, default_value = "/var/tmp")]
    pub dir: PathBuf,
    /// Time of each row.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    #[arg(long, default_value_t = 1_024)]
    pub payload_bytes: usize,
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256])]
    pub clients: Vec<usize>,
    /// Tasks in one batch of the batched rows.
    #[arg(long, default_value_t = 100)]
    pub batch: usize,
    /// Rows to run.
    #[arg(long, value_delimiter = ',', value_enum,
          default_values_t = [Row::Create, Row::Cycle, Row::Batch, Row::Snapshot, Row::LeaderKill])]
    pub rows: Vec<Row>,
    /// Pending tasks of the volume row.
    #[arg(long, default_value_t = 1_000_000)]
    pub tasks: usize,
    /// Time of the steady row.
    #[arg(long, default_value_t = 10)]
    pub minutes: u64,
    /// How clients speak.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Protocol::Grpc])]
    pub protocols: Vec<Protocol>,
    /// One JSON object a row instead of the table.
    #[arg(long)]
    pub json: bool,
    /// Keeps the directory of the members, with their logs.
    #[arg(long)]
    pub keep: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Row {
    /// One create at a time by one client, at the leader and at a follower.
    Create,
    /// Create, claim and complete, one task a call.
    Cycle,
    /// Create, claim and complete in batches.
    Batch,
    /// Creates while the leader cuts a snapshot.
    Snapshot,
    /// Creates while the leader is killed: how long nothing was acknowledged.
    LeaderKill,
    /// A great many pending tasks: memory, disk, restart, claims and snapshots. On a store of its own.
    Volume,
    /// Create, claim and complete in batches, for minutes: whether memory and disk stay flat. On a store of
    /// its own.
    Steady,
}

impl Row {
    /// Its tasks would burden the rows after it, and theirs its own figures.
    fn wants_own_store(self) -> bool {
        matches!(self, Row::Volume | Row::Steady)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    Grpc,
    Http,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Grpc => "grpc",
            Protocol::Http => "http",
        }
    }
}

pub async fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    tokio::select! {
        done = suite::run(args) => done.map(|()| ExitCode::SUCCESS),
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
    }
}
