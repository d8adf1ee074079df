//! Append requests as frames: a head, then each entry as a head and its bytes, which are never decoded
//! here and on arrival stay slices of the frame.

use bytes::{BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult,
};

use super::frame::{FrameError, Tag, decode, decode_whole, encode};
use super::wire::{
    AppendHead, AppendOutcome, EntryHead, EntryKind, Membership, log_id_in, log_id_out,
};
use crate::storage::types::{Entry, EntryBytes, LogId, TypeConfig};

pub fn put_append(
    session: u64,
    request: &AppendEntriesRequest<TypeConfig>,
    buffer: &mut BytesMut,
) -> Result<(), FrameError> {
    let head = AppendHead {
        session,
        vote: (&request.vote).into(),
        prev: log_id_out(request.prev_log_id.as_ref()),
        leader_commit: log_id_out(request.leader_commit.as_ref()),
        entries: length(request.entries.len())?,
    };
    encode(Tag::Append, &head, buffer)?;
    let payloads: usize = request.entries.iter().map(entry_bytes).sum();
    buffer.reserve(payloads);
    request
        .entries
        .iter()
        .try_for_each(|entry| put_entry(entry, buffer))
}

fn entry_bytes(entry: &Entry) -> usize {
    const HEAD_BYTES: usize = 32;
    match &entry.payload {
        EntryPayload::Normal(data) => HEAD_BYTES + data.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => HEAD_BYTES,
    }
}

fn put_entry(entry: &Entry, buffer: &mut BytesMut) -> Result<(), FrameError> {
    let membership;
    let content: &[u8] = match &entry.payload {
        EntryPayload::Blank => &[],
        EntryPayload::Normal(data) => &data.0,
        EntryPayload::Membership(m) => {
            membership =
                postcard::to_stdvec(&Membership::from(m)).map_err(|e| malformed(e.to_string()))?;
            &membership
        }
    };
    let head = EntryHead {
        log_id: (&entry.log_id).into(),
        kind: EntryKind::of(&entry.payload),
        bytes: length(content.len())?,
    };
    encode(Tag::Append, &head, buffer)?;
    buffer.put_slice(content);
    Ok(())
}

pub fn read_append(mut body: Bytes) -> Result<(u64, AppendEntriesRequest<TypeConfig>), FrameError> {
    let head: AppendHead = decode(Tag::Append, &mut body)?;
    // The count is the peer's word; an entry takes at least 4 bytes, so this allocates no more than the
    // frame itself did.
    let mut entries = Vec::with_capacity((head.entries as usize).min(body.len() / 4));
    for _ in 0..head.entries {
        entries.push(read_entry(&mut body)?);
    }
    if !body.is_empty() {
        return Err(malformed(format!(
            "{} bytes behind the last entry",
            body.len()
        )));
    }
    let request = AppendEntriesRequest {
        vote: head.vote.into(),
        prev_log_id: log_id_in(head.prev),
        leader_commit: log_id_in(head.leader_commit),
        entries,
    };
    consecutive(&request)?;
    Ok((head.session, request))
}

fn read_entry(body: &mut Bytes) -> Result<Entry, FrameError> {
    let head: EntryHead = decode(Tag::Append, body)?;
    let bytes = head.bytes as usize;
    if bytes > body.len() {
        return Err(malformed(format!(
            "an entry of {bytes} bytes in a frame that has {} left",
            body.len()
        )));
    }
    let content = body.split_to(bytes);
    let payload = match head.kind {
        EntryKind::Blank => EntryPayload::Blank,
        EntryKind::Normal => EntryPayload::Normal(EntryBytes(content)),
        EntryKind::Membership => {
            let membership: Membership = decode_whole(Tag::Append, content)?;
            EntryPayload::Membership(
                membership
                    .try_into()
                    .map_err(|e| malformed(format!("{e}")))?,
            )
        }
    };
    Ok(Entry {
        log_id: head.log_id.into(),
        payload,
    })
}

/// openraft trusts its caller with this.
fn consecutive(request: &AppendEntriesRequest<TypeConfig>) -> Result<(), FrameError> {
    let first = request
        .prev_log_id
        .as_ref()
        .map_or(0, |prev| prev.index.saturating_add(1));
    match (first..)
        .zip(&request.entries)
        .find(|(index, entry)| entry.log_id.index != *index)
    {
        Some((index, entry)) => Err(malformed(format!(
            "entry {} where {index} belongs",
            entry.log_id.index
        ))),
        None => Ok(()),
    }
}

fn length(count: usize) -> Result<u32, FrameError> {
    u32::try_from(count).map_err(|_| malformed(format!("{count} do not fit")))
}

fn malformed(reason: String) -> FrameError {
    FrameError::Malformed {
        tag: Tag::Append,
        reason,
    }
}

/// What the request would have matched: its last entry, or the one before it.
pub fn last_of(request: &AppendEntriesRequest<TypeConfig>) -> Option<LogId> {
    request
        .entries
        .last()
        .map(|entry| entry.log_id)
        .or(request.prev_log_id)
}

/// `prev` and `last` are those of the request that was answered.
pub fn outcome_out(
    answer: AppendEntriesResponse<TypeConfig>,
    prev: Option<LogId>,
    last: Option<LogId>,
) -> AppendOutcome {
    match answer {
        AppendEntriesResponse::Success => AppendOutcome::Matched(log_id_out(last.as_ref())),
        AppendEntriesResponse::PartialSuccess(matched) => {
            AppendOutcome::Matched(log_id_out(matched.as_ref()))
        }
        AppendEntriesResponse::HigherVote(vote) => AppendOutcome::HigherVote((&vote).into()),
        AppendEntriesResponse::Conflict => match prev {
            Some(prev) => AppendOutcome::Conflict((&prev).into()),
            // Nothing can conflict with the start of the log.
            None => AppendOutcome::Matched(None),
        },
    }
}

pub fn outcome_in(outcome: AppendOutcome) -> StreamAppendResult<TypeConfig> {
    match outcome {
        AppendOutcome::Matched(last) => Ok(log_id_in(last)),
        AppendOutcome::Conflict(at) => Err(StreamAppendError::Conflict(at.into())),
        AppendOutcome::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote.into())),
    }
}
