//! The leader's end of an append stream: many requests in flight on one connection, answers in order.
//!
//! It runs in openraft's own replication task: a request goes from there to the socket without a hop.

use std::time::Duration;

use futures::stream::unfold;
use futures::{Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use tokio::time::{Instant, sleep_until};

use super::Options;
use super::append::put_append;
use super::dial::DialError;
use super::frame::{Frame, FrameError, Tag, decode_whole};
use super::peers::{Leased, Peer};
use super::wire::{AppendAnswer, AppendOutcome, Lane};
use crate::limits::APPENDS_IN_FLIGHT_MAX;
use crate::storage::types::TypeConfig;

/// Bytes queued on the connection before the log is read further.
const QUEUED_BYTES_MAX: usize = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

pub(crate) struct AppendStream<I> {
    lease: Leased,
    /// None: exhausted.
    input: Option<I>,
    session: u64,
    unanswered: usize,
    timeout: Duration,
    dead_at: Instant,
}

pub(crate) async fn open<I>(
    peer: &Peer,
    options: &Options,
    input: I,
) -> Result<AppendStream<I>, DialError> {
    let mut lease = peer.append.lease(&peer.link, Lane::Append).await?;
    let session = lease.conn().map_or(0, |conn| {
        conn.session += 1;
        conn.session
    });
    let timeout = options.append_timeout;
    Ok(AppendStream {
        lease,
        input: Some(input),
        session,
        unanswered: 0,
        timeout,
        dead_at: Instant::now(),
    })
}

/// The answers; the stream ends behind one that says conflict or higher vote, behind an error, and when
/// the input is exhausted and all of it is answered.
pub(crate) fn answers<I>(
    stream: AppendStream<I>,
) -> impl Stream<Item = Result<AppendOutcome, AppendError>> + Send
where
    I: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin,
{
    unfold(Some(stream), |stream| async move {
        let mut stream = stream?;
        match stream.next().await {
            Ok(None) => None,
            Ok(Some(outcome @ AppendOutcome::Matched(_))) => Some((Ok(outcome), Some(stream))),
            Ok(Some(outcome)) => Some((Ok(outcome), None)),
            Err(error) => {
                stream.lease.close();
                Some((Err(error), None))
            }
        }
    })
}

impl<I: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin> AppendStream<I> {
    async fn next(&mut self) -> Result<Option<AppendOutcome>, AppendError> {
        let Some(conn) = self.lease.conn() else {
            return Ok(None);
        };
        loop {
            if self.input.is_none() && self.unanswered == 0 {
                return Ok(None);
            }
            let room = self.unanswered < APPENDS_IN_FLIGHT_MAX
                && conn.writer.queued_bytes() < QUEUED_BYTES_MAX;
            tokio::select! {
                biased;
                written = conn.writer.drive(), if conn.writer.has_work() => written.map_err(FrameError::from)?,
                frame = conn.reader.next() => {
                    if let Some(outcome) = read_answer(frame?, self.session)? {
                        self.unanswered = self.unanswered.saturating_sub(1);
                        self.dead_at = Instant::now() + self.timeout;
                        return Ok(Some(outcome));
                    }
                }
                request = next_request(&mut self.input), if room && self.input.is_some() => match request {
                    Some(request) => {
                        conn.writer.push_with(Tag::Append, |buffer| put_append(self.session, &request, buffer))?;
                        if self.unanswered == 0 {
                            self.dead_at = Instant::now() + self.timeout;
                        }
                        self.unanswered += 1;
                    }
                    None => self.input = None,
                },
                () = sleep_until(self.dead_at), if self.unanswered > 0 => {
                    return Err(AppendError::Timeout(self.timeout));
                }
            }
        }
    }
}

async fn next_request<I: Stream + Unpin>(input: &mut Option<I>) -> Option<I::Item> {
    match input {
        Some(input) => input.next().await,
        None => None,
    }
}

/// None: an answer to an older session on this connection.
fn read_answer(frame: Option<Frame>, session: u64) -> Result<Option<AppendOutcome>, FrameError> {
    let frame = frame.ok_or_else(|| FrameError::Io(std::io::ErrorKind::UnexpectedEof.into()))?;
    if frame.tag != Tag::AppendAnswer {
        return Err(FrameError::Unexpected(frame.tag));
    }
    let answer: AppendAnswer = decode_whole(frame.tag, frame.body)?;
    Ok((answer.session == session).then_some(answer.outcome))
}
