//! `taskstore task`: a small client for people and shell scripts.

mod args;
mod show;

use std::process::ExitCode;

use self::args::{Action, Lease};
pub use self::args::{Store, TaskArgs};
use self::show::Output;
use crate::server::json::answered;
use taskstore_api::{CallError, TaskStoreClient, v1};

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
