//! The answering end of multiplexed calls: each runs on its own, is answered when done, and is dropped
//! when the caller cancels it or the connection is lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::Conn;
use super::append::{last_of, outcome_out};
use super::frame::{Frame, FrameError, Tag, decode, decode_whole, encode};
use super::mux::take_number;
use super::peers::Peers;
use super::server::{Forwarded, RaftDoor};
use super::wire::{
    ForwardHead, Heartbeat, HeartbeatAnswer, TransferAnswer, TransferAsk, VoteAnswer, VoteAsk,
    log_id_in,
};
use crate::limits::{CONTROL_CALLS_MAX, FORWARDS_MAX};

/// `from` calls; whenever it is accepted as the leader, `peers` are told.
pub(super) async fn serve_control<R: RaftDoor>(
    conn: &mut Conn,
    from: u64,
    (raft, peers): (&Arc<R>, &Arc<Peers>),
    idle: Duration,
) -> Result<(), FrameError> {
    serve(conn, idle, CONTROL_CALLS_MAX, |tag, body| {
        let (raft, peers) = (Arc::clone(raft), Arc::clone(peers));
        Ok(async move {
            let led = || peers.note_led_by(from);
            control(raft.as_ref(), tag, body, led).await
        })
    })
    .await
}

async fn control<R: RaftDoor>(
    raft: &R,
    tag: Tag,
    body: Bytes,
    led: impl Fn(),
) -> Result<Bytes, FrameError> {
    let mut answer = BytesMut::new();
    match tag {
        Tag::Heartbeat => {
            let beat: Heartbeat = decode_whole(tag, body)?;
            let request = AppendEntriesRequest {
                vote: beat.vote.into(),
                prev_log_id: log_id_in(beat.prev),
                leader_commit: log_id_in(beat.leader_commit),
                entries: Vec::new(),
            };
            let (prev, last) = (request.prev_log_id, last_of(&request));
            let appended = raft.append(request).await?;
            if !matches!(appended, AppendEntriesResponse::HigherVote(_)) {
                led();
            }
            let outcome = outcome_out(appended, prev, last);
            encode(
                tag,
                &HeartbeatAnswer {
                    outcome,
                    facts: raft.facts(),
                },
                &mut answer,
            )?;
        }
        Tag::Vote => {
            let ask: VoteAsk = decode_whole(tag, body)?;
            encode(
                tag,
                &VoteAnswer::from(&raft.vote(ask.into()).await?),
                &mut answer,
            )?;
        }
        Tag::PreVote => {
            let ask: VoteAsk = decode_whole(tag, body)?;
            encode(
                tag,
                &VoteAnswer::from(&raft.pre_vote(ask.into()).await?),
                &mut answer,
            )?;
        }
        Tag::TransferLeader => {
            let ask: TransferAsk = decode_whole(tag, body)?;
            encode(
                tag,
                &TransferAnswer::from(&raft.transfer_leader(ask.into()).await?),
                &mut answer,
            )?;
        }
        other => return Err(FrameError::Unexpected(other)),
    }
    Ok(answer.freeze())
}

pub(super) async fn serve_forward<F: Forwarded>(
    conn: &mut Conn,
    from: u64,
    forwarded: &Arc<F>,
    idle: Duration,
) -> Result<(), FrameError> {
    serve(conn, idle, FORWARDS_MAX, |tag, mut body| {
        if tag != Tag::Forward {
            return Err(FrameError::Unexpected(tag));
        }
        let head: ForwardHead = decode(tag, &mut body)?;
        if head.hop != 1 {
            return Err(FrameError::Malformed {
                tag,
                reason: format!("hop {}", head.hop),
            });
        }
        let deadline =
            Instant::now() + Duration::from_millis(head.deadline_ms.min(DEADLINE_MS_MAX));
        let forwarded = Arc::clone(forwarded);
        Ok(async move { Ok(forwarded.handle(from, body, deadline).await) })
    })
    .await
}

/// Longer deadlines count as this one; the longest wait of a claim is a minute.
const DEADLINE_MS_MAX: u64 = 3_600_000;

struct Running {
    tasks: JoinSet<Result<Bytes, FrameError>>,
    by_task: HashMap<Id, u64>,
    by_number: HashMap<u64, AbortHandle>,
}

/// `begin` reads a call and gives the work that answers it; its error closes the connection.
async fn serve<W>(
    conn: &mut Conn,
    idle: Duration,
    calls_max: usize,
    begin: impl Fn(Tag, Bytes) -> Result<W, FrameError>,
) -> Result<(), FrameError>
where
    W: Future<Output = Result<Bytes, FrameError>> + Send + 'static,
{
    let mut running = Running {
        tasks: JoinSet::new(),
        by_task: HashMap::new(),
        by_number: HashMap::new(),
    };
    let mut silent_at = Instant::now() + idle;
    loop {
        tokio::select! {
            biased;
            written = conn.writer.drive(), if conn.writer.has_work() => written?,
            Some(done) = running.tasks.join_next_with_id(), if !running.tasks.is_empty() => {
                running.answer(conn, done)?;
            }
            frame = conn.reader.next() => {
                let Some(frame) = frame? else { return Ok(()) };
                silent_at = Instant::now() + idle;
                running.take(conn, frame, calls_max, &begin)?;
            }
            () = sleep_until(silent_at) => {
                return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
            }
        }
    }
}

impl Running {
    fn take<W>(
        &mut self,
        conn: &mut Conn,
        frame: Frame,
        calls_max: usize,
        begin: &impl Fn(Tag, Bytes) -> Result<W, FrameError>,
    ) -> Result<(), FrameError>
    where
        W: Future<Output = Result<Bytes, FrameError>> + Send + 'static,
    {
        if frame.tag == Tag::Ping {
            return conn.writer.push_with(Tag::Pong, |_| Ok(()));
        }
        let (number, body) = take_number(frame.tag, frame.body)?;
        if frame.tag == Tag::Cancel {
            if let Some(task) = self.by_number.get(&number) {
                task.abort();
            }
            return Ok(());
        }
        if self.by_number.len() >= calls_max {
            return conn.writer.push_with(Tag::NotTaken, |buffer| {
                buffer.put_u64(number);
                buffer.put_slice(b"too many calls are running for this member");
                Ok(())
            });
        }
        let task = self.tasks.spawn(begin(frame.tag, body)?);
        self.by_task.insert(task.id(), number);
        self.by_number.insert(number, task);
        Ok(())
    }

    fn answer(
        &mut self,
        conn: &mut Conn,
        done: Result<(Id, Result<Bytes, FrameError>), tokio::task::JoinError>,
    ) -> Result<(), FrameError> {
        let id = match &done {
            Ok((id, _)) => *id,
            Err(ended) => ended.id(),
        };
        let Some(number) = self.by_task.remove(&id) else {
            return Ok(());
        };
        self.by_number.remove(&number);
        match done {
            Ok((_, body)) => {
                let body = body?;
                conn.writer.push_with(Tag::Answer, |buffer| {
                    buffer.reserve(8 + body.len());
                    buffer.put_u64(number);
                    buffer.put_slice(&body);
                    Ok(())
                })
            }
            Err(ended) if ended.is_cancelled() => Ok(()),
            // The caller cannot know what was done; losing the connection tells it so.
            Err(ended) => Err(std::io::Error::other(ended).into()),
        }
    }
}
