//! What a restored store begins with: a backup, and the log behind it as far as asked. Reads the bucket alone
//! and writes nothing to it.
//!
//! ```text
//! newest backup not beyond ─▶ snapshot file, proven ─▶ state ─▶ each entry behind it ─▶ state, last log id
//!                             no name from then on                payloads: read again when they are needed
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::bucket::Bucket;
use super::download::download;
use super::error::Error;
use super::layout::{BackupName, Lineage};
use super::list::{State, backups};
use super::log::replay::{Upto, path_of, replay};
use super::log::ship::read;
use super::manifest::{LogId, Manifest};
use super::progress::Noted;
use super::verify::read_manifest;
use crate::storage::rewrite::Rescued;
use crate::storage::rewrite::payloads::{Again, Payloads};
use crate::storage::rewrite::replay::Replay;
use crate::storage::snapshot::SnapshotHandle;
use crate::storage::store::position;
use crate::storage::types::Entry;
use crate::task::state::Bounds;

const SNAPSHOT: &str = "backup.snapshot";

/// What is restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub lineage: Lineage,
    /// None: the newest that is not beyond `upto`.
    pub backup: Option<BackupName>,
    pub upto: Upto,
}

/// What it came to, for people and for whoever compares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub lineage: Lineage,
    pub backup: BackupName,
    /// The last entry, of the backup or of the log behind it.
    pub log_id: LogId,
    /// The old store's clock at that entry.
    pub wall_time_ms: u64,
    /// Of the state at that entry, before anything of it was given to another store.
    pub state_hash: String,
    pub tasks: u64,
}

pub struct Restored {
    pub facts: Facts,
    pub rescued: Rescued,
    pub payloads: Payloads<SegmentsAgain>,
}

/// Needs room for the snapshot in `folder`, until the result is dropped. The error names the object that is
/// wrong or missing.
pub async fn restore(
    bucket: &Bucket,
    wanted: &Wanted,
    folder: &Path,
    noted: &Noted,
) -> Result<Restored, Error> {
    let chosen = choose(bucket, wanted).await?;
    let file = folder.join(SNAPSHOT);
    let lineage = &wanted.lineage;
    let manifest = download(bucket, lineage, &chosen.name, &file, noted).await?;
    let identity = lineage.identity();
    let incarnation = lineage.incarnation;
    let loaded = spawn_blocking(move || {
        let handle = SnapshotHandle::open(&file, &identity)?;
        // Read by its handle from now on: nothing is left of it, however this ends.
        fs::remove_file(&file)?;
        Replay::of_snapshot(&handle, incarnation, Bounds::default())
    });
    let (mut state, cold) = loaded.await.map_err(io::Error::other)??;
    let mut segments = BTreeMap::new();
    let after = manifest.log_id.into();
    let each = |first_index: u64, entry: Entry| {
        let index = entry.log_id.index;
        if segments.values().next_back() != Some(&first_index) {
            segments.insert(index, first_index);
        }
        // It reads nothing: the entry itself is wrong, or of a version that knows more.
        state.apply(entry).map_err(|error| {
            let object = path_of(bucket, lineage, first_index);
            Error::damaged(object, format!("entry {index} cannot be applied: {error}"))
        })
    };
    let reached = replay(bucket, lineage, after, wanted.upto, each).await?;
    let replayed = state.finish();
    let last = replayed.last.filter(|last| position(*last) == reached.last);
    let Some(last) = last else {
        let manifest = bucket.name_of(&lineage.manifest(&manifest.name));
        return Err(Error::damaged(manifest, "its snapshot ends elsewhere"));
    };
    let facts = Facts {
        lineage: lineage.clone(),
        backup: manifest.name,
        log_id: LogId {
            term: reached.last.term,
            index: reached.last.index,
        },
        wall_time_ms: reached.wall_time_ms.max(manifest.wall_time_ms),
        state_hash: format!("{:032x}", replayed.state.hash()),
        tasks: replayed.state.tables().tasks.len() as u64,
    };
    let again = SegmentsAgain {
        bucket: bucket.clone(),
        lineage: lineage.clone(),
        segments,
        runtime: Handle::current(),
    };
    Ok(Restored {
        facts,
        rescued: Rescued {
            state: replayed.state,
            last,
            term: last.leader_id.term,
        },
        payloads: Payloads::new(cold, again, replayed.places),
    })
}

/// A damaged backup is never passed over in silence: what it holds may be in no other.
async fn choose(bucket: &Bucket, wanted: &Wanted) -> Result<Manifest, Error> {
    let is_beyond = |manifest: &Manifest| match wanted.upto {
        Upto::Latest => false,
        Upto::Index(index) => manifest.log_id.index > index,
        Upto::WallTimeMs(moment_ms) => manifest.wall_time_ms > moment_ms,
    };
    let field = match wanted.upto {
        Upto::WallTimeMs(_) => "time",
        Upto::Latest | Upto::Index(_) => "index",
    };
    let lineage = &wanted.lineage;
    if let Some(name) = &wanted.backup {
        let manifest = read_manifest(bucket, lineage, name).await?;
        return match is_beyond(&manifest) {
            true => Err(Error::invalid(field, at_least(&manifest))),
            false => Ok(manifest),
        };
    }
    let mut oldest = None;
    let mut chosen = None;
    for listed in backups(bucket, lineage).await? {
        match listed.state {
            State::Complete(manifest) if is_beyond(&manifest) => {
                oldest.get_or_insert(manifest);
            }
            State::Complete(manifest) => chosen = Some(manifest),
            State::Unreadable(error) => return Err(error),
            State::Unfinished { .. } => {}
        }
    }
    match (chosen, oldest) {
        (Some(manifest), _) => Ok(*manifest),
        (None, Some(oldest)) => Err(Error::invalid(field, at_least(&oldest))),
        (None, None) => Err(Error::Missing {
            object: format!("a backup in {}", bucket.name_of(&lineage.backups())),
        }),
    }
}

fn at_least(backup: &Manifest) -> String {
    format!(
        "must be at least where the backup {} ends: index {}, {} ms since 1970",
        backup.name, backup.log_id.index, backup.wall_time_ms
    )
}

/// The log in the bucket, a second time.
pub struct SegmentsAgain {
    bucket: Bucket,
    lineage: Lineage,
    /// First indexes of the segments, each by the first entry that was taken from it.
    segments: BTreeMap<u64, u64>,
    runtime: Handle,
}

impl Again for SegmentsAgain {
    fn from(&mut self, index: u64) -> io::Result<Vec<Entry>> {
        let Some((_, first_index)) = self.segments.range(..=index).next_back() else {
            return Ok(Vec::new());
        };
        let segment = read(&self.bucket, &self.lineage, *first_index);
        let segment = self
            .runtime
            .block_on(segment)
            .map_err(|error| match error {
                Error::Local(error) => error,
                Error::Damaged { .. } => io::Error::new(ErrorKind::InvalidData, error.to_string()),
                error => io::Error::other(error.to_string()),
            })?;
        let mut entries = segment.entries;
        entries.retain(|entry| entry.log_id.index >= index);
        Ok(entries)
    }
}
