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
pub struct SnapshotsFound {
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
    found: SnapshotsFound,
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

/// Reads the log, decides, and does it.
pub async fn start<D: Disk>(
    home: &Home,
    expected: &Identity,
    found: SnapshotsFound,
    options: StartOptions<D>,
) -> Result<Started<D>, StartError> {
    let read = read_log(home, options.disk.clone()).await?;
    let decision = decide(&home.stamp(), expected, facts_of(&read), found);
    begin(home, read, decision, options).await
}

/// Does what was decided.
pub async fn begin<D: Disk>(
    home: &Home,
    read: LogRead<D>,
    decision: Decision,
    options: StartOptions<D>,
) -> Result<Started<D>, StartError> {
    let (base, install) = match decision {
        Decision::Damaged(reason) => return Err(StartError::Damaged(reason)),
        Decision::Removed => return Err(StartError::Removed),
        Decision::Start { base, install } => (base, install),
    };
    let recovered = read;
    let recovered = recovered.map_err(StartError::Damaged)?;
    let (torn_frames, range) = (recovered.torn_frames, recovered.range);
    if recovered.frames > 0 {
        home.mark_initialized()?;
    }
    let first_frame = (recovered.frames == 0).then(|| {
        let home = home.clone();
        Box::new(move || home.mark_initialized()) as FirstFrameHook
    });
    let hooks = LogHooks {
        first_frame,
        purged: options.purged,
        wrote: options.wrote,
        fatal: options.fatal,
    };
    let mut log = LogStore::start(recovered, options.log, hooks)?;
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
mod tests {
    use super::*;
    use crate::storage::codec::log_id;
    use crate::storage::log::Geometry;

    fn identity() -> Identity {
        Identity {
            cluster_id: "c".into(),
            incarnation: 1,
            member_id: 1,
            volume_uid: "v".into(),
        }
    }

    fn stamp() -> Stamp {
        let log = Geometry {
            segment_bytes: 4096,
            segments: 3,
        };
        Stamp {
            identity: identity(),
            log,
            is_initialized: true,
            is_removed: false,
        }
    }

    /// Entries `(purged, last]`, both of term 2.
    fn log(purged: Option<u64>, last: u64) -> Result<LogFacts, String> {
        let mut range = LogRange::default();
        purged
            .into_iter()
            .for_each(|purged| range.purge(log_id(2, purged)));
        (range.next()..=last).for_each(|index| range.append(log_id(2, index)));
        Ok(LogFacts { frames: 9, range })
    }

    fn snapshot(index: u64, good: bool) -> Option<SnapshotFacts> {
        Some(SnapshotFacts {
            log_id: log_id(2, index),
            bytes: 1,
            good,
        })
    }

    fn found(
        newest: Option<SnapshotFacts>,
        older: Option<SnapshotFacts>,
        installing: Option<u64>,
    ) -> SnapshotsFound {
        SnapshotsFound {
            newest,
            older,
            installing: installing.map(|index| log_id(2, index)),
            image: None,
        }
    }

    fn with_image(index: u64, found: SnapshotsFound) -> SnapshotsFound {
        SnapshotsFound {
            image: Some(log_id(2, index)),
            ..found
        }
    }

    fn starts(base: Base, install: Install) -> Option<(Base, Install)> {
        Some((base, install))
    }

    #[test]
    fn every_row_of_the_start_table_ends_as_it_says() {
        let (good, bad) = (true, false);
        let finish = Install::Finish(log_id(2, 50));
        let empty = Ok(LogFacts {
            frames: 0,
            range: LogRange::default(),
        });
        let fresh = Stamp {
            is_initialized: false,
            ..stamp()
        };
        let (fresh_again, empty_again) = (fresh.clone(), empty.clone());
        let rows = [
            (
                "log from 0",
                stamp(),
                log(None, 9),
                found(None, None, None),
                starts(Base::LogFromStart, Install::None),
            ),
            (
                "frames without a stamp",
                fresh.clone(),
                log(None, 9),
                found(None, None, None),
                starts(Base::LogFromStart, Install::None),
            ),
            (
                "newest",
                stamp(),
                log(Some(20), 90),
                found(snapshot(50, good), snapshot(20, good), None),
                starts(Base::NewestSnapshot, Install::None),
            ),
            (
                "newest damaged",
                stamp(),
                log(Some(20), 90),
                found(snapshot(50, bad), snapshot(20, good), None),
                starts(Base::OlderSnapshot, Install::None),
            ),
            (
                "newest damaged, older purged",
                stamp(),
                log(Some(30), 90),
                found(snapshot(50, bad), snapshot(20, good), None),
                None,
            ),
            (
                "both damaged, log whole",
                stamp(),
                log(None, 90),
                found(snapshot(50, bad), snapshot(20, bad), None),
                starts(Base::LogFromStart, Install::None),
            ),
            (
                "both damaged, log purged",
                stamp(),
                log(Some(20), 90),
                found(snapshot(50, bad), snapshot(20, bad), None),
                None,
            ),
            (
                "purged, no snapshot",
                stamp(),
                log(Some(20), 90),
                found(None, None, None),
                None,
            ),
            (
                "snapshot at the end",
                stamp(),
                log(Some(20), 50),
                found(snapshot(50, good), None, None),
                starts(Base::NewestSnapshot, Install::None),
            ),
            (
                "snapshot beyond the end",
                stamp(),
                log(Some(20), 49),
                found(snapshot(50, good), snapshot(20, good), None),
                None,
            ),
            (
                "damaged one beyond the end",
                stamp(),
                log(Some(20), 49),
                found(snapshot(50, bad), snapshot(20, good), None),
                None,
            ),
            (
                "installing",
                stamp(),
                log(Some(20), 30),
                found(snapshot(50, good), snapshot(20, good), Some(50)),
                starts(Base::NewestSnapshot, finish),
            ),
            (
                "installed, marker left",
                stamp(),
                log(Some(50), 60),
                found(snapshot(50, good), None, Some(50)),
                starts(Base::NewestSnapshot, Install::ClearMarker),
            ),
            (
                "install not begun",
                stamp(),
                log(Some(20), 30),
                found(snapshot(20, good), None, Some(50)),
                starts(Base::NewestSnapshot, Install::ClearMarker),
            ),
            (
                "installing a damaged one",
                stamp(),
                log(Some(20), 30),
                found(snapshot(50, bad), snapshot(20, good), Some(50)),
                starts(Base::OlderSnapshot, Install::ClearMarker),
            ),
            (
                "an old marker excuses no newer loss",
                stamp(),
                log(Some(20), 30),
                found(snapshot(70, good), snapshot(50, good), Some(50)),
                None,
            ),
            (
                "empty",
                fresh.clone(),
                empty.clone(),
                found(None, None, None),
                starts(Base::Empty, Install::None),
            ),
            (
                "lost",
                stamp(),
                empty.clone(),
                found(None, None, None),
                None,
            ),
            (
                "lost, snapshot left",
                stamp(),
                empty.clone(),
                found(snapshot(50, good), None, None),
                None,
            ),
            (
                "no log, a snapshot",
                fresh,
                empty,
                found(snapshot(50, good), None, None),
                None,
            ),
            (
                "image, then log",
                stamp(),
                log(Some(20), 90),
                with_image(40, found(snapshot(50, good), snapshot(20, good), None)),
                starts(Base::Image, Install::None),
            ),
            (
                "image at the purge point, at the end",
                stamp(),
                log(Some(50), 50),
                with_image(50, found(snapshot(50, good), None, None)),
                starts(Base::Image, Install::None),
            ),
            (
                "image, no good snapshot, log purged",
                stamp(),
                log(Some(20), 90),
                with_image(40, found(snapshot(50, bad), snapshot(20, bad), None)),
                starts(Base::Image, Install::None),
            ),
            (
                "image below the purge point",
                stamp(),
                log(Some(50), 90),
                with_image(40, found(snapshot(50, good), None, None)),
                starts(Base::NewestSnapshot, Install::None),
            ),
            (
                "image below the purge point, nothing else",
                stamp(),
                log(Some(50), 90),
                with_image(40, found(None, None, None)),
                None,
            ),
            (
                "image beyond the end",
                stamp(),
                log(Some(20), 90),
                with_image(91, found(snapshot(50, good), None, None)),
                None,
            ),
            (
                "snapshot beyond the end, image not",
                stamp(),
                log(Some(20), 49),
                with_image(40, found(snapshot(50, good), None, None)),
                None,
            ),
            (
                "installing over an image",
                stamp(),
                log(Some(20), 30),
                with_image(30, found(snapshot(50, good), snapshot(20, good), Some(50))),
                starts(Base::NewestSnapshot, finish),
            ),
            (
                "installed, marker left, image behind it",
                stamp(),
                log(Some(50), 60),
                with_image(30, found(snapshot(50, good), None, Some(50))),
                starts(Base::NewestSnapshot, Install::ClearMarker),
            ),
            (
                "no log, an image",
                fresh_again,
                empty_again,
                with_image(3, found(None, None, None)),
                None,
            ),
            (
                "log damage",
                stamp(),
                Err("bad".into()),
                found(snapshot(50, good), None, None),
                None,
            ),
        ];
        for (name, stamp, log, found, expected) in rows {
            let decision = decide(&stamp, &identity(), log, found);
            let is = match &decision {
                Decision::Start { base, install } => Some((*base, *install)),
                _ => None,
            };
            assert_eq!(is, expected, "{name}: {decision:?}");
        }
    }

    #[test]
    fn a_foreign_volume_is_damage_and_a_removed_member_never_starts() {
        let removed = Stamp {
            is_removed: true,
            ..stamp()
        };
        let other = Identity {
            volume_uid: "w".into(),
            ..identity()
        };
        let none = SnapshotsFound::default();
        assert_eq!(
            decide(&removed, &identity(), log(None, 9), none),
            Decision::Removed
        );
        assert!(matches!(
            decide(&removed, &other, log(None, 9), none),
            Decision::Damaged(_)
        ));
        assert!(matches!(
            decide(&stamp(), &other, log(None, 9), none),
            Decision::Damaged(_)
        ));
    }
}
