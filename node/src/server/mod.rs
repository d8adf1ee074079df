//! What listens: clients, the operator, health and metrics. Handlers parse, call the service, answer.
//!
//! ```text
//! listen ─▶ router ─┬▶ grpc ─┐                          ┌▶ convert ─▶ Door ─▶ answer
//!                   └▶ http ─┴▶ calls (wire's words) ───┘   (validate)
//!                      route, query, json                       error: one table for both
//! ```

pub mod admin;
mod admin_backup;
pub mod admin_tls;
pub mod answer;
pub mod calls;
pub mod client_tls;
pub mod convert;
pub mod error;
pub mod grpc;
pub mod health;
pub mod http;
mod incarnation;
pub mod json;
pub mod listen;
pub mod page_token;
pub mod query;
pub mod route;
pub mod validate;

use std::time::Duration;

use ::http::header::CONTENT_TYPE;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{IntoResponse, Response};
use tonic::Status;

use self::calls::Calls;
use self::error::{Case, Problem};
use crate::limits::{CALL_MS_MAX, CLAIM_WAIT_MS_MAX};

/// A request that takes longer is given up, whatever holds it: a body that never ends, a stuck service.
const GIVE_UP: Duration = Duration::from_millis(CLAIM_WAIT_MS_MAX + 2 * CALL_MS_MAX);

/// The client port of a member of this incarnation: gRPC and JSON side by side.
pub fn router(calls: Calls, incarnation: u16) -> axum::Router {
    let tasks = axum::Router::new()
        .route_service("/taskstore.v1.Tasks/{method}", grpc::service(calls.clone()))
        .layer(map_response(|response: Response| async {
            grpc::explain_decoding(response)
        }));
    let json = move |request: Request<Body>| {
        let calls = calls.clone();
        async move {
            if is_grpc(&request) {
                return refused(
                    &request,
                    Problem::new(Case::PathNotFound, "there is no such gRPC method"),
                );
            }
            http::handle(&calls, request).await
        }
    };
    let fence = move |request, next| incarnation::fence(incarnation, request, next);
    tasks
        .fallback(json)
        .layer(from_fn(give_up_late))
        .layer(from_fn(fence))
}

async fn give_up_late(request: Request, next: Next) -> Response {
    let grpc = is_grpc(&request);
    match tokio::time::timeout(GIVE_UP, next.run(request)).await {
        Ok(response) => response,
        Err(_) => refusal(
            grpc,
            Problem::new(
                Case::OutcomeUnknown,
                "the request took too long and was given up",
            ),
        ),
    }
}

fn is_grpc(request: &Request) -> bool {
    let content_type = request
        .headers()
        .get(CONTENT_TYPE)
        .map(|value| value.as_bytes());
    content_type.is_some_and(|value| value.starts_with(b"application/grpc"))
}

fn refused(request: &Request, problem: Problem) -> Response {
    refusal(is_grpc(request), problem)
}

fn refusal(grpc: bool, problem: Problem) -> Response {
    if grpc {
        Status::from(problem).into_http()
    } else {
        problem.into_response()
    }
}
