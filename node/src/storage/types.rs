//! The types openraft is built with. An entry's data is the encoded `task::command::Entry`: the leader
//! encodes it once, the log and the peers carry the bytes, and each member decodes it in apply.

use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_std;

use crate::task::command::Outcome;

openraft::declare_raft_types!(
    /// Standard Raft: one leader a term, ids of u64.
    pub TypeConfig:
        D = EntryBytes,
        R = Outcomes,
        NodeId = u64,
        Node = MemberName,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
);

/// An encoded `task::command::Entry`.
#[derive(Clone, PartialEq, Eq)]
pub struct EntryBytes(pub Bytes);

impl fmt::Debug for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry of {} bytes", self.0.len())
    }
}

impl fmt::Display for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What apply answered, one outcome a command; empty for entries of Raft's own.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcomes(pub Vec<Outcome>);

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} outcomes", self.0.len())
    }
}

/// The stable DNS name of a member, never an IP address: openraft never overwrites it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberName(pub String);

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub type Vote = openraft::impls::Vote<leader_id_std::LeaderId<u64, u64>>;
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub type Membership = openraft::Membership<u64, MemberName>;

/// The leader's clock in an entry of commands; Raft's own entries have none.
pub fn wall_time_ms_of(entry: &Entry) -> std::io::Result<Option<u64>> {
    let openraft::EntryPayload::Normal(bytes) = &entry.payload else {
        return Ok(None);
    };
    let clocks = crate::task::command::Entry::clocks(&bytes.0);
    let (_, wall_time_ms) = clocks
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string()))?;
    Ok(Some(wall_time_ms))
}
