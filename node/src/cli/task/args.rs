//! The arguments of `taskstore task`, and what they say by themselves.

use std::io::Read;
use std::path::PathBuf;

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use taskstore_api::{Endpoints, Trust, v1};

#[derive(Debug, Clone, Args)]
pub struct TaskArgs {
    #[command(flatten)]
    pub store: Store,
    /// Holds queues and tasks.
    #[arg(
        long,
        short,
        global = true,
        default_value = "default",
        env = "TASKSTORE_NAMESPACE"
    )]
    pub namespace: String,
    /// Prints the answer as the HTTP API gives it.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub action: Action,
}

/// Where a store is.
#[derive(Debug, Clone, Args)]
pub struct Store {
    /// Client port of a member, host:port; may be given more than once or separated by commas.
    #[arg(
        long = "endpoint",
        global = true,
        value_delimiter = ',',
        default_value = "127.0.0.1:7400",
        env = "TASKSTORE_ENDPOINTS"
    )]
    pub endpoints: Vec<String>,
    /// The CA that signed the store's certificate, in PEM. Without it there is no TLS.
    #[arg(long, global = true, env = "TASKSTORE_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// The name in the store's certificate, where it is not the endpoint's host.
    #[arg(long, global = true, env = "TASKSTORE_SERVER_NAME")]
    pub server_name: Option<String>,
}

impl Store {
    pub fn endpoints(&self) -> anyhow::Result<Endpoints> {
        let trust = match &self.ca_file {
            None => Trust::Plain,
            Some(file) => {
                let read = std::fs::read_to_string(file);
                let ca_pem =
                    read.with_context(|| format!("cannot read the CA file {}", file.display()))?;
                Trust::Tls {
                    ca_pem,
                    server_name: self.server_name.clone(),
                }
            }
        };
        Ok(Endpoints {
            addresses: self.endpoints.clone(),
            trust,
        })
    }
}

#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// Creates a task. The same id and content again is no second task.
    Create(Create),
    /// Claims tasks: they are leased to you until you settle them or the lease runs out.
    Claim(Claim),
    /// Settles a claimed task as done.
    Complete(Complete),
    /// Settles a claimed task as failed; it is tried again unless it had its last attempt.
    Fail(Fail),
    /// Gives a claimed task back untouched.
    Release(Lease),
    /// Extends the lease of a claimed task.
    Extend(Extend),
    /// Shows a task.
    Get {
        id: String,
        /// With payload and result.
        #[arg(long)]
        full: bool,
    },
    /// Shows the tasks of a queue.
    List(List),
    /// Counts the tasks of a queue.
    Stats { queue: String },
}

#[derive(Debug, Clone, Args)]
pub struct Create {
    pub queue: String,
    /// Makes a retry safe; minted when missing.
    #[arg(long)]
    pub id: Option<String>,
    #[arg(long, default_value = "")]
    pub kind: String,
    #[command(flatten)]
    pub payload: Payload,
    #[arg(long, default_value = "")]
    pub content_type: String,
    /// 0 runs first, 9 last.
    #[arg(long, default_value_t = 0)]
    pub priority: u32,
    /// Not before this time, in milliseconds since 1970.
    #[arg(long, default_value_t = 0)]
    pub not_before_ms: u64,
    #[arg(long, default_value_t = 0)]
    pub lease_ms: u64,
    #[arg(long, default_value_t = 0)]
    pub attempts_max: u32,
}

#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
pub struct Payload {
    #[arg(long)]
    pub payload: Option<String>,
    /// A file, or `-` for the standard input.
    #[arg(long)]
    pub payload_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub struct Claim {
    /// Tried in order.
    #[arg(required = true)]
    pub queues: Vec<String>,
    #[arg(long, default_value_t = 1)]
    pub tasks_max: u32,
    /// How long to wait for a first task.
    #[arg(long, default_value_t = 0)]
    pub wait_ms: u64,
    #[arg(long, default_value_t = 0)]
    pub lease_ms: u64,
    /// Makes a retry get the same tasks.
    #[arg(long, default_value = "")]
    pub claim_id: String,
    #[arg(long, default_value = "taskstore-cli")]
    pub worker: String,
}

#[derive(Debug, Clone, Args)]
pub struct Lease {
    pub id: String,
    /// The lease token that the claim printed.
    #[arg(long)]
    pub token: u64,
}

#[derive(Debug, Clone, Args)]
pub struct Complete {
    #[command(flatten)]
    pub lease: Lease,
    #[arg(long, default_value = "")]
    pub result: String,
}

#[derive(Debug, Clone, Args)]
pub struct Fail {
    #[command(flatten)]
    pub lease: Lease,
    #[arg(long, default_value = "")]
    pub error: String,
    /// Instead of the back-off.
    #[arg(long)]
    pub retry_after_ms: Option<u64>,
    /// No further attempt.
    #[arg(long)]
    pub discard: bool,
}

#[derive(Debug, Clone, Args)]
pub struct Extend {
    #[command(flatten)]
    pub lease: Lease,
    /// 0: the task's own.
    #[arg(long, default_value_t = 0)]
    pub lease_ms: u64,
}

#[derive(Debug, Clone, Args)]
pub struct List {
    pub queue: String,
    /// May be given more than once; every state when missing.
    #[arg(long = "state")]
    pub states: Vec<State>,
    #[arg(long, default_value_t = 0)]
    pub page_size: u32,
    #[arg(long, default_value = "")]
    pub page_token: String,
    /// With payloads and results.
    #[arg(long)]
    pub full: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum State {
    Scheduled,
    Available,
    Running,
    Retryable,
    Completed,
    Discarded,
}

impl From<State> for v1::TaskState {
    fn from(state: State) -> v1::TaskState {
        match state {
            State::Scheduled => v1::TaskState::Scheduled,
            State::Available => v1::TaskState::Available,
            State::Running => v1::TaskState::Running,
            State::Retryable => v1::TaskState::Retryable,
            State::Completed => v1::TaskState::Completed,
            State::Discarded => v1::TaskState::Discarded,
        }
    }
}

impl Payload {
    pub fn read(self) -> anyhow::Result<Bytes> {
        let Some(file) = self.payload_file else {
            return Ok(self.payload.unwrap_or_default().into());
        };
        if file.as_os_str() == "-" {
            let mut bytes = Vec::new();
            std::io::stdin()
                .read_to_end(&mut bytes)
                .context("cannot read the standard input")?;
            return Ok(bytes.into());
        }
        let read = std::fs::read(&file);
        Ok(read
            .with_context(|| format!("cannot read the payload file {}", file.display()))?
            .into())
    }
}
