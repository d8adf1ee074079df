//! The bytes of a snapshot file. Numbers are little-endian, hashes are BLAKE3.
//!
//! ```text
//! magic 8 | format u32 | length u32 | header (postcard) | hash of all of it
//! block:    length u32 > 0 | records (postcard, whole) | hash of (previous hash, records)
//! …
//! end:      0u32 | blocks u64 | records u64 | hash of (previous hash, both counts)
//! ```
//!
//! Each hash chains the one before, so the last one stands for the whole file and is its id.

use std::borrow::Cow;
use std::io;

use serde::{Deserialize, Serialize};

use super::bad;
use crate::task::id::Name;
use crate::task::queue::QueueRow;
use crate::task::row::TaskRow;
use crate::task::tables::Meta;

pub const MAGIC: [u8; 8] = *b"TSKSNAP\n";
pub const FORMAT: u32 = 1;
pub const HASH_BYTES: usize = 32;
/// A block is closed when it has reached this size; a record never spans two.
pub const BLOCK_BYTES: usize = 256 << 10;
/// One record more: a payload, a result and texts.
pub const BLOCK_BYTES_MAX: usize = 4 << 20;
/// A membership and the last reservations.
pub const HEADER_BYTES_MAX: usize = 1 << 20;

/// The store a snapshot belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotIdentity {
    pub cluster_id: String,
    pub incarnation: u16,
}

/// Of the last log entry in the snapshot. Later terms are newer.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    pub term: u64,
    pub index: u64,
}

/// Fields are only ever appended, with a new format number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub identity: SnapshotIdentity,
    pub position: Position,
    /// Encoded by the storage codec.
    pub membership: Vec<u8>,
    pub namespaces: u64,
    pub queues: u64,
    pub tasks: u64,
    pub payload_bytes: u64,
    pub state_hash: u128,
    pub meta: Meta,
}

/// Namespaces, then queues, then tasks, each by its number.
#[derive(Debug, Serialize, Deserialize)]
pub enum Record<'a> {
    Namespace {
        id: u32,
        name: Name,
    },
    Queue(Cow<'a, QueueRow>),
    Task {
        row: Cow<'a, TaskRow>,
        /// Stands last, so that it can be found in the file by where the record ends.
        #[serde(borrow)]
        payload: Option<&'a [u8]>,
    },
}

impl Header {
    pub fn check_identity(&self, expected: &SnapshotIdentity) -> io::Result<()> {
        if self.identity == *expected {
            return Ok(());
        }
        let SnapshotIdentity {
            cluster_id,
            incarnation,
        } = &self.identity;
        Err(bad(format!(
            "the snapshot belongs to cluster {cluster_id} incarnation {incarnation}, not to {} incarnation {}",
            expected.cluster_id, expected.incarnation
        )))
    }
}

pub fn chained(previous: &[u8; HASH_BYTES], bytes: &[u8]) -> [u8; HASH_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous);
    hasher.update(bytes);
    *hasher.finalize().as_bytes()
}

/// 128 bits of it name a file's content.
pub fn id_of(last_hash: &[u8; HASH_BYTES]) -> String {
    last_hash[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
