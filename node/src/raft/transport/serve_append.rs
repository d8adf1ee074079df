//! The follower's end of an append stream: requests go to Raft as they come, answers go back in order.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesOrdered;

use super::Conn;
use super::append::{last_of, outcome_out, read_append};
use super::frame::{FrameError, Tag};
use super::server::{RaftDoor, Stopped};
use super::wire::{AppendAnswer, AppendOutcome};
use crate::limits::APPENDS_IN_FLIGHT_MAX;

/// What becomes of further requests of the session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Session {
    Open,
    /// An answer has ended it; what the leader sent before it saw that is dropped.
    Ended,
}

pub(super) async fn serve<R: RaftDoor>(conn: &mut Conn, raft: &Arc<R>) -> Result<(), FrameError> {
    let mut number = 0;
    let mut session = Session::Open;
    let mut answers = FuturesOrdered::new();
    loop {
        tokio::select! {
            biased;
            written = conn.writer.drive(), if conn.writer.has_work() => written?,
            Some(answer) = answers.next(), if !answers.is_empty() => {
                let answer: AppendAnswer = answer?;
                conn.writer.push(Tag::AppendAnswer, &answer)?;
                if !matches!(answer.outcome, AppendOutcome::Matched(_)) {
                    session = Session::Ended;
                    answers.clear();
                }
            }
            frame = conn.reader.next(), if answers.len() < APPENDS_IN_FLIGHT_MAX => {
                let Some(frame) = frame? else { return Ok(()) };
                if frame.tag != Tag::Append {
                    return Err(FrameError::Unexpected(frame.tag));
                }
                let (of, request) = read_append(frame.body)?;
                if of != number {
                    number = of;
                    session = Session::Open;
                    answers.clear();
                }
                if session == Session::Open {
                    let (prev, last) = (request.prev_log_id, last_of(&request));
                    let raft = Arc::clone(raft);
                    // First polled in this order, so Raft sees the requests in this order.
                    answers.push_back(async move {
                        let answer = raft.append(request).await?;
                        Ok::<_, FrameError>(AppendAnswer { session: of, outcome: outcome_out(answer, prev, last) })
                    });
                }
            }
        }
    }
}

impl From<Stopped> for FrameError {
    fn from(stopped: Stopped) -> FrameError {
        FrameError::Io(std::io::Error::other(stopped))
    }
}
