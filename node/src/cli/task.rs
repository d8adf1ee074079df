//! `taskstore task`: a small client for people and shell scripts.

mod show;

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use taskstore_api::{CallError, Endpoints, TaskStoreClient, Trust, v1};

use self::show::Output;
use crate::server::json::answered;

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

/// Runs one action and prints its answer. A refusal of the store ends with code 1.
pub async fn run(args: TaskArgs) -> anyhow::Result<ExitCode> {
    let client = TaskStoreClient::connect(&args.store.endpoints()?)?;
    let output = if args.json {
        Output::Json
    } else {
        Output::Text
    };
    let refusal = match act(&client, args.namespace, args.action, output).await? {
        Ok(()) => return Ok(ExitCode::SUCCESS),
        Err(refusal) => refusal,
    };
    output.refusal(&refusal);
    Ok(ExitCode::FAILURE)
}

async fn act(
    client: &TaskStoreClient,
    namespace: String,
    action: Action,
    output: Output,
) -> anyhow::Result<Result<(), CallError>> {
    let lease = |lease: Lease| {
        Some(v1::Lease {
            namespace: namespace.clone(),
            id: lease.id,
            lease_token: lease.token,
        })
    };
    let done = match action {
        Action::Create(create) => {
            let task = v1::NewTask {
                id: create.id.unwrap_or_default(),
                kind: create.kind,
                payload: create.payload.read()?,
                content_type: create.content_type,
                priority: create.priority,
                not_before_ms: create.not_before_ms,
                lease_ms: create.lease_ms,
                attempts_max: create.attempts_max,
            };
            let request = v1::CreateRequest {
                namespace,
                queue: create.queue,
                task: Some(task),
            };
            client
                .create(request)
                .await
                .map(|created| output.created(created))
        }
        Action::Claim(claim) => {
            let request = v1::ClaimRequest {
                namespace,
                queues: claim.queues,
                tasks_max: claim.tasks_max,
                bytes_max: 0,
                wait_ms: claim.wait_ms,
                lease_ms: claim.lease_ms,
                claim_id: claim.claim_id,
                worker: claim.worker,
            };
            client
                .claim(request)
                .await
                .map(|claimed| output.claimed(claimed))
        }
        Action::Complete(complete) => {
            let request = v1::CompleteRequest {
                lease: lease(complete.lease),
                result: complete.result.into(),
            };
            client
                .complete(request)
                .await
                .map(|settled| output.settled(settled))
        }
        Action::Fail(fail) => {
            let request = v1::FailRequest {
                lease: lease(fail.lease),
                error: fail.error,
                retry_after_ms: fail.retry_after_ms,
                discard: fail.discard,
            };
            client
                .fail(request)
                .await
                .map(|settled| output.settled(settled))
        }
        Action::Release(held) => {
            let request = v1::ReleaseRequest { lease: lease(held) };
            client
                .release(request)
                .await
                .map(|settled| output.settled(settled))
        }
        Action::Extend(extend) => {
            let request = v1::ExtendRequest {
                lease: lease(extend.lease),
                lease_ms: extend.lease_ms,
            };
            client
                .extend(request)
                .await
                .map(|extended| output.extended(extended))
        }
        Action::Get { id, full } => {
            let view = view(full);
            let request = v1::GetRequest {
                namespace,
                id,
                view: view.into(),
            };
            client
                .get(request)
                .await
                .map(|task| output.task(answered::Task::new(task.clone(), view), &task))
        }
        Action::List(list) => {
            let view = view(list.full);
            let request = v1::ListRequest {
                namespace,
                queue: list.queue,
                states: list
                    .states
                    .into_iter()
                    .map(|state| v1::TaskState::from(state).into())
                    .collect(),
                page_size: list.page_size,
                page_token: list.page_token,
                view: view.into(),
            };
            client
                .list(request)
                .await
                .map(|page| output.page(page, view))
        }
        Action::Stats { queue } => {
            let request = v1::QueueStatsRequest { namespace, queue };
            client
                .queue_stats(request)
                .await
                .map(|stats| output.stats(stats))
        }
    };
    Ok(done)
}

fn view(full: bool) -> v1::View {
    if full {
        v1::View::Full
    } else {
        v1::View::Basic
    }
}

impl Payload {
    fn read(self) -> anyhow::Result<Bytes> {
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
