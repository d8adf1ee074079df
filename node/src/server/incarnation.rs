//! Which incarnation of the store answers, so that nobody who has heard of a later one is served by an
//! earlier one: after a recovery or a restore a cut-off majority of the old members may still run.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderValue};
use taskstore_api::INCARNATION_HEADER;

use super::error::{Case, Problem};
use super::refused;

/// Refuses a caller that has heard of a later incarnation; every answer says which one this is.
pub async fn fence(incarnation: u16, request: Request, next: Next) -> Response {
    let mut response = match admit(incarnation, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => refused(&request, problem),
    };
    let said = HeaderValue::from(incarnation);
    response.headers_mut().insert(INCARNATION_HEADER, said);
    response
}

fn admit(incarnation: u16, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(INCARNATION_HEADER) else {
        return Ok(());
    };
    let known = value
        .to_str()
        .ok()
        .and_then(|text| text.parse::<u16>().ok());
    match known {
        Some(known) if known <= incarnation => Ok(()),
        Some(known) => Err(Problem::new(
            Case::WrongIncarnation,
            format!(
                "this member is of incarnation {incarnation}, and the store has reached {known}"
            ),
        )
        .fact("incarnation", incarnation)),
        None => Err(Problem::field(
            INCARNATION_HEADER,
            "must be a number from 1 to 65535",
        )),
    }
}
