//! One frame: one write, one fdatasync.
//!
//! ```text
//! header: layout u8 | flags u8 | body bytes u32 | entries u32 | checksum of the frame before u32 |
//!         oldest segment generation in use u32 | synced_to | vote | committed | purged | truncate_to
//! body:   entries, each head and payload as in `codec`
//! ```
//! What the header says happens before the entries: first the truncation, then the purge. Vote, committed
//! and purged are the newest values, so the last good frame alone tells them.

use bytes::{Buf, BufMut, Bytes};

use super::sector::{FrameCursor, SECTOR_BYTES, Sector, classify, frame_checksum, sectors_for};
use crate::storage::codec::{
    CodecError, ENTRY_HEAD_BYTES, EntryHead, get_log_id, get_vote, put_log_id, put_vote,
};
use crate::storage::types::{Entry, LogId, Vote};

pub const HEADER_BYTES: usize = 103;
const LAYOUT: u8 = 1;
const FLAG_TRUNCATE: u8 = 1;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    pub body_bytes: u32,
    pub entries: u32,
    pub previous_checksum: u32,
    /// The oldest segment that must still be there.
    pub oldest: u32,
    /// The last log id known to be fsynced when this frame was written.
    pub synced_to: Option<LogId>,
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    /// Entries behind this one go; `Some(None)`: all.
    pub truncate: Option<Option<LogId>>,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut out = &mut bytes[..];
        out.put_u8(LAYOUT);
        out.put_u8(if self.truncate.is_some() {
            FLAG_TRUNCATE
        } else {
            0
        });
        out.put_u32_le(self.body_bytes);
        out.put_u32_le(self.entries);
        out.put_u32_le(self.previous_checksum);
        out.put_u32_le(self.oldest);
        put_log_id(self.synced_to.as_ref(), &mut out);
        put_vote(self.vote.as_ref(), &mut out);
        put_log_id(self.committed.as_ref(), &mut out);
        put_log_id(self.purged.as_ref(), &mut out);
        put_log_id(self.truncate.flatten().as_ref(), &mut out);
        bytes
    }

    pub fn decode(mut from: &[u8]) -> Result<Header, CodecError> {
        if from.len() < HEADER_BYTES {
            return Err(CodecError::Short {
                what: "frame header",
            });
        }
        let (layout, flags) = (from.get_u8(), from.get_u8());
        if layout != LAYOUT || flags > FLAG_TRUNCATE {
            return Err(CodecError::Unknown {
                what: "frame header",
                tag: layout,
            });
        }
        let from = &mut from;
        Ok(Header {
            body_bytes: from.get_u32_le(),
            entries: from.get_u32_le(),
            previous_checksum: from.get_u32_le(),
            oldest: from.get_u32_le(),
            synced_to: get_log_id(from)?,
            vote: get_vote(from)?,
            committed: get_log_id(from)?,
            purged: get_log_id(from)?,
            truncate: {
                let to = get_log_id(from)?;
                (flags & FLAG_TRUNCATE != 0).then_some(to)
            },
        })
    }

    pub fn sectors(&self) -> usize {
        sectors_for(HEADER_BYTES + self.body_bytes as usize)
    }

    /// Carries `synced_to` and nothing that a caller waits for.
    pub fn is_empty(&self) -> bool {
        self.entries == 0 && self.truncate.is_none()
    }
}

/// What stands where a frame should begin.
#[derive(Debug)]
pub enum Found {
    /// All sectors are good; the chain is the caller's to check.
    Frame {
        header: Header,
        checksum: u32,
    },
    /// Nothing, or a frame of which sectors are missing.
    Gap,
    Damage(String),
}

/// Sectors of the frame that begins with this first sector, as far as it can be told.
pub fn sectors_at(first: &[u8], salt: u32) -> usize {
    match classify(first, salt) {
        Sector::Good { number: 0, .. } => {
            Header::decode(first).map_or(1, |header| header.sectors())
        }
        _ => 1,
    }
}

/// Checks the frame that lies at the start of `sectors`, which holds as many as `sectors_at` told.
pub fn check(sectors: &[u8], salt: u32, generation: u32, sequence: u64) -> Found {
    for (number, sector) in sectors.chunks_exact(SECTOR_BYTES).enumerate() {
        let expected = Sector::Good {
            generation,
            sequence,
            number: number as u32,
        };
        match classify(sector, salt) {
            Sector::Zero => return Found::Gap,
            Sector::Bad => {
                return Found::Damage(format!(
                    "sector {number} of frame {sequence} does not match its checksum"
                ));
            }
            found if found != expected => {
                return Found::Damage(format!("expected {expected:?}, found {found:?}"));
            }
            _ => {}
        }
    }
    let header = match Header::decode(sectors) {
        Ok(header) => header,
        Err(e) => return Found::Damage(format!("frame {sequence}: {e}")),
    };
    if header.sectors() * SECTOR_BYTES != sectors.len() {
        return Found::Damage(format!("frame {sequence} is longer than its segment"));
    }
    match heads(&header, sectors).find_map(Result::err) {
        Some(e) => Found::Damage(format!("frame {sequence}: {e}")),
        None => Found::Frame {
            header,
            checksum: frame_checksum(sectors),
        },
    }
}

struct Heads<'a> {
    cursor: FrameCursor<'a>,
    left: usize,
}

/// The heads of a frame's entries.
pub fn heads<'a>(
    header: &Header,
    sectors: &'a [u8],
) -> impl Iterator<Item = Result<EntryHead, CodecError>> + 'a {
    Heads {
        cursor: FrameCursor::new(sectors, HEADER_BYTES),
        left: header.entries as usize,
    }
}

impl Iterator for Heads<'_> {
    type Item = Result<EntryHead, CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let head = read_head(&mut self.cursor);
        if let Ok(head) = &head {
            self.cursor.skip(head.body_bytes);
        }
        Some(head)
    }
}

fn read_head(cursor: &mut FrameCursor<'_>) -> Result<EntryHead, CodecError> {
    let short = CodecError::Short { what: "frame" };
    if cursor.left() < ENTRY_HEAD_BYTES {
        return Err(short);
    }
    let mut bytes = [0; ENTRY_HEAD_BYTES];
    cursor.read(&mut bytes);
    let head = EntryHead::decode(&bytes[..])?;
    if cursor.left() < head.body_bytes {
        Err(short)
    } else {
        Ok(head)
    }
}

/// Adds the entries of a checked frame whose index is in `[start, end)`, until `bytes_left` is used up;
/// one entry is taken even if it is larger.
pub fn take_entries(
    header: &Header,
    sectors: &[u8],
    range: std::ops::Range<u64>,
    bytes_left: &mut usize,
    into: &mut Vec<Entry>,
) -> Result<(), CodecError> {
    let mut cursor = FrameCursor::new(sectors, HEADER_BYTES);
    for _ in 0..header.entries {
        let head = read_head(&mut cursor)?;
        if !range.contains(&head.log_id.index) {
            cursor.skip(head.body_bytes);
            continue;
        }
        if !into.is_empty() && head.body_bytes > *bytes_left {
            *bytes_left = 0;
            return Ok(());
        }
        let mut body = vec![0; head.body_bytes];
        cursor.read(&mut body);
        *bytes_left = bytes_left.saturating_sub(ENTRY_HEAD_BYTES + body.len());
        into.push(head.entry(Bytes::from(body))?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sector::FrameBuffer;
    use super::*;
    use crate::storage::codec::{entry_parts, log_id};
    use crate::storage::types::EntryBytes;
    use openraft::EntryPayload;

    fn header() -> Header {
        Header {
            body_bytes: 24,
            entries: 1,
            previous_checksum: 0x01020304,
            oldest: 2,
            synced_to: Some(log_id(1, 6)),
            vote: Some(Vote::new_committed(1, 3)),
            committed: Some(log_id(1, 5)),
            purged: None,
            truncate: Some(Some(log_id(1, 6))),
        }
    }

    #[test]
    fn a_header_keeps_its_golden_bytes() {
        let golden = concat!(
            "0101",
            "18000000",
            "01000000",
            "04030201",
            "02000000",
            "0101000000000000000600000000000000",
            "0201000000000000000300000000000000",
            "0101000000000000000500000000000000",
            "0000000000000000000000000000000000",
            "0101000000000000000600000000000000",
        );
        let bytes = header().encode();
        assert_eq!(
            bytes.iter().map(|b| format!("{b:02x}")).collect::<String>(),
            golden
        );
        assert_eq!(Header::decode(&bytes).unwrap(), header());
    }

    #[test]
    fn a_sealed_frame_keeps_its_golden_checksum() {
        let entry = Entry {
            log_id: log_id(1, 7),
            payload: EntryPayload::Normal(EntryBytes(Bytes::from_static(b"abc"))),
        };
        let (head, body) = entry_parts(&entry);
        let mut buffer = FrameBuffer::default();
        buffer.clear(HEADER_BYTES);
        buffer.put(&head);
        buffer.put(&body);
        let (sectors, sum) = buffer.seal(&header().encode(), 77, 4, 9);
        assert_eq!(sectors.len(), SECTOR_BYTES);
        let mut entries = Vec::new();
        let Found::Frame {
            header: found,
            checksum,
        } = check(sectors, 77, 4, 9)
        else {
            panic!("not good")
        };
        take_entries(&found, sectors, 0..100, &mut 1000, &mut entries).unwrap();
        assert_eq!((found, checksum, entries), (header(), sum, vec![entry]));
        assert_eq!(sum, GOLDEN_CHECKSUM, "{sum:#x}");
        assert!(
            matches!(check(sectors, 78, 4, 9), Found::Damage(_)),
            "another volume's salt"
        );
    }

    const GOLDEN_CHECKSUM: u32 = 0x378c_0a29;
}
