//! What a member does with what it finds, before Raft starts. openraft's own start hides a lost log, so
//! the decision is made here, as a pure function of what was found, in this order: identity and log, an
//! install that was under way, snapshots, image.
//!
//! | Found | Done |
//! |---|---|
//! | the stamp differs from the member's arguments, or cannot be read | damage |
//! | the tombstone | the member never starts |
//! | log damage | damage |
//! | stamped `initialized`, no good frame | damage |
//! | not `initialized`, no frame, no snapshot | an empty member |
//! | `installing`, its snapshot good | the install is finished: the older log is dropped |
//! | a snapshot beyond the log's end, no `installing` marker for it | the log was lost: damage |
//! | the image beyond the log's end, no `installing` marker | the log was lost: damage |
//! | image good, at or above the purge point | it, then the log |
//! | image missing, bad, foreign or below the purge point | it is made anew from one of these: |
//! | newest snapshot good, at or above the purge point | it, then the log |
//! | newest damaged or missing, the older one at or above the purge point | the older one, then the log |
//! | no good snapshot, the log starts at 0 | the log from 0 |
//! | no good snapshot, the log was purged | damage |
//!
//! A torn last frame was cut before any of this. A start from the image reads only the ends of the
//! snapshots: they are verified later, and nothing is purged behind them before.

use std::io;

use openraft::storage::RaftLogStorage;

use super::identity::{Home, Identity, Stamp};
use super::log::disk::Disk;
use super::log::index::LogRange;
use super::log::recovery::{Recovered, recover};
use super::log::{FatalHook, FirstFrameHook, LogError, LogHooks, PurgedHook, WroteHook};
use super::log_store::{LogOptions, LogStore};
use super::types::LogId;

/// A snapshot file as it was found. The log id of a bad one is that of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotFacts {
    pub log_id: LogId,
    pub bytes: u64,
    pub good: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FoundOnDisk {
    pub newest: Option<SnapshotFacts>,
    pub older: Option<SnapshotFacts>,
    /// The snapshot named by the `installing` marker.
    pub installing: Option<LogId>,
    /// Where the image stands, if it is good.
    pub image: Option<LogId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogFacts {
    pub frames: u64,
    pub range: LogRange,
}

/// What the state is rebuilt from before the log is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// No entry ever: the member waits for `initialize` or a leader.
    Empty,
    /// The log holds everything.
    LogFromStart,
    Image,
    NewestSnapshot,
    OlderSnapshot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Install {
    None,
    /// A marker of an install that is finished or never began: it goes.
    ClearMarker,
    /// Drop the log up to here, then the marker.
    Finish(LogId),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Damaged(String),
    Removed,
    Start { base: Base, install: Install },
}

impl Decision {
    pub fn starts_from(&self, wanted: Base) -> bool {
        matches!(self, Decision::Start { base, .. } if *base == wanted)
    }
}

pub fn decide(
    stamp: &Stamp,
    expected: &Identity,
    log: Result<LogFacts, String>,
    found: FoundOnDisk,
) -> Decision {
    if let Some(difference) = stamp.identity.difference(expected) {
        return Decision::Damaged(difference);
    }
    if stamp.is_removed {
        return Decision::Removed;
    }
    let LogFacts { frames, range } = match log {
        Ok(log) => log,
        Err(reason) => return Decision::Damaged(reason),
    };
    let snapshots = [
        (found.newest, Base::NewestSnapshot),
        (found.older, Base::OlderSnapshot),
    ];
    let has_snapshot = snapshots.iter().any(|(snapshot, _)| snapshot.is_some());
    if frames == 0 && stamp.is_initialized {
        return Decision::Damaged("the log held frames once and holds none".into());
    }
    if frames == 0 && has_snapshot {
        return Decision::Damaged("there is a snapshot but no log".into());
    }
    if frames == 0 && found.image.is_some() {
        return Decision::Damaged("there is an image but no log".into());
    }
    if frames == 0 {
        let install = if found.installing.is_some() {
            Install::ClearMarker
        } else {
            Install::None
        };
        return Decision::Start {
            base: Base::Empty,
            install,
        };
    }

    let newest_good = found
        .newest
        .filter(|newest| newest.good)
        .map(|newest| newest.log_id);
    let install = match found.installing {
        None => Install::None,
        Some(id) if Some(id) == newest_good && range.purged < Some(id) => Install::Finish(id),
        Some(_) => Install::ClearMarker,
    };
    if let Install::Finish(_) = install {
        return Decision::Start {
            base: Base::NewestSnapshot,
            install,
        };
    }

    for snapshot in snapshots.iter().filter_map(|(snapshot, _)| *snapshot) {
        // A damaged one that was being installed stood beyond the log's end by right.
        let was_installing = found.installing == Some(snapshot.log_id) && !snapshot.good;
        if Some(snapshot.log_id) > range.last && !was_installing {
            let reason = format!(
                "a snapshot at {} lies beyond the log's end {:?}",
                snapshot.log_id, range.last
            );
            return Decision::Damaged(reason);
        }
    }
    if found.image > range.last && found.installing.is_none() {
        let reason = format!(
            "the image at {:?} lies beyond the log's end {:?}",
            found.image, range.last
        );
        return Decision::Damaged(reason);
    }
    if found.image.is_some() && found.image >= range.purged && found.image <= range.last {
        return Decision::Start {
            base: Base::Image,
            install,
        };
    }
    let usable = |snapshot: &SnapshotFacts| snapshot.good && Some(snapshot.log_id) >= range.purged;
    for (snapshot, base) in snapshots {
        if snapshot.as_ref().is_some_and(usable) {
            return Decision::Start { base, install };
        }
    }
    if range.purged.is_none() && range.first == 0 {
        return Decision::Start {
            base: Base::LogFromStart,
            install,
        };
    }
    let reason = match range.purged {
        Some(purged) => {
            format!("the log was purged up to {purged} and no good snapshot reaches that far")
        }
        None => format!(
            "the log begins at {} and there is no good snapshot",
            range.first
        ),
    };
    Decision::Damaged(reason)
}

/// A member's storage, ready for Raft.
pub struct Started<D: Disk> {
    pub log: LogStore<D>,
    pub base: Base,
    /// The marker is to be removed: its install is complete, or never began.
    pub clear_installing: bool,
    pub torn_frames: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Damaged(String),
    #[error("this member was removed from its cluster")]
    Removed,
    /// No word on the disk's content: it may be gone at the next start.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<LogError> for StartError {
    fn from(error: LogError) -> StartError {
        match error {
            LogError::Damage(_) => StartError::Damaged(error.to_string()),
            LogError::Io(error) => StartError::Io(error),
        }
    }
}

pub struct StartOptions<D> {
    pub log: LogOptions,
    pub disk: D,
    pub fatal: FatalHook,
    /// Called with each purge point once it is on the disk; removes the marker of a finished install.
    pub purged: Option<PurgedHook>,
    /// Called with the time of each write and fsync.
    pub wrote: Option<WroteHook>,
}

/// The log as it was read, or why it is damaged.
pub type LogRead<D> = Result<Recovered<D>, String>;

/// Reads the log. An error is no word on it.
pub async fn read_log<D: Disk>(home: &Home, disk: D) -> Result<LogRead<D>, StartError> {
    let stamp = home.stamp();
    let (directory, geometry, salt) = (home.log_directory(), stamp.log, stamp.identity.salt());
    let recovered =
        tokio::task::spawn_blocking(move || recover(&directory, geometry, salt, disk)).await;
    match recovered.map_err(io::Error::other)? {
        Err(LogError::Io(error)) => Err(error.into()),
        Err(LogError::Damage(reason)) => Ok(Err(reason)),
        Ok(recovered) => Ok(Ok(recovered)),
    }
}

/// What the decision needs to know of the log.
pub fn facts_of<D: Disk>(read: &LogRead<D>) -> Result<LogFacts, String> {
    match read {
        Ok(Recovered { frames, range, .. }) => Ok(LogFacts {
            frames: *frames,
            range: *range,
        }),
        Err(reason) => Err(reason.clone()),
    }
}

/// Does what was decided.
pub async fn begin<D: Disk>(
    home: &Home,
    read: LogRead<D>,
    decision: Decision,
    options: StartOptions<D>,
) -> Result<Started<D>, StartError> {
    let frames = match (&decision, &read) {
        (Decision::Start { .. }, Ok(recovered)) => recovered.frames,
        _ => 0,
    };
    if frames > 0 {
        home.mark_initialized()?;
    }
    let first_frame = (frames == 0).then(|| {
        let home = home.clone();
        Box::new(move || home.mark_initialized()) as FirstFrameHook
    });
    let hooks = LogHooks {
        first_frame,
        purged: options.purged,
        wrote: options.wrote,
        fatal: options.fatal,
    };
    begin_log(read, decision, options.log, hooks).await
}

/// Does what was decided of the log, and leaves the rest of the volume alone.
pub async fn begin_log<D: Disk>(
    read: LogRead<D>,
    decision: Decision,
    options: LogOptions,
    hooks: LogHooks,
) -> Result<Started<D>, StartError> {
    let (base, install) = match decision {
        Decision::Damaged(reason) => return Err(StartError::Damaged(reason)),
        Decision::Removed => return Err(StartError::Removed),
        Decision::Start { base, install } => (base, install),
    };
    let recovered = read.map_err(StartError::Damaged)?;
    let (torn_frames, range) = (recovered.torn_frames, recovered.range);
    let mut log = LogStore::start(recovered, options, hooks)?;
    if let Install::Finish(id) = install {
        if range.last < Some(id) {
            // What is left of the older log was not in the snapshot's history.
            log.truncate_after(range.purged).await?;
        }
        log.purge(id).await?;
    }
    Ok(Started {
        log,
        base,
        clear_installing: install != Install::None,
        torn_frames,
    })
}

#[cfg(test)]
mod tests;
