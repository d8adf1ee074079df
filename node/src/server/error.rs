//! The one table of errors: what a client sees, in both protocols, for everything that can go wrong.

use std::time::Duration;

use axum::response::{IntoResponse, Response as HttpResponse};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value};
use taskstore_api::v1;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::service::request::{Error, UnavailableCause};
use crate::task::command::Rejection;

/// The `domain` of every ErrorInfo.
pub const DOMAIN: &str = "taskstore.dev";

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    InvalidField,
    TooLarge,
    PageTokenInvalid,
    IdTooOld,
    TaskNotFound,
    Duplicate,
    LeaseLost,
    QueueFull,
    Quota,
    DiskHighWater,
    FeatureNotActive,
    NoLeader,
    NotReady,
    OutcomeUnknown,
    /// The caller has heard of a later incarnation than this member's.
    WrongIncarnation,
    /// HTTP only: nothing is served under this path, or not with this method.
    PathNotFound,
    MethodNotAllowed,
    /// A defect of ours.
    Internal,
}

impl Case {
    #[rustfmt::skip]
    fn row(self) -> (Code, u16, &'static str, &'static str) {
        use Code::*;
        match self {
            Case::InvalidField => (InvalidArgument, 400, "INVALID_FIELD", "a field is malformed or out of bounds"),
            Case::TooLarge => (InvalidArgument, 413, "TOO_LARGE", "larger than the store takes"),
            Case::PageTokenInvalid => (InvalidArgument, 400, "PAGE_TOKEN_INVALID", "not a page token of this list"),
            Case::IdTooOld => (InvalidArgument, 400, "ID_TOO_OLD", "the id's own time is too long ago"),
            Case::TaskNotFound => (NotFound, 404, "TASK_NOT_FOUND", "no such task"),
            Case::Duplicate => (AlreadyExists, 409, "DUPLICATE", "the id is taken by another task"),
            Case::LeaseLost => (FailedPrecondition, 409, "LEASE_LOST", "the lease is no longer held"),
            Case::QueueFull => (ResourceExhausted, 429, "QUEUE_FULL", "the store is full"),
            Case::Quota => (ResourceExhausted, 429, "QUOTA", "too much work in flight"),
            Case::DiskHighWater => (ResourceExhausted, 507, "DISK_HIGH_WATER", "a voter's disk is nearly full"),
            Case::FeatureNotActive => (Unimplemented, 501, "FEATURE_NOT_ACTIVE", "not active in this cluster"),
            Case::NoLeader => (Unavailable, 503, "NO_LEADER", "no leader; nothing was done"),
            Case::NotReady => (Unavailable, 503, "NOT_READY", "not ready; nothing was done"),
            Case::OutcomeUnknown => (DeadlineExceeded, 504, "OUTCOME_UNKNOWN", "it may or may not have been done"),
            Case::WrongIncarnation => (FailedPrecondition, 421, "WRONG_INCARNATION", "a member of an earlier incarnation; nothing was done"),
            Case::PathNotFound => (Unimplemented, 404, "PATH_NOT_FOUND", "nothing is served here"),
            Case::MethodNotAllowed => (Unimplemented, 405, "METHOD_NOT_ALLOWED", "not with this method"),
            Case::Internal => (Internal, 500, "INTERNAL", "a defect of the store"),
        }
    }

    pub fn code(self) -> Code {
        self.row().0
    }

    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().1).expect("the table holds valid statuses")
    }

    pub fn reason(self) -> &'static str {
        self.row().2
    }
}

/// One error on its way to a client. `facts` name the field, bound or id at fault, for programs.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    pub case: Case,
    pub detail: String,
    pub facts: Vec<(&'static str, String)>,
    pub retry_after_ms: Option<u64>,
}

impl Problem {
    pub fn new(case: Case, detail: impl Into<String>) -> Problem {
        Problem {
            case,
            detail: detail.into(),
            facts: Vec::new(),
            retry_after_ms: None,
        }
    }

    /// `bound` is the rule the field breaks, worded to follow its name.
    pub fn field(field: impl Into<String>, bound: impl Into<String>) -> Problem {
        Problem::of_field(Case::InvalidField, field.into(), bound.into())
    }

    pub fn too_large(field: impl Into<String>, bound: impl Into<String>) -> Problem {
        Problem::of_field(Case::TooLarge, field.into(), bound.into())
    }

    fn of_field(case: Case, field: String, bound: String) -> Problem {
        Problem::new(case, format!("{field} {bound}"))
            .fact("field", field)
            .fact("bound", bound)
    }

    pub fn fact(mut self, name: &'static str, value: impl ToString) -> Problem {
        self.facts.push((name, value.to_string()));
        self
    }

    fn retry_after_ms(mut self, retry_after_ms: u64) -> Problem {
        self.retry_after_ms = Some(retry_after_ms);
        self
    }

    /// As the result of one item of a batch.
    pub fn into_item(self) -> v1::ItemError {
        v1::ItemError {
            code: self.case.code() as i32,
            reason: self.case.reason().to_owned(),
            message: self.detail,
        }
    }
}

/// How long to wait before a request that met a full disk is worth sending again.
const DISK_RETRY_MS: u64 = 5_000;

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        match error {
            Error::Rejected(rejection) => rejection.into(),
            Error::Unavailable {
                cause,
                reason,
                retry_after_ms,
            } => {
                let case = match cause {
                    UnavailableCause::NoLeader => Case::NoLeader,
                    UnavailableCause::NotReady => Case::NotReady,
                };
                Problem::new(case, reason).retry_after_ms(retry_after_ms)
            }
            Error::Overloaded {
                bound,
                retry_after_ms,
            } => Problem::new(Case::Quota, format!("over the bound: {bound}"))
                .fact("bound", bound)
                .retry_after_ms(retry_after_ms),
            Error::DiskHighWater => Problem::new(
                Case::DiskHighWater,
                "the disk of a voter is nearly full; tasks can still be settled",
            )
            .retry_after_ms(DISK_RETRY_MS),
            Error::OutcomeUnknown { reason } => Problem::new(
                Case::OutcomeUnknown,
                format!("{reason}; send it again with the same ids"),
            ),
            Error::TooLarge { bound } => {
                Problem::new(Case::TooLarge, format!("over the bound: {bound}"))
                    .fact("bound", bound)
            }
        }
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Problem {
        match rejection {
            Rejection::Duplicate { id } => {
                Problem::new(Case::Duplicate, format!("another task has the id {id}"))
                    .fact("id", id)
            }
            Rejection::TaskNotFound { id } => {
                Problem::new(Case::TaskNotFound, format!("there is no task {id}")).fact("id", id)
            }
            Rejection::LeaseLost { id } => Problem::new(
                Case::LeaseLost,
                format!("this lease token does not hold task {id}"),
            )
            .fact("id", id),
            Rejection::IdTooOld { id } => Problem::new(
                Case::IdTooOld,
                format!(
                    "id {id} was made so long ago that a finished task of that id may be forgotten"
                ),
            )
            .fact("id", id),
            Rejection::Full { bound } => {
                Problem::new(Case::QueueFull, format!("over the bound: {bound}"))
                    .fact("bound", bound)
                    .retry_after_ms(1_000)
            }
            Rejection::FeatureNotActive { level } => Problem::new(
                Case::FeatureNotActive,
                format!("needs feature level {level}"),
            )
            .fact("level", level),
        }
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Status {
        let mut details = ErrorDetails::new();
        let facts: std::collections::HashMap<String, String> = problem
            .facts
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        if problem.case == Case::InvalidField
            && let (Some(field), Some(bound)) = (facts.get("field"), facts.get("bound"))
        {
            details.add_bad_request_violation(field, bound);
        }
        details.set_error_info(problem.case.reason(), DOMAIN, facts);
        if let Some(retry_after_ms) = problem.retry_after_ms {
            details.set_retry_info(Some(Duration::from_millis(retry_after_ms)));
        }
        Status::with_error_details(problem.case.code(), problem.detail, details)
    }
}

/// RFC 9457. The facts are members of the object beside the standard ones.
impl IntoResponse for Problem {
    fn into_response(self) -> HttpResponse {
        let (_, status, reason, title) = self.case.row();
        let mut body = Map::new();
        body.insert("type".into(), format!("tag:{DOMAIN},2026:{reason}").into());
        body.insert("title".into(), title.into());
        body.insert("status".into(), status.into());
        body.insert("detail".into(), self.detail.into());
        body.insert("reason".into(), reason.into());
        for (name, value) in self.facts {
            body.insert(name.into(), value.into());
        }
        let mut response = HttpResponse::new(Value::Object(body).to_string().into());
        *response.status_mut() = self.case.status();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(retry_after_ms) = self.retry_after_ms {
            // The header counts whole seconds; 0 would invite a storm.
            headers.insert(RETRY_AFTER, retry_after_ms.div_ceil(1_000).max(1).into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::id::TaskId;

    fn id() -> TaskId {
        TaskId::parse("a-1").unwrap()
    }

    #[test]
    fn every_error_of_the_service_has_its_row() {
        let unavailable = |cause| Error::Unavailable {
            cause,
            reason: "r".into(),
            retry_after_ms: 50,
        };
        #[rustfmt::skip]
        let table = [
            (Error::Rejected(Rejection::Duplicate { id: id() }), Code::AlreadyExists, 409, "DUPLICATE", None),
            (Error::Rejected(Rejection::TaskNotFound { id: id() }), Code::NotFound, 404, "TASK_NOT_FOUND", None),
            (Error::Rejected(Rejection::LeaseLost { id: id() }), Code::FailedPrecondition, 409, "LEASE_LOST", None),
            (Error::Rejected(Rejection::IdTooOld { id: id() }), Code::InvalidArgument, 400, "ID_TOO_OLD", None),
            (Error::Rejected(Rejection::Full { bound: "b".into() }), Code::ResourceExhausted, 429, "QUEUE_FULL", Some("1")),
            (Error::Rejected(Rejection::FeatureNotActive { level: 2 }), Code::Unimplemented, 501, "FEATURE_NOT_ACTIVE", None),
            (unavailable(UnavailableCause::NoLeader), Code::Unavailable, 503, "NO_LEADER", Some("1")),
            (unavailable(UnavailableCause::NotReady), Code::Unavailable, 503, "NOT_READY", Some("1")),
            (Error::Overloaded { bound: "b".into(), retry_after_ms: 1_500 }, Code::ResourceExhausted, 429, "QUOTA", Some("2")),
            (Error::DiskHighWater, Code::ResourceExhausted, 507, "DISK_HIGH_WATER", Some("5")),
            (Error::OutcomeUnknown { reason: "r".into() }, Code::DeadlineExceeded, 504, "OUTCOME_UNKNOWN", None),
            (Error::TooLarge { bound: "b".into() }, Code::InvalidArgument, 413, "TOO_LARGE", None),
        ];
        for (error, code, status, reason, retry_after) in table {
            let problem = Problem::from(error);
            let grpc = Status::from(problem.clone());
            assert_eq!(grpc.code(), code, "{reason}");
            let details = grpc.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!(
                (info.reason.as_str(), info.domain.as_str()),
                (reason, DOMAIN)
            );
            assert_eq!(
                details.retry_info().is_some(),
                retry_after.is_some(),
                "{reason}"
            );
            let http = problem.into_response();
            assert_eq!(http.status().as_u16(), status, "{reason}");
            assert_eq!(http.headers()[CONTENT_TYPE], "application/problem+json");
            let header = http
                .headers()
                .get(RETRY_AFTER)
                .map(|value| value.to_str().unwrap());
            assert_eq!(header, retry_after, "{reason}");
        }
    }

    #[test]
    fn a_refused_field_is_named_with_its_bound_in_both_protocols() {
        let problem = Problem::field("tasks[3].priority", "must be 0 to 9");
        let grpc = Status::from(problem.clone());
        assert_eq!(grpc.message(), "tasks[3].priority must be 0 to 9");
        let details = grpc.get_error_details();
        assert_eq!(
            details.error_info().unwrap().metadata["bound"],
            "must be 0 to 9"
        );
        assert_eq!(
            details.bad_request().unwrap().field_violations[0].field,
            "tasks[3].priority"
        );
        assert_eq!(problem.facts[0], ("field", "tasks[3].priority".to_owned()));
    }
}
