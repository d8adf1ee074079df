//! The row that says what the others are. It is written in the same atomic batch as they are (I3), and the
//! image counts only if its rows hash to what the head says.

use std::io;

use crate::storage::snapshot::{Header, SnapshotIdentity};

use super::bad;

/// Of the head, the keys and the rows. Another number: the image is made anew.
const FORMAT: u32 = 1;
const HASH_BYTES: usize = 32;

/// `format u32 | header (postcard) | BLAKE3 of both`, numbers little-endian.
pub fn encode(header: &Header) -> io::Result<Vec<u8>> {
    let start = FORMAT.to_le_bytes().to_vec();
    let mut head = postcard::to_extend(header, start).map_err(io::Error::other)?;
    let hash = blake3::hash(&head);
    head.extend_from_slice(hash.as_bytes());
    Ok(head)
}

/// An error: the image is none of ours, or of another format.
pub fn decode(head: &[u8], identity: &SnapshotIdentity) -> io::Result<Header> {
    let (content, hash) = head
        .split_last_chunk::<HASH_BYTES>()
        .ok_or_else(|| bad("the head ends early"))?;
    if blake3::hash(content) != *hash {
        return Err(bad("the head does not have its hash"));
    }
    let (format, header) = content
        .split_first_chunk::<4>()
        .ok_or_else(|| bad("the head ends early"))?;
    let format = u32::from_le_bytes(*format);
    if format != FORMAT {
        return Err(bad(format!("image format {format}, known is {FORMAT}")));
    }
    let (header, rest): (Header, _) = postcard::take_from_bytes(header)
        .map_err(|error| bad(format!("the head cannot be read: {error}")))?;
    if !rest.is_empty() {
        return Err(bad("the head has bytes left over"));
    }
    header.check_identity(identity)?;
    Ok(header)
}
