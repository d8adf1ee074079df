//! The bytes of one segment. Numbers are little-endian, the hash is BLAKE3.
//!
//! ```text
//! magic 8 | format u32 | head length u32 | head (postcard) | entries (storage codec) | hash of all of it
//! ```

use bytes::{Buf, BufMut, Bytes};
use serde::{Deserialize, Serialize};

use crate::backup::error::Error;
use crate::backup::layout::Lineage;
use crate::limits::{BACKUP_SEGMENT_BYTES_MAX, BACKUP_SEGMENT_HEAD_BYTES_MAX};
use crate::storage::codec::{self, ENTRY_HEAD_BYTES, EntryHead};
use crate::storage::snapshot::{Position, SnapshotIdentity};
use crate::storage::store::position;
use crate::storage::types::Entry;

const MAGIC: [u8; 8] = *b"TSKLOGS\n";
pub const FORMAT: u32 = 1;
const HASH_BYTES: usize = 32;

pub type Hash = [u8; HASH_BYTES];

/// Fields are only ever appended, with a new format number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub identity: SnapshotIdentity,
    /// The hash of the segment before; none where a chain starts behind a backup.
    pub previous: Option<Hash>,
    /// The entry before the first one.
    pub after: Position,
    pub last: Position,
    pub entries: u64,
    /// The highest wall time of this segment's entries and all before, as far as the shipper knew.
    pub wall_time_ms: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    pub head: Head,
    pub entries: Vec<Entry>,
    /// Of the whole file: what the next one names.
    pub hash: Hash,
}

/// A segment ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    pub bytes: Bytes,
    pub hash: Hash,
}

impl Head {
    pub fn first_index(&self) -> u64 {
        self.after.index + 1
    }
}

pub fn encode(head: &Head, entries: &[Entry]) -> Encoded {
    let head = postcard::to_stdvec(head).expect("a head is plain values and a Vec grows");
    let mut out = Vec::new();
    out.put_slice(&MAGIC);
    out.put_u32_le(FORMAT);
    out.put_u32_le(head.len() as u32);
    out.put_slice(&head);
    entries
        .iter()
        .for_each(|entry| codec::put_entry(entry, &mut out));
    let hash = *blake3::hash(&out).as_bytes();
    out.put_slice(&hash);
    Encoded {
        bytes: out.into(),
        hash,
    }
}

/// Believes nothing. `object` is the segment's full name, for the error.
pub fn decode(
    bytes: &Bytes,
    object: &str,
    lineage: &Lineage,
    first_index: u64,
) -> Result<Segment, Error> {
    let damaged = |reason: &str| Error::damaged(object, reason);
    if bytes.len() > BACKUP_SEGMENT_BYTES_MAX {
        return Err(damaged("it is too long"));
    }
    let content_bytes = bytes
        .len()
        .checked_sub(HASH_BYTES)
        .filter(|content| *content >= 16)
        .ok_or_else(|| damaged("it ends early"))?;
    let (mut from, written) = (bytes.slice(..content_bytes), bytes.slice(content_bytes..));
    let hash = *blake3::hash(&from).as_bytes();
    if hash[..] != written[..] {
        return Err(damaged("it does not have its hash"));
    }
    if from.split_to(8)[..] != MAGIC {
        return Err(damaged("it is no segment"));
    }
    let format = from.get_u32_le();
    if format != FORMAT {
        return Err(Error::Newer {
            object: object.into(),
            found: format,
            known: FORMAT,
        });
    }
    let head_bytes = from.get_u32_le() as usize;
    if head_bytes > BACKUP_SEGMENT_HEAD_BYTES_MAX.min(from.len()) {
        return Err(damaged("its head is too long"));
    }
    let head: Head = postcard::from_bytes(&from.split_to(head_bytes))
        .map_err(|error| damaged(&format!("its head: {error}")))?;
    if head.identity != lineage.identity() {
        return Err(Error::Foreign {
            object: object.into(),
            found: format!(
                "cluster {} incarnation {}",
                head.identity.cluster_id, head.identity.incarnation
            ),
            expected: lineage.to_string(),
        });
    }
    if head.first_index() != first_index {
        let reason = format!("it is the segment from entry {}", head.first_index());
        return Err(damaged(&reason));
    }
    let entries = decode_entries(from, &head).map_err(|reason| damaged(&reason))?;
    Ok(Segment {
        head,
        entries,
        hash,
    })
}

/// Without gaps, from the first index to the last, terms never falling.
fn decode_entries(mut from: Bytes, head: &Head) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    let mut before = head.after;
    while !from.is_empty() {
        let of = EntryHead::decode(&from[..]).map_err(|error| error.to_string())?;
        from.advance(ENTRY_HEAD_BYTES);
        if of.body_bytes > from.len() {
            return Err("its last entry ends early".into());
        }
        let entry = of
            .entry(from.split_to(of.body_bytes))
            .map_err(|error| error.to_string())?;
        let at = position(entry.log_id);
        if at.index != before.index + 1 || at.term < before.term {
            return Err(format!("entry {at:?} stands behind {before:?}"));
        }
        before = at;
        entries.push(entry);
    }
    let (found, named) = (entries.len() as u64, head.entries);
    match before == head.last && found == named && found > 0 {
        true => Ok(entries),
        false => Err(format!(
            "it has {found} entries up to {before:?}, its head names {named} up to {:?}",
            head.last
        )),
    }
}
