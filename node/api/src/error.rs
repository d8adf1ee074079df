//! Why a call failed, as clients see it, and whether sending it again can help.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A call that was given up.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {message}", self.reason())]
pub struct CallError {
    pub code: Code,
    /// The reason of the store's error table; empty when the store did not answer.
    reason: String,
    pub message: String,
    /// The field, bound or id at fault.
    pub facts: Vec<(String, String)>,
    pub retry_after: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Final,
    Retry,
    RetryElsewhere,
}

impl CallError {
    /// The reason of the store's error table, or the name of the code when the store did not answer.
    pub fn reason(&self) -> &str {
        if self.reason.is_empty() {
            self.code.description()
        } else {
            &self.reason
        }
    }

    /// The lease is held no longer: the work's effects must be thrown away.
    pub fn is_lease_lost(&self) -> bool {
        self.reason == "LEASE_LOST" || self.reason == "TASK_NOT_FOUND"
    }

    pub(crate) fn silence() -> CallError {
        CallError {
            code: Code::DeadlineExceeded,
            reason: String::new(),
            message: "the member did not answer in time".to_owned(),
            facts: Vec::new(),
            retry_after: None,
        }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match (self.code, self.reason.as_str()) {
            // The leader's own words: another member would only forward to it.
            (Code::DeadlineExceeded, "OUTCOME_UNKNOWN") => Verdict::Retry,
            (Code::Unavailable, _) | (_, "WRONG_INCARNATION") => Verdict::RetryElsewhere,
            // Too much work in flight at this moment, and nothing was done.
            (Code::ResourceExhausted, "QUOTA") if self.retry_after.is_some() => Verdict::Retry,
            // No word of the store: the connection was lost on the way, or the member hangs.
            (Code::Unknown | Code::Internal | Code::Cancelled | Code::DeadlineExceeded, "") => {
                Verdict::RetryElsewhere
            }
            _ => Verdict::Final,
        }
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> CallError {
        let details = status.get_error_details();
        let (reason, facts) = match details.error_info() {
            Some(info) => {
                let mut facts: Vec<_> = info.metadata.clone().into_iter().collect();
                facts.sort();
                (info.reason.clone(), facts)
            }
            None => Default::default(),
        };
        let mut message = status.message().to_owned();
        // tonic says "transport error" and keeps what went wrong in the sources.
        let mut source = std::error::Error::source(&status);
        while let Some(error) = source {
            let said = error.to_string();
            if !message.contains(&said) {
                message = format!("{message}: {said}");
            }
            source = error.source();
        }
        CallError {
            code: status.code(),
            reason,
            message,
            facts,
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }
    }
}
