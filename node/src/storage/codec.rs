//! The bytes of Raft's own values, on disk and between members.
//!
//! openraft's types change with its releases, so none of them is serialized by a derive. Every encoding
//! starts with a tag that names its layout: a changed layout gets a new tag, and an unknown tag is an
//! error, never skipped. Numbers are little-endian. The tests hold golden bytes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes};
use openraft::EntryPayload;

use super::types::{Entry, EntryBytes, LogId, MemberName, Membership, StoredMembership, Vote};

/// Bytes of an encoded optional log id: tag, term, index.
pub const LOG_ID_BYTES: usize = 17;
/// Bytes of an encoded optional vote: tag, term, voted for.
pub const VOTE_BYTES: usize = 17;
/// Bytes in front of every entry's payload: kind, term, index, payload length.
pub const ENTRY_HEAD_BYTES: usize = 21;

const KIND_BLANK: u8 = 1;
const KIND_NORMAL: u8 = 2;
const KIND_MEMBERSHIP: u8 = 3;
const MEMBERSHIP_LAYOUT: u8 = 1;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("{what} ends early")]
    Short { what: &'static str },
    #[error("{what} has the unknown layout {tag}")]
    Unknown { what: &'static str, tag: u8 },
    #[error("{what} is not valid: {reason}")]
    Invalid { what: &'static str, reason: String },
}

fn need(from: &impl Buf, bytes: usize, what: &'static str) -> Result<(), CodecError> {
    if from.remaining() < bytes {
        Err(CodecError::Short { what })
    } else {
        Ok(())
    }
}

pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(term.into(), index)
}

pub fn put_log_id(id: Option<&LogId>, out: &mut impl BufMut) {
    out.put_u8(u8::from(id.is_some()));
    out.put_u64_le(id.map_or(0, |id| id.leader_id.term));
    out.put_u64_le(id.map_or(0, |id| id.index));
}

pub fn get_log_id(from: &mut impl Buf) -> Result<Option<LogId>, CodecError> {
    need(from, LOG_ID_BYTES, "log id")?;
    let (tag, term, index) = (from.get_u8(), from.get_u64_le(), from.get_u64_le());
    match tag {
        0 => Ok(None),
        1 => Ok(Some(log_id(term, index))),
        tag => Err(CodecError::Unknown {
            what: "log id",
            tag,
        }),
    }
}

pub fn put_vote(vote: Option<&Vote>, out: &mut impl BufMut) {
    out.put_u8(vote.map_or(0, |vote| 1 + u8::from(vote.committed)));
    out.put_u64_le(vote.map_or(0, |vote| vote.leader_id.term));
    out.put_u64_le(vote.map_or(0, |vote| vote.leader_id.voted_for));
}

pub fn get_vote(from: &mut impl Buf) -> Result<Option<Vote>, CodecError> {
    need(from, VOTE_BYTES, "vote")?;
    let (tag, term, voted_for) = (from.get_u8(), from.get_u64_le(), from.get_u64_le());
    match tag {
        0 => Ok(None),
        1 => Ok(Some(Vote::new(term, voted_for))),
        2 => Ok(Some(Vote::new_committed(term, voted_for))),
        tag => Err(CodecError::Unknown { what: "vote", tag }),
    }
}

pub fn put_membership(membership: &Membership, out: &mut impl BufMut) {
    out.put_u8(MEMBERSHIP_LAYOUT);
    let configs = membership.get_joint_config();
    out.put_u8(u8::try_from(configs.len()).expect("openraft joins two configurations at most"));
    for config in configs {
        put_count(config.len(), out);
        config.iter().for_each(|id| out.put_u64_le(*id));
    }
    put_count(membership.nodes().count(), out);
    for (id, name) in membership.nodes() {
        out.put_u64_le(*id);
        put_count(name.0.len(), out);
        out.put_slice(name.0.as_bytes());
    }
}

fn put_count(count: usize, out: &mut impl BufMut) {
    out.put_u16_le(u16::try_from(count).expect("members and the length of a DNS name fit 16 bits"));
}

pub fn get_membership(from: &mut impl Buf) -> Result<Membership, CodecError> {
    const WHAT: &str = "membership";
    let invalid = |reason: String| CodecError::Invalid { what: WHAT, reason };
    need(from, 2, WHAT)?;
    let tag = from.get_u8();
    if tag != MEMBERSHIP_LAYOUT {
        return Err(CodecError::Unknown { what: WHAT, tag });
    }
    let mut configs = Vec::new();
    for _ in 0..from.get_u8() {
        need(from, 2, WHAT)?;
        let voters = usize::from(from.get_u16_le());
        need(from, voters * 8, WHAT)?;
        configs.push(
            (0..voters)
                .map(|_| from.get_u64_le())
                .collect::<BTreeSet<u64>>(),
        );
    }
    need(from, 2, WHAT)?;
    let mut nodes = BTreeMap::new();
    for _ in 0..from.get_u16_le() {
        need(from, 10, WHAT)?;
        let id = from.get_u64_le();
        let bytes = usize::from(from.get_u16_le());
        need(from, bytes, WHAT)?;
        let name = String::from_utf8(from.copy_to_bytes(bytes).into())
            .map_err(|e| invalid(e.to_string()))?;
        nodes.insert(id, MemberName(name));
    }
    Membership::new(configs, nodes).map_err(|e| invalid(e.to_string()))
}

pub fn put_stored_membership(stored: &StoredMembership, out: &mut impl BufMut) {
    put_log_id(stored.log_id().as_ref(), out);
    put_membership(stored.membership(), out);
}

pub fn get_stored_membership(from: &mut impl Buf) -> Result<StoredMembership, CodecError> {
    Ok(StoredMembership::new(
        get_log_id(from)?,
        get_membership(from)?,
    ))
}

/// What stands in front of an entry's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryHead {
    kind: u8,
    pub log_id: LogId,
    pub body_bytes: usize,
}

impl EntryHead {
    pub fn decode(mut from: impl Buf) -> Result<EntryHead, CodecError> {
        need(&from, ENTRY_HEAD_BYTES, "entry")?;
        let kind = from.get_u8();
        let log_id = log_id(from.get_u64_le(), from.get_u64_le());
        let body_bytes = from.get_u32_le() as usize;
        if !(KIND_BLANK..=KIND_MEMBERSHIP).contains(&kind) {
            return Err(CodecError::Unknown {
                what: "entry",
                tag: kind,
            });
        }
        Ok(EntryHead {
            kind,
            log_id,
            body_bytes,
        })
    }

    pub fn entry(&self, mut body: Bytes) -> Result<Entry, CodecError> {
        let payload = match self.kind {
            KIND_NORMAL => EntryPayload::Normal(EntryBytes(body)),
            KIND_MEMBERSHIP => EntryPayload::Membership(get_membership(&mut body)?),
            _ => EntryPayload::Blank,
        };
        Ok(Entry {
            log_id: self.log_id,
            payload,
        })
    }
}

/// An entry's head and payload; a command's bytes are shared, never copied or encoded again.
pub fn entry_parts(entry: &Entry) -> ([u8; ENTRY_HEAD_BYTES], Bytes) {
    let (kind, body) = match &entry.payload {
        EntryPayload::Blank => (KIND_BLANK, Bytes::new()),
        EntryPayload::Normal(bytes) => (KIND_NORMAL, bytes.0.clone()),
        EntryPayload::Membership(membership) => {
            let mut out = Vec::new();
            put_membership(membership, &mut out);
            (KIND_MEMBERSHIP, out.into())
        }
    };
    let mut head = [0; ENTRY_HEAD_BYTES];
    let mut out = &mut head[..];
    out.put_u8(kind);
    out.put_u64_le(entry.log_id.leader_id.term);
    out.put_u64_le(entry.log_id.index);
    out.put_u32_le(u32::try_from(body.len()).expect("an entry is at most 4 MiB"));
    (head, body)
}

pub fn put_entry(entry: &Entry, out: &mut impl BufMut) {
    let (head, body) = entry_parts(entry);
    out.put_slice(&head);
    out.put_slice(&body);
}

/// Payloads share `from`'s memory.
pub fn get_entry(from: &mut Bytes) -> Result<Entry, CodecError> {
    let head = EntryHead::decode(&from[..])?;
    from.advance(ENTRY_HEAD_BYTES);
    need(from, head.body_bytes, "entry")?;
    head.entry(from.split_to(head.body_bytes))
}

/// Bytes of an encoded entry.
pub fn entry_bytes(entry: &Entry) -> usize {
    ENTRY_HEAD_BYTES
        + match &entry.payload {
            EntryPayload::Blank => 0,
            EntryPayload::Normal(bytes) => bytes.0.len(),
            EntryPayload::Membership(_) => entry_parts(entry).1.len(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn membership() -> Membership {
        let nodes = BTreeMap::from([
            (1, MemberName("a.b".into())),
            (2, MemberName("c".into())),
            (3, MemberName(String::new())),
        ]);
        Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2])], nodes).unwrap()
    }

    #[test]
    fn log_ids_and_votes_keep_their_golden_bytes() {
        let cases = [
            (None, "0000000000000000000000000000000000"),
            (Some(log_id(3, 258)), "0103000000000000000201000000000000"),
        ];
        for (id, golden) in cases {
            let mut out = Vec::new();
            put_log_id(id.as_ref(), &mut out);
            assert_eq!(hex(&out), golden);
            assert_eq!(get_log_id(&mut &out[..]).unwrap(), id);
        }
        let cases = [
            (None, "0000000000000000000000000000000000"),
            (Some(Vote::new(5, 7)), "0105000000000000000700000000000000"),
            (
                Some(Vote::new_committed(5, 7)),
                "0205000000000000000700000000000000",
            ),
        ];
        for (vote, golden) in cases {
            let mut out = Vec::new();
            put_vote(vote.as_ref(), &mut out);
            assert_eq!(hex(&out), golden);
            assert_eq!(get_vote(&mut &out[..]).unwrap(), vote);
        }
    }

    #[test]
    fn memberships_keep_their_golden_bytes() {
        let mut out = Vec::new();
        put_stored_membership(
            &StoredMembership::new(Some(log_id(1, 2)), membership()),
            &mut out,
        );
        let golden = concat!(
            "0101000000000000000200000000000000",
            "0102",
            "020001000000000000000200000000000000",
            "01000200000000000000",
            "0300",
            "01000000000000000300612e62",
            "0200000000000000010063",
            "03000000000000000000",
        );
        assert_eq!(hex(&out), golden);
        let back = get_stored_membership(&mut &out[..]).unwrap();
        assert_eq!(
            back,
            StoredMembership::new(Some(log_id(1, 2)), membership())
        );
        for end in 0..out.len() {
            assert!(
                get_stored_membership(&mut &out[..end]).is_err(),
                "cut at {end}"
            );
        }
        let empty = Membership::default();
        let mut out = Vec::new();
        put_membership(&empty, &mut out);
        assert_eq!(get_membership(&mut &out[..]).unwrap(), empty);
    }

    #[test]
    fn entries_keep_their_golden_bytes_and_share_their_payload() {
        let normal = EntryPayload::Normal(EntryBytes(Bytes::from_static(b"xyz")));
        let cases = [
            (
                EntryPayload::Blank,
                "01090000000000000004000000000000000000 0000",
            ),
            (normal, "02090000000000000004000000000000000300 000078797a"),
        ];
        for (payload, golden) in cases {
            let entry = Entry {
                log_id: log_id(9, 4),
                payload,
            };
            let mut out = Vec::new();
            put_entry(&entry, &mut out);
            assert_eq!(hex(&out), golden.replace(' ', ""));
            assert_eq!(out.len(), entry_bytes(&entry));
            assert_eq!(get_entry(&mut Bytes::from(out)).unwrap(), entry);
        }
        let entry = Entry {
            log_id: log_id(9, 4),
            payload: EntryPayload::Membership(membership()),
        };
        let mut out = Vec::new();
        put_entry(&entry, &mut out);
        let whole = Bytes::from(out);
        assert_eq!(get_entry(&mut whole.clone()).unwrap(), entry);
        for end in 0..whole.len() {
            assert!(get_entry(&mut whole.slice(..end)).is_err(), "cut at {end}");
        }
        assert!(
            get_entry(&mut Bytes::from(vec![9; 64])).is_err(),
            "an unknown kind is refused"
        );
    }
}
