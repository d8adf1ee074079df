//! The manifest: what a backup is, where it came from and what its parts must be. Versioned JSON that says
//! its own checksum; it is read back only as the very bytes that were written.
//!
//! A reader refuses a higher `format` by name and believes nothing else of such a file. What a later format
//! adds (encryption, a log behind the snapshot) never changes what format 1 says.

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::layout::{BackupName, Lineage, part_name};
use crate::limits::{BACKUP_PART_BYTES, BACKUP_PARTS_MAX};
use crate::raft::transport::tls::sha256_hex;
use crate::raft::view::MembershipView;
use crate::storage::codec::{CodecError, get_stored_membership};
use crate::storage::snapshot::format::FORMAT as SNAPSHOT_FORMAT;
use crate::storage::snapshot::{Checked, Header, Position};

pub const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: u32,
    pub name: BackupName,
    pub lineage: Lineage,
    /// By the clock of the member that wrote it.
    pub created_at_ms: u64,
    pub created_by: Creator,
    /// Of the last log entry in it.
    pub log_id: LogId,
    /// The store's own clock at that entry: what came later by it is in the log behind.
    pub wall_time_ms: u64,
    /// The configuration in force at that entry.
    pub membership: Membership,
    /// What a member must know to load it.
    pub feature_level: u32,
    pub snapshot: Snapshot,
    pub counts: Counts,
    /// In order, without gaps.
    pub parts: Vec<Part>,
    /// The backup before this one, as far as whoever ordered it knew.
    pub previous: Option<ManifestRef>,
    /// SHA-256 of this file with an empty string here.
    pub checksum: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Creator {
    pub member_id: u64,
    pub version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogId {
    pub term: u64,
    pub index: u64,
}

impl From<LogId> for Position {
    fn from(LogId { term, index }: LogId) -> Position {
        Position { term, index }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    pub log_id: Option<LogId>,
    pub members: Vec<Member>,
    pub voters: Vec<u64>,
    /// The outgoing half of a joint configuration; empty when uniform.
    pub voters_outgoing: Vec<u64>,
    pub learners: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    pub id: u64,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    pub format: u32,
    /// The same id means the same bytes.
    pub id: String,
    pub bytes: u64,
    pub state_hash: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    pub namespaces: u64,
    pub queues: u64,
    pub tasks: u64,
    pub payload_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Within the backup's folder.
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

/// Names a manifest and its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestRef {
    pub name: BackupName,
    pub checksum: String,
}

/// All that is believed of a file before its format is known.
#[derive(Deserialize)]
struct Versioned {
    format: u32,
}

impl Manifest {
    /// With the checksum of what it says.
    pub fn sealed(mut self) -> Manifest {
        self.checksum = self.checksum();
        self
    }

    pub fn checksum(&self) -> String {
        let open = Manifest {
            checksum: String::new(),
            ..self.clone()
        };
        sha256_hex(&open.encode())
    }

    /// The file of a sealed one.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .expect("a manifest holds nothing that JSON cannot, and a Vec grows");
        bytes.push(b'\n');
        bytes
    }

    /// What stands under this name. `object` is its full name, for the error.
    pub fn decode(
        bytes: &[u8],
        object: &str,
        lineage: &Lineage,
        name: &BackupName,
    ) -> Result<Manifest, Error> {
        let damaged = |reason: String| Error::damaged(object, reason);
        let not_a_manifest =
            |error: serde_json::Error| damaged(format!("it is no manifest: {error}"));
        let Versioned { format } = serde_json::from_slice(bytes).map_err(not_a_manifest)?;
        if format > FORMAT {
            return Err(Error::Newer {
                object: object.into(),
                found: format,
                known: FORMAT,
            });
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(not_a_manifest)?;
        if manifest.encode() != bytes || manifest.checksum() != manifest.checksum {
            return Err(damaged("it does not have its checksum".into()));
        }
        if manifest.lineage != *lineage {
            return Err(Error::Foreign {
                object: object.into(),
                found: manifest.lineage.to_string(),
                expected: lineage.to_string(),
            });
        }
        if manifest.name != *name {
            return Err(damaged(format!(
                "it is the manifest of the backup {}",
                manifest.name
            )));
        }
        manifest.check_parts().map_err(damaged)?;
        Ok(manifest)
    }

    fn check_parts(&self) -> Result<(), String> {
        if self.parts.len() > BACKUP_PARTS_MAX {
            return Err(format!("it names {} parts", self.parts.len()));
        }
        let mut bytes = 0u64;
        for (number, part) in self.parts.iter().enumerate() {
            if part.name != part_name(&self.snapshot.id, number) {
                return Err(format!("its part {number} is named {:?}", part.name));
            }
            if part.bytes == 0 || part.bytes > BACKUP_PART_BYTES {
                return Err(format!("its part {number} has {} bytes", part.bytes));
            }
            bytes += part.bytes;
        }
        match bytes == self.snapshot.bytes {
            true => Ok(()),
            false => Err(format!(
                "its parts have {bytes} bytes, its snapshot {}",
                self.snapshot.bytes
            )),
        }
    }

    /// Whether these bytes, proven by themselves, are the snapshot that this manifest names.
    pub fn check_snapshot(&self, checked: &Checked) -> Result<(), String> {
        let identity = &checked.header.identity;
        if *identity != self.lineage.identity() {
            return Err(format!(
                "its parts belong to cluster {} incarnation {}",
                identity.cluster_id, identity.incarnation
            ));
        }
        let of_header = Described::of(&checked.header).map_err(|error| error.to_string())?;
        let of_manifest = Described {
            log_id: self.log_id,
            wall_time_ms: self.wall_time_ms,
            membership: self.membership.clone(),
            feature_level: self.feature_level,
            state_hash: self.snapshot.state_hash.clone(),
            counts: self.counts.clone(),
        };
        if of_header != of_manifest {
            return Err(format!(
                "it describes {of_manifest:?}, its parts are {of_header:?}"
            ));
        }
        match checked.id == self.snapshot.id && self.snapshot.format == SNAPSHOT_FORMAT {
            true => Ok(()),
            false => Err(format!(
                "it names snapshot {}, its parts are {}",
                self.snapshot.id, checked.id
            )),
        }
    }
}

/// What a snapshot's header says of its state.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Described {
    pub log_id: LogId,
    pub wall_time_ms: u64,
    pub membership: Membership,
    pub feature_level: u32,
    pub state_hash: String,
    pub counts: Counts,
}

impl Described {
    pub fn of(header: &Header) -> Result<Described, CodecError> {
        let stored = get_stored_membership(&mut &header.membership[..])?;
        let view = MembershipView::new(&stored, true);
        let members = view.members.into_iter();
        Ok(Described {
            log_id: LogId {
                term: header.position.term,
                index: header.position.index,
            },
            wall_time_ms: header.meta.wall_time_ms,
            membership: Membership {
                log_id: view.log_id.map(|(term, index)| LogId { term, index }),
                members: members.map(|(id, name)| Member { id, name }).collect(),
                voters: view.voters.into_iter().collect(),
                voters_outgoing: view.voters_outgoing.into_iter().collect(),
                learners: view.learners.into_iter().collect(),
            },
            feature_level: header.meta.feature_level,
            state_hash: format!("{:032x}", header.state_hash),
            counts: Counts {
                namespaces: header.namespaces,
                queues: header.queues,
                tasks: header.tasks,
                payload_bytes: header.payload_bytes,
            },
        })
    }
}
