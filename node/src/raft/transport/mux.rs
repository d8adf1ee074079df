//! One connection that carries many calls at once, answered in any order.
//!
//! A task owns the connection; it dials when there is something to say, and says truly of each call that
//! failed whether its bytes may have reached the peer.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::frame::{Frame, FrameError, Tag};
use super::peers::Link;
use super::wire::Lane;
use super::{Conn, pauses};

/// Bytes queued on a connection before further calls wait.
const QUEUED_BYTES_MAX: usize = 4 << 20;
const PINGS_LOST_MAX: u32 = 3;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The peer has not seen the call.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The peer may have seen it.
    #[error("no answer: {0}")]
    Unknown(String),
}

/// What happens to waiting calls when the peer cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// They wait for the next attempt, up to their deadline.
    Wait,
    /// They fail, so that the caller can look for another leader.
    Fail,
}

pub struct Mux {
    calls: mpsc::Sender<Call>,
    cancels: mpsc::UnboundedSender<u64>,
    next: AtomicU64,
}

const WAITING: u8 = 0;
const SENT: u8 = 1;
const GIVEN_UP: u8 = 2;

struct Call {
    number: u64,
    tag: Tag,
    head: Bytes,
    body: Bytes,
    stage: Arc<AtomicU8>,
    answer: oneshot::Sender<Result<Bytes, CallError>>,
}

impl Call {
    fn fail(self, error: CallError) {
        // A caller that is gone needs no answer.
        let _ = self.answer.send(Err(error));
    }

    fn is_abandoned(&self) -> bool {
        self.answer.is_closed() || self.stage.load(Ordering::Acquire) == GIVEN_UP
    }
}

/// Tells the peer that nobody waits any more.
struct CancelOnDrop<'a> {
    cancels: &'a mpsc::UnboundedSender<u64>,
    number: Option<u64>,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            // At most one for each call, and calls are bounded.
            let _ = self.cancels.send(number);
        }
    }
}

impl Mux {
    /// `calls_max` bounds the calls that wait to be sent.
    pub(super) fn start(link: Link, lane: Lane, unreachable: Unreachable, calls_max: usize) -> Mux {
        let (calls, calls_rx) = mpsc::channel(calls_max);
        let (cancels, cancels_rx) = mpsc::unbounded_channel();
        let task = Task {
            link,
            lane,
            unreachable,
            calls: calls_rx,
            cancels: cancels_rx,
            waiting: VecDeque::new(),
            met: Met::Never,
        };
        tokio::spawn(task.run());
        Mux {
            calls,
            cancels,
            next: AtomicU64::new(1),
        }
    }

    /// `head` goes in front of `body` in the frame.
    pub async fn call(
        &self,
        tag: Tag,
        head: Bytes,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Bytes, CallError> {
        let stopped = || CallError::NotSent("the connection is closing".into());
        let permit = match self.calls.try_reserve() {
            Ok(permit) => permit,
            Err(mpsc::error::TrySendError::Full(())) => {
                return Err(CallError::NotSent(
                    "too many calls wait for this member".into(),
                ));
            }
            Err(mpsc::error::TrySendError::Closed(())) => return Err(stopped()),
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let stage = Arc::new(AtomicU8::new(WAITING));
        let (answer, answered) = oneshot::channel();
        permit.send(Call {
            number,
            tag,
            head,
            body,
            stage: Arc::clone(&stage),
            answer,
        });
        let mut cancel = CancelOnDrop {
            cancels: &self.cancels,
            number: Some(number),
        };
        match timeout_at(deadline, answered).await {
            Ok(outcome) => {
                cancel.number = None;
                outcome.unwrap_or_else(|_| Err(stopped()))
            }
            Err(_) => {
                let given_up =
                    stage.compare_exchange(WAITING, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire);
                if given_up.is_err() {
                    return Err(CallError::Unknown("the deadline passed".into()));
                }
                // It was never sent and never will be.
                cancel.number = None;
                Err(CallError::NotSent(
                    "the deadline passed before the member was reached".into(),
                ))
            }
        }
    }
}

struct Task {
    link: Link,
    lane: Lane,
    unreachable: Unreachable,
    calls: mpsc::Receiver<Call>,
    cancels: mpsc::UnboundedReceiver<u64>,
    waiting: VecDeque<Call>,
    met: Met,
}

/// Whether the peer was there before: only then does a refused connection say that it went down.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Met {
    Never,
    Before,
}

impl Task {
    async fn run(mut self) {
        let mut pause = pauses(&self.link.options);
        let mut not_before = Instant::now();
        loop {
            while self.waiting.is_empty() {
                match self.calls.recv().await {
                    Some(call) if call.is_abandoned() => {}
                    Some(call) => self.waiting.push_back(call),
                    None => return,
                }
            }
            sleep_until(not_before).await;
            match self.link.dial(self.lane).await {
                Ok(conn) => {
                    pause = pauses(&self.link.options);
                    self.met = Met::Before;
                    if self.converse(conn).await == Ended::NoCallers {
                        return;
                    }
                    not_before = Instant::now();
                }
                Err(error) => {
                    self.link.report(&error);
                    if self.met == Met::Before {
                        self.link.peer_down_if_refused(&error);
                    }
                    not_before = Instant::now() + pause.next().unwrap_or_default();
                    self.after_failed_dial(&error.to_string());
                }
            }
        }
    }

    fn after_failed_dial(&mut self, reason: &str) {
        // Nothing that is there to be cancelled was ever sent on a connection that still lives.
        while self.cancels.try_recv().is_ok() {}
        while let Ok(call) = self.calls.try_recv() {
            self.waiting.push_back(call);
        }
        match self.unreachable {
            Unreachable::Wait => self.waiting.retain(|call| !call.is_abandoned()),
            Unreachable::Fail => {
                for call in self.waiting.drain(..) {
                    call.fail(CallError::NotSent(reason.to_owned()));
                }
            }
        }
    }

    async fn converse(&mut self, conn: Conn) -> Ended {
        let mut talk = Talk {
            conn,
            unanswered: HashMap::new(),
            pings_lost: 0,
        };
        let ended = self.talk(&mut talk).await;
        let reason = match &ended {
            Ok(ended) => format!("{ended:?}"),
            Err(error) => {
                tracing::debug!(peer = self.link.to, lane = ?self.lane, %error, "connection lost");
                error.to_string()
            }
        };
        for answer in talk.unanswered.into_values() {
            let _ = answer.send(Err(CallError::Unknown(format!(
                "the connection was lost: {reason}"
            ))));
        }
        ended.unwrap_or(Ended::ByPeer)
    }

    async fn talk(&mut self, talk: &mut Talk) -> Result<Ended, FrameError> {
        let keep_alive = self.link.options.keep_alive;
        let mut ping_at = Instant::now() + keep_alive;
        for call in std::mem::take(&mut self.waiting) {
            talk.send(call)?;
        }
        loop {
            let room = talk.conn.writer.queued_bytes() < QUEUED_BYTES_MAX;
            tokio::select! {
                biased;
                written = talk.conn.writer.drive(), if talk.conn.writer.has_work() => written?,
                frame = talk.conn.reader.next() => {
                    let Some(frame) = frame? else { return Ok(Ended::ByPeer) };
                    ping_at = Instant::now() + keep_alive;
                    talk.pings_lost = 0;
                    talk.receive(frame)?;
                }
                call = self.calls.recv(), if room => match call {
                    Some(call) => talk.send(call)?,
                    None => return Ok(Ended::NoCallers),
                },
                Some(number) = self.cancels.recv() => talk.cancel(number)?,
                () = sleep_until(ping_at) => {
                    ping_at = Instant::now() + keep_alive;
                    talk.ping()?;
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    NoCallers,
    ByPeer,
}

struct Talk {
    conn: Conn,
    unanswered: HashMap<u64, oneshot::Sender<Result<Bytes, CallError>>>,
    pings_lost: u32,
}

impl Talk {
    fn send(&mut self, call: Call) -> Result<(), FrameError> {
        if call.answer.is_closed() {
            return Ok(());
        }
        // From here on the peer may see it.
        if call
            .stage
            .compare_exchange(WAITING, SENT, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            return Ok(());
        }
        let pushed = self.conn.writer.push_with(call.tag, |buffer| {
            buffer.reserve(8 + call.head.len() + call.body.len());
            buffer.put_u64(call.number);
            buffer.put_slice(&call.head);
            buffer.put_slice(&call.body);
            Ok(())
        });
        match pushed {
            Ok(()) => {
                self.unanswered.insert(call.number, call.answer);
                Ok(())
            }
            // Too long: this call's own fault, the connection is fine.
            Err(error) => {
                call.fail(CallError::NotSent(error.to_string()));
                Ok(())
            }
        }
    }

    fn cancel(&mut self, number: u64) -> Result<(), FrameError> {
        if self.unanswered.remove(&number).is_none() {
            return Ok(());
        }
        self.conn.writer.push_with(Tag::Cancel, |buffer| {
            buffer.put_u64(number);
            Ok(())
        })
    }

    fn ping(&mut self) -> Result<(), FrameError> {
        if self.pings_lost == PINGS_LOST_MAX {
            return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
        }
        self.pings_lost += 1;
        self.conn.writer.push_with(Tag::Ping, |_| Ok(()))
    }

    fn receive(&mut self, frame: Frame) -> Result<(), FrameError> {
        let (number, mut body) = match frame.tag {
            Tag::Pong => return Ok(()),
            Tag::Answer | Tag::NotTaken => take_number(frame.tag, frame.body)?,
            other => return Err(FrameError::Unexpected(other)),
        };
        let Some(answer) = self.unanswered.remove(&number) else {
            return Ok(());
        };
        let outcome = match frame.tag {
            Tag::NotTaken => {
                let reason =
                    String::from_utf8_lossy(&body.split_to(body.len().min(256))).into_owned();
                Err(CallError::NotSent(reason))
            }
            _ => Ok(body),
        };
        let _ = answer.send(outcome);
        Ok(())
    }
}

/// Splits the call's number off the front of a body.
pub(super) fn take_number(tag: Tag, mut body: Bytes) -> Result<(u64, Bytes), FrameError> {
    if body.len() < 8 {
        return Err(FrameError::Malformed {
            tag,
            reason: "no room for a call's number".into(),
        });
    }
    let number = body.get_u64();
    Ok((number, body))
}

/// Time until `deadline`, for the peer to count down on its own clock.
pub(super) fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
