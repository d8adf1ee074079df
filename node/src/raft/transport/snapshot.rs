//! A snapshot on its way: begin, chunks from where the receiver stands, end. Every answer has its own
//! time-out, so a large snapshot may take as long as it moves.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use openraft::alias::SnapshotMetaOf;
use tokio::time::timeout;

use super::Conn;
use super::dial::DialError;
use super::frame::{Frame, FrameError, Tag, decode, decode_whole, encode};
use super::inbox::{Arriving, SnapshotSink, Turn, blocking};
use super::peers::Peer;
use super::server::RaftDoor;
use super::wire::{self, Lane, SnapshotAt, SnapshotBegin, SnapshotDone, SnapshotFailed};
use crate::limits::SNAPSHOT_CHUNK_BYTES;
use crate::storage::types::{TypeConfig, Vote};

/// How often a receiver that is still installing says so.
const BUSY_EVERY: Duration = Duration::from_secs(1);
/// Chunks sent ahead of their acknowledgement.
const CHUNKS_IN_FLIGHT: u64 = 4;

pub type SnapshotMeta = SnapshotMetaOf<TypeConfig>;

/// What a snapshot is read from on its way to a peer. Reads block.
pub trait SnapshotSource: Send + Sync + 'static {
    /// Equal ids mean equal bytes.
    fn id(&self) -> String;
    fn bytes(&self) -> u64;
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("nothing heard for {0:?}")]
    Timeout(Duration),
    #[error("the snapshot could not be read: {0}")]
    Read(io::Error),
    #[error("the receiver could not take it: {0}")]
    Refused(String),
}

/// Sends over a connection of its own, which ends with the transfer.
pub(crate) async fn send_to<S: SnapshotSource>(
    peer: &Peer,
    vote: &Vote,
    meta: &SnapshotMeta,
    source: Arc<S>,
    chunk_timeout: Duration,
) -> Result<Vote, SendError> {
    let mut conn = peer
        .link
        .dial(Lane::Snapshot)
        .await
        .inspect_err(|error| peer.link.report(error))?;
    send(&mut conn, vote, meta, source, chunk_timeout).await
}

/// Sends all of it and answers with the receiver's vote once it is installed there.
async fn send<S: SnapshotSource>(
    conn: &mut Conn,
    vote: &Vote,
    meta: &SnapshotMeta,
    source: Arc<S>,
    chunk_timeout: Duration,
) -> Result<Vote, SendError> {
    let bytes = source.bytes();
    let begin = SnapshotBegin {
        vote: vote.into(),
        last: wire::log_id_out(meta.last_log_id.as_ref()),
        membership_log_id: wire::log_id_out(meta.last_membership.log_id().as_ref()),
        membership: meta.last_membership.membership().into(),
        id: source.id(),
        bytes,
    };
    conn.writer.push(Tag::SnapshotBegin, &begin)?;
    let mut acknowledged = position(exchange(conn, chunk_timeout).await?, bytes)?;
    let mut sent = acknowledged;
    while acknowledged < bytes {
        while sent < bytes && sent - acknowledged < CHUNKS_IN_FLIGHT * SNAPSHOT_CHUNK_BYTES as u64 {
            let chunk = read_chunk(&source, sent, bytes).await?;
            let offset = sent;
            sent += chunk.len() as u64;
            conn.writer.push_with(Tag::SnapshotChunk, |buffer| {
                encode(Tag::SnapshotChunk, &SnapshotAt { offset }, buffer)?;
                buffer.put_slice(&chunk);
                Ok(())
            })?;
            timeout(chunk_timeout, conn.writer.drive())
                .await
                .map_err(|_| SendError::Timeout(chunk_timeout))?
                .map_err(FrameError::from)?;
        }
        acknowledged = position(exchange(conn, chunk_timeout).await?, sent)?;
    }
    conn.writer.push_with(Tag::SnapshotEnd, |_| Ok(()))?;
    loop {
        let frame = exchange(conn, chunk_timeout).await?;
        match frame.tag {
            Tag::SnapshotBusy => {}
            Tag::SnapshotDone => {
                let done: SnapshotDone = decode_whole(frame.tag, frame.body)?;
                return Ok(done.vote.into());
            }
            _ => return Err(unexpected(frame)),
        }
    }
}

async fn read_chunk<S: SnapshotSource>(
    source: &Arc<S>,
    offset: u64,
    bytes: u64,
) -> Result<Vec<u8>, SendError> {
    let source = Arc::clone(source);
    let length = (bytes - offset).min(SNAPSHOT_CHUNK_BYTES as u64);
    blocking(move || {
        let mut chunk = vec![0; usize::try_from(length).expect("at most one chunk")];
        source.read_at(offset, &mut chunk)?;
        Ok(chunk)
    })
    .await
    .map_err(SendError::Read)
}

async fn exchange(conn: &mut Conn, chunk_timeout: Duration) -> Result<Frame, SendError> {
    let turn = async {
        conn.writer.drive().await?;
        conn.reader.expect().await
    };
    Ok(timeout(chunk_timeout, turn)
        .await
        .map_err(|_| SendError::Timeout(chunk_timeout))??)
}

fn position(frame: Frame, offset_max: u64) -> Result<u64, SendError> {
    if frame.tag != Tag::SnapshotAt {
        return Err(unexpected(frame));
    }
    let at: SnapshotAt = decode_whole(frame.tag, frame.body)?;
    if at.offset > offset_max {
        return Err(SendError::Refused(format!(
            "it claims to hold {} of {offset_max} bytes",
            at.offset
        )));
    }
    Ok(at.offset)
}

fn unexpected(frame: Frame) -> SendError {
    match frame.tag {
        Tag::SnapshotFailed => match decode_whole::<SnapshotFailed>(frame.tag, frame.body) {
            Ok(failed) => SendError::Refused(failed.reason),
            Err(error) => error.into(),
        },
        other => FrameError::Unexpected(other).into(),
    }
}

/// Takes snapshots from one connection, one after another.
pub(super) async fn receive<R: RaftDoor>(
    conn: &mut Conn,
    raft: &R,
    turn: &Turn,
    idle: Duration,
) -> Result<(), FrameError> {
    loop {
        let Some(frame) = next_within(conn, idle).await? else {
            return Ok(());
        };
        match frame.tag {
            Tag::SnapshotBegin => {}
            // On their way when the transfer was refused.
            Tag::SnapshotChunk | Tag::SnapshotEnd => continue,
            other => return Err(FrameError::Unexpected(other)),
        }
        let begin: SnapshotBegin = decode_whole(frame.tag, frame.body)?;
        match take_one(conn, raft, turn, idle, begin).await {
            Ok(vote) => conn.writer.push(
                Tag::SnapshotDone,
                &SnapshotDone {
                    vote: (&vote).into(),
                },
            )?,
            Err(NotTaken::Connection(error)) => return Err(error),
            Err(NotTaken::Here(reason)) => {
                tracing::warn!(%reason, "snapshot not taken");
                conn.writer
                    .push(Tag::SnapshotFailed, &SnapshotFailed { reason })?;
            }
        }
        conn.writer.drive().await?;
    }
}

enum NotTaken {
    Connection(FrameError),
    /// Told to the sender, which comes again.
    Here(String),
}

impl From<FrameError> for NotTaken {
    fn from(error: FrameError) -> NotTaken {
        NotTaken::Connection(error)
    }
}

fn here(error: impl std::fmt::Display) -> NotTaken {
    NotTaken::Here(error.to_string())
}

async fn take_one<R: RaftDoor>(
    conn: &mut Conn,
    raft: &R,
    turn: &Turn,
    idle: Duration,
    begin: SnapshotBegin,
) -> Result<Vote, NotTaken> {
    let last_membership =
        wire::stored_membership(begin.membership_log_id, begin.membership).map_err(here)?;
    let meta = SnapshotMeta {
        last_log_id: wire::log_id_in(begin.last),
        last_membership,
    };
    let arriving = Arriving::begin(raft.sink(), turn, begin.id, begin.bytes)
        .await
        .map_err(here)?;
    let arrived = take_chunks(conn, arriving, idle).await?;
    let data = say_busy_until(conn, arrived.finish())
        .await?
        .map_err(here)?;
    let answer = say_busy_until(conn, raft.install(begin.vote.into(), meta, data))
        .await?
        .map_err(here)?;
    Ok(answer.vote)
}

async fn take_chunks<K: SnapshotSink>(
    conn: &mut Conn,
    mut arriving: Arriving<K>,
    idle: Duration,
) -> Result<Arriving<K>, NotTaken> {
    loop {
        conn.writer.push(
            Tag::SnapshotAt,
            &SnapshotAt {
                offset: arriving.received(),
            },
        )?;
        conn.writer.drive().await.map_err(FrameError::from)?;
        let mut frame = next_within(conn, idle).await?.ok_or(FrameError::Half)?;
        match frame.tag {
            Tag::SnapshotEnd => return Ok(arriving),
            Tag::SnapshotChunk => {
                let at: SnapshotAt = decode(frame.tag, &mut frame.body)?;
                arriving = arriving.write(at.offset, frame.body).await.map_err(here)?;
            }
            other => return Err(FrameError::Unexpected(other).into()),
        }
    }
}

async fn next_within(conn: &mut Conn, idle: Duration) -> Result<Option<Frame>, FrameError> {
    timeout(idle, conn.reader.next())
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

async fn say_busy_until<T>(
    conn: &mut Conn,
    work: impl Future<Output = T>,
) -> Result<T, FrameError> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            outcome = &mut work => return Ok(outcome),
            () = tokio::time::sleep(BUSY_EVERY) => {
                conn.writer.push_with(Tag::SnapshotBusy, |_: &mut BytesMut| Ok(()))?;
                conn.writer.drive().await?;
            }
        }
    }
}
