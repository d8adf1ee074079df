//! The single door: every request of a client, from here or forwarded by another member, passes through
//! `Service::call`.

pub mod request;

use std::time::Instant;

use futures::future::BoxFuture;

use self::request::{Error, Request, Response};

/// What handlers see of the service. Dropping the future gives the request up: a parked claim is
/// unparked, a proposal under way may still take effect.
pub trait Door: Send + Sync + 'static {
    /// Answers by `deadline`: with `OutcomeUnknown` when something may have been appended by then.
    fn call(&self, request: Request, deadline: Instant) -> BoxFuture<'_, Result<Response, Error>>;
}
