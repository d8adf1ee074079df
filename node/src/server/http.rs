//! The Tasks service over HTTP and JSON: path, query and body become the same calls that gRPC makes.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use taskstore_api::v1;

use super::calls::{Calls, Patience};
use super::error::{Case, Problem};
use super::grpc::refuse_idempotency_key;
use super::json::{self, Object, Wide, answered, asked};
use super::query::Query;
use super::route::{Route, route};
use crate::limits::{CALL_MS_MAX, REQUEST_BYTES_MAX};

pub async fn handle(calls: &Calls, request: http::Request<Body>) -> Response {
    answer(calls, request)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

async fn answer(calls: &Calls, request: http::Request<Body>) -> Result<Response, Problem> {
    let patience = Patience::new(None);
    refuse_idempotency_key(request.headers())?;
    let route = route(request.method(), request.uri().path())?;
    let query = Query::read(request.uri().query().unwrap_or_default())?;
    let body = body(request.into_body()).await?;
    match route {
        Route::List { namespace, queue } => {
            let request = query.list(namespace, queue)?;
            let view = v1::View::try_from(request.view).unwrap_or_default();
            Ok(ok(&answered::Page::new(
                calls.list(request, patience).await?,
                view,
            )))
        }
        Route::Get { namespace, id } => {
            let view = query.get()?;
            let request = v1::GetRequest {
                namespace,
                id,
                view: view.into(),
            };
            Ok(ok(&answered::Task::new(
                calls.get(request, patience).await?,
                view,
            )))
        }
        Route::QueueStats { namespace, queue } => {
            query.nothing()?;
            let request = v1::QueueStatsRequest { namespace, queue };
            Ok(ok(&answered::QueueStats::from(
                calls.queue_stats(request, patience).await?,
            )))
        }
        route => {
            query.nothing()?;
            post(calls, route, &body, patience).await
        }
    }
}

async fn post(
    calls: &Calls,
    route: Route,
    body: &[u8],
    patience: Patience,
) -> Result<Response, Problem> {
    match route {
        Route::Create { namespace, queue } => {
            let task = json::read::<asked::NewTask>(body)?;
            let request = v1::CreateRequest {
                namespace,
                queue,
                task: Some(task.into()),
            };
            let created = calls.create(request, patience).await?;
            let status = if created.existed {
                StatusCode::OK
            } else {
                StatusCode::CREATED
            };
            Ok(with_status(status, &answered::Created::from(created)))
        }
        Route::CreateBatch { namespace, queue } => {
            let tasks = json::read::<asked::NewTasks>(body)?.tasks;
            let tasks = tasks.into_iter().map(|Object(task)| task.into()).collect();
            let request = v1::CreateBatchRequest {
                namespace,
                queue,
                tasks,
            };
            Ok(ok(&answered::Items::from(
                calls.create_batch(request, patience).await?,
            )))
        }
        Route::Claim { namespace } => {
            let claim = json::read::<asked::Claim>(body)?;
            let queues = claim.queues.clone().unwrap_or_default();
            claimed(calls, claim_request(namespace, queues, claim), patience).await
        }
        Route::ClaimQueue { namespace, queue } => {
            let claim = json::read::<asked::Claim>(body)?;
            if claim.queues.is_some() {
                return Err(Problem::field(
                    "queues",
                    "must not be given: the path names the queue",
                ));
            }
            claimed(
                calls,
                claim_request(namespace, vec![queue], claim),
                patience,
            )
            .await
        }
        Route::SettleBatch { namespace } => {
            let settles = json::read::<asked::Settles>(body)?.settles;
            let settles = settles
                .into_iter()
                .map(|settle| settle_item(&namespace, settle))
                .collect();
            let request = v1::SettleBatchRequest { settles };
            Ok(ok(&answered::Items::from(
                calls.settle_batch(request, patience).await?,
            )))
        }
        Route::Extend { namespace, id } => {
            let extend = json::read::<asked::Extend>(body)?;
            let lease = lease(&namespace, id, extend.lease_token);
            let request = v1::ExtendRequest {
                lease,
                lease_ms: extend.lease_ms,
            };
            let lease_ms = calls.extend(request, patience).await?.lease_ms;
            Ok(ok(&answered::Extended { lease_ms }))
        }
        Route::Complete { namespace, id } => {
            let mut settle = json::read::<asked::Complete>(body)?;
            name_by_path(&mut settle.id, id)?;
            settled(
                calls
                    .complete(complete_request(&namespace, settle), patience)
                    .await?,
            )
        }
        Route::Fail { namespace, id } => {
            let mut settle = json::read::<asked::Fail>(body)?;
            name_by_path(&mut settle.id, id)?;
            settled(
                calls
                    .fail(fail_request(&namespace, settle), patience)
                    .await?,
            )
        }
        Route::Release { namespace, id } => {
            let mut settle = json::read::<asked::Release>(body)?;
            name_by_path(&mut settle.id, id)?;
            settled(
                calls
                    .release(release_request(&namespace, settle), patience)
                    .await?,
            )
        }
        Route::List { .. } | Route::Get { .. } | Route::QueueStats { .. } => {
            Err(Problem::new(Case::Internal, "a read was taken for a write"))
        }
    }
}

fn claim_request(namespace: String, queues: Vec<String>, claim: asked::Claim) -> v1::ClaimRequest {
    v1::ClaimRequest {
        namespace,
        queues,
        tasks_max: claim.tasks_max,
        bytes_max: claim.bytes_max,
        wait_ms: claim.wait_ms,
        lease_ms: claim.lease_ms,
        claim_id: claim.claim_id,
        worker: claim.worker,
    }
}

async fn claimed(
    calls: &Calls,
    request: v1::ClaimRequest,
    patience: Patience,
) -> Result<Response, Problem> {
    Ok(ok(&answered::Claimed::from(
        calls.claim(request, patience).await?,
    )))
}

fn settled(settled: v1::SettleResponse) -> Result<Response, Problem> {
    Ok(ok(&answered::Settled::from(settled)))
}

fn name_by_path(in_body: &mut Option<String>, id: String) -> Result<(), Problem> {
    match in_body.replace(id) {
        None => Ok(()),
        Some(_) => Err(Problem::field(
            "id",
            "must not be given: the path names the task",
        )),
    }
}

fn lease(namespace: &str, id: String, token: Wide) -> Option<v1::Lease> {
    Some(v1::Lease {
        namespace: namespace.to_owned(),
        id,
        lease_token: token.0,
    })
}

fn complete_request(namespace: &str, settle: asked::Complete) -> v1::CompleteRequest {
    let lease = lease(namespace, settle.id.unwrap_or_default(), settle.lease_token);
    v1::CompleteRequest {
        lease,
        result: settle.result.0,
    }
}

fn fail_request(namespace: &str, settle: asked::Fail) -> v1::FailRequest {
    v1::FailRequest {
        lease: lease(namespace, settle.id.unwrap_or_default(), settle.lease_token),
        error: settle.error,
        retry_after_ms: settle.retry_after_ms,
        discard: settle.discard,
    }
}

fn release_request(namespace: &str, settle: asked::Release) -> v1::ReleaseRequest {
    v1::ReleaseRequest {
        lease: lease(namespace, settle.id.unwrap_or_default(), settle.lease_token),
    }
}

fn settle_item(namespace: &str, settle: asked::Settle) -> v1::Settle {
    use v1::settle::Action;
    let action = match settle {
        asked::Settle::Complete(Object(settle)) => {
            Action::Complete(complete_request(namespace, settle))
        }
        asked::Settle::Fail(Object(settle)) => Action::Fail(fail_request(namespace, settle)),
        asked::Settle::Release(Object(settle)) => {
            Action::Release(release_request(namespace, settle))
        }
    };
    v1::Settle {
        action: Some(action),
    }
}

async fn body(body: Body) -> Result<Bytes, Problem> {
    let too_large =
        || Problem::too_large("body", format!("must be at most {REQUEST_BYTES_MAX} bytes"));
    // What is announced as too large is not read at all.
    if http_body::Body::size_hint(&body).lower() > REQUEST_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let read = Limited::new(body, REQUEST_BYTES_MAX).collect();
    match tokio::time::timeout(Duration::from_millis(CALL_MS_MAX), read).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Problem::field(
            "body",
            format!("could not be read: {error}"),
        )),
        Err(_) => Err(Problem::field(
            "body",
            format!("must arrive within {CALL_MS_MAX} ms"),
        )),
    }
}

fn ok(answer: &impl Serialize) -> Response {
    with_status(StatusCode::OK, answer)
}

fn with_status(status: StatusCode, answer: &impl Serialize) -> Response {
    let json = serde_json::to_vec(answer).expect("answers hold nothing that JSON cannot");
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
