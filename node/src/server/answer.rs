//! From the service's words to the wire, for both protocols.

use bytes::Bytes;
use taskstore_api::v1;

use super::error::{Case, Problem};
use super::page_token;
use crate::service::request::{ClaimedTask, List, Response, TaskWithPayload};
use crate::task::command::{Created, Outcome, Rejection, Settled, TaskState};

type Answered<T> = Result<T, Problem>;

/// The service answered something else than what was asked.
fn misfit(response: &Response) -> Problem {
    tracing::error!(?response, "the service's answer does not fit the request");
    Problem::new(
        Case::Internal,
        "the store's answer does not fit the request",
    )
}

fn created(response: Response) -> Answered<Vec<Result<Created, Rejection>>> {
    match response {
        Response::Outcome(Outcome::Created(results)) => Ok(results),
        other => Err(misfit(&other)),
    }
}

fn one<T>(results: Vec<T>) -> Answered<T> {
    let mut results = results.into_iter();
    match (results.next(), results.next()) {
        (Some(result), None) => Ok(result),
        _ => Err(Problem::new(
            Case::Internal,
            "the store answered another number of results than it was asked for",
        )),
    }
}

fn create_response(created: Created) -> v1::CreateResponse {
    v1::CreateResponse {
        id: created.id.to_string(),
        revision: created.revision,
        existed: created.existed,
    }
}

pub fn create(response: Response) -> Answered<v1::CreateResponse> {
    Ok(create_response(one(created(response)?)??))
}

pub fn create_batch(response: Response) -> Answered<v1::CreateBatchResponse> {
    use v1::create_result::Result as Item;
    let results = created(response)?
        .into_iter()
        .map(|result| match result {
            Ok(created) => Item::Created(create_response(created)),
            Err(rejection) => Item::Error(Problem::from(rejection).into_item()),
        })
        .map(|result| v1::CreateResult {
            result: Some(result),
        })
        .collect();
    Ok(v1::CreateBatchResponse { results })
}

fn settled(response: Response) -> Answered<Vec<Result<Settled, Rejection>>> {
    match response {
        Response::Outcome(Outcome::Settled(results)) => Ok(results),
        other => Err(misfit(&other)),
    }
}

fn settle_response(settled: Settled) -> v1::SettleResponse {
    v1::SettleResponse {
        state: state(settled.state).into(),
        revision: settled.revision,
    }
}

pub fn settle(response: Response) -> Answered<v1::SettleResponse> {
    Ok(settle_response(one(settled(response)?)??))
}

pub fn settle_batch(response: Response) -> Answered<v1::SettleBatchResponse> {
    use v1::settle_result::Result as Item;
    let results = settled(response)?
        .into_iter()
        .map(|result| match result {
            Ok(settled) => Item::Settled(settle_response(settled)),
            Err(rejection) => Item::Error(Problem::from(rejection).into_item()),
        })
        .map(|result| v1::SettleResult {
            result: Some(result),
        })
        .collect();
    Ok(v1::SettleBatchResponse { results })
}

pub fn extend(response: Response) -> Answered<v1::ExtendResponse> {
    match response {
        Response::Outcome(Outcome::Extended(result)) => {
            Ok(v1::ExtendResponse { lease_ms: result? })
        }
        other => Err(misfit(&other)),
    }
}

pub fn claim(response: Response) -> Answered<v1::ClaimResponse> {
    match response {
        Response::Claimed(tasks) => Ok(v1::ClaimResponse {
            tasks: tasks.into_iter().map(claimed).collect(),
        }),
        other => Err(misfit(&other)),
    }
}

fn claimed(claimed: ClaimedTask) -> v1::ClaimedTask {
    v1::ClaimedTask {
        task: Some(task(claimed.task, v1::View::Full)),
        lease_token: claimed.token,
        lease_ms: claimed.lease_ms,
    }
}

pub fn get(response: Response, view: v1::View) -> Answered<v1::Task> {
    match response {
        Response::Task(found) => Ok(task(found, view)),
        other => Err(misfit(&other)),
    }
}

pub fn list(response: Response, list: &List) -> Answered<v1::ListResponse> {
    let Response::Page(page) = response else {
        return Err(misfit(&response));
    };
    let view = if list.with_payload {
        v1::View::Full
    } else {
        v1::View::Basic
    };
    let next_page_token = match page.next_after_seq {
        0 => String::new(),
        after_seq => page_token::write(after_seq, list),
    };
    Ok(v1::ListResponse {
        tasks: page
            .tasks
            .into_iter()
            .map(|found| task(found, view))
            .collect(),
        next_page_token,
        revision: page.revision,
    })
}

pub fn queue_stats(response: Response) -> Answered<v1::QueueStatsResponse> {
    let Response::QueueStats(stats) = response else {
        return Err(misfit(&response));
    };
    Ok(v1::QueueStatsResponse {
        scheduled: stats.scheduled,
        available: stats.available,
        running: stats.running,
        retryable: stats.retryable,
        completed: stats.completed,
        discarded: stats.discarded,
        created_total: stats.created_total,
        completed_total: stats.completed_total,
        failed_total: stats.failed_total,
        abandoned_total: stats.abandoned_total,
        discarded_total: stats.discarded_total,
        payload_bytes: stats.payload_bytes,
        oldest_available_ms: stats.oldest_available_ms,
    })
}

fn task(found: TaskWithPayload, view: v1::View) -> v1::Task {
    let TaskWithPayload { task, payload } = found;
    let full = view == v1::View::Full;
    let bytes_of = |bytes: Bytes| if full { bytes } else { Bytes::new() };
    v1::Task {
        namespace: task.namespace.as_str().to_owned(),
        queue: task.queue.as_str().to_owned(),
        id: task.id.to_string(),
        kind: task.kind,
        payload: bytes_of(payload),
        content_type: task.content_type,
        priority: task.priority.into(),
        not_before_ms: task.not_before_ms,
        lease_ms: task.lease_ms,
        attempts_max: task.attempts_max,
        state: state(task.state).into(),
        attempts: task.attempts,
        abandonments: task.abandonments,
        created_ms: task.created_ms,
        finished_ms: task.finished_ms,
        lease_token: task.token,
        result: bytes_of(task.result),
        error: task.error,
        payload_bytes: task.payload_bytes,
        revision: task.revision,
    }
}

fn state(state: TaskState) -> v1::TaskState {
    match state {
        TaskState::Scheduled => v1::TaskState::Scheduled,
        TaskState::Available => v1::TaskState::Available,
        TaskState::Running => v1::TaskState::Running,
        TaskState::Retryable => v1::TaskState::Retryable,
        TaskState::Completed => v1::TaskState::Completed,
        TaskState::Discarded => v1::TaskState::Discarded,
    }
}
