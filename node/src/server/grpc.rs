//! The Tasks service over gRPC: metadata checks, then the shared calls.

use std::time::Duration;

use http::HeaderMap;
use taskstore_api::v1;
use taskstore_api::v1::tasks_server::{Tasks, TasksServer};
use tonic::{Code, Request, Response, Status};

use super::calls::{Calls, Patience};
use super::error::{Case, Problem};
use crate::limits::REQUEST_BYTES_MAX;

pub fn service(calls: Calls) -> TasksServer<Grpc> {
    TasksServer::new(Grpc(calls)).max_decoding_message_size(REQUEST_BYTES_MAX)
}

#[derive(Clone)]
pub struct Grpc(Calls);

type Answer<T> = Result<Response<T>, Status>;

/// Until idempotency keys are kept, one is refused and never ignored. HTTP's header has the same name.
pub fn refuse_idempotency_key(headers: &HeaderMap) -> Result<(), Problem> {
    if !headers.contains_key("idempotency-key") {
        return Ok(());
    }
    let detail = "Idempotency-Key is not supported yet; a create is safe to retry by its id, a settle by its \
                  lease token, a claim by its claim id";
    Err(Problem::new(Case::FeatureNotActive, detail))
}

/// What the caller may wait, from `grpc-timeout`: up to eight digits and a unit.
fn asked_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let parse = || {
        let (digits, unit) = value
            .to_str()
            .ok()?
            .split_at_checked(value.len().checked_sub(1)?)?;
        if digits.is_empty()
            || digits.len() > 8
            || !digits.bytes().all(|byte| byte.is_ascii_digit())
        {
            return None;
        }
        let amount: u64 = digits.parse().ok()?;
        match unit {
            "H" => Some(Duration::from_secs(amount * 3600)),
            "M" => Some(Duration::from_secs(amount * 60)),
            "S" => Some(Duration::from_secs(amount)),
            "m" => Some(Duration::from_millis(amount)),
            "u" => Some(Duration::from_micros(amount)),
            "n" => Some(Duration::from_nanos(amount)),
            _ => None,
        }
    };
    match parse() {
        Some(timeout) => Ok(Some(timeout)),
        None => Err(Problem::field(
            "grpc-timeout",
            "must be up to eight digits and one of H, M, S, m, u, n",
        )),
    }
}

fn admit<T>(request: Request<T>) -> Result<(T, Patience), Problem> {
    let (metadata, _, message) = request.into_parts();
    let headers = metadata.into_headers();
    refuse_idempotency_key(&headers)?;
    Ok((message, Patience::new(asked_timeout(&headers)?)))
}

macro_rules! unary {
    ($($method:ident: $request:ident -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl Tasks for Grpc {
            $(async fn $method(&self, request: Request<v1::$request>) -> Answer<v1::$response> {
                let (message, patience) = admit(request)?;
                Ok(Response::new(self.0.$method(message, patience).await?))
            })*
        }
    };
}

unary! {
    create: CreateRequest -> CreateResponse;
    create_batch: CreateBatchRequest -> CreateBatchResponse;
    claim: ClaimRequest -> ClaimResponse;
    extend: ExtendRequest -> ExtendResponse;
    complete: CompleteRequest -> SettleResponse;
    fail: FailRequest -> SettleResponse;
    release: ReleaseRequest -> SettleResponse;
    settle_batch: SettleBatchRequest -> SettleBatchResponse;
    get: GetRequest -> Task;
    list: ListRequest -> ListResponse;
    queue_stats: QueueStatsRequest -> QueueStatsResponse;
}

/// Gives the errors of tonic's own decoding their rows in our table: INTERNAL for a malformed message
/// (invalid UTF-8, too), OUT_OF_RANGE for one that is too large. Ours always carry details; theirs never.
pub fn explain_decoding<B: Default>(response: http::Response<B>) -> http::Response<B> {
    let Some(status) = Status::from_header_map(response.headers()) else {
        return response;
    };
    if !status.details().is_empty() {
        return response;
    }
    let problem = match status.code() {
        Code::Internal => Problem::field("message", format!("is malformed: {}", status.message())),
        Code::OutOfRange => Problem::too_large(
            "message",
            format!("must be at most {REQUEST_BYTES_MAX} bytes"),
        ),
        _ => return response,
    };
    Status::from(problem).into_http()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_in_every_unit_and_refused_when_malformed() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            asked_timeout(&headers).ok().flatten()
        };
        assert_eq!(read("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(read("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(read("1500m"), Some(Duration::from_millis(1_500)));
        assert_eq!(read("7u"), Some(Duration::from_micros(7)));
        for malformed in ["", "S", "5", "-5S", "123456789S", "5s", "5 S"] {
            assert_eq!(read(malformed), None, "{malformed}");
        }
        assert_eq!(asked_timeout(&HeaderMap::new()), Ok(None));
    }
}
