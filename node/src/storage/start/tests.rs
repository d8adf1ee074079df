//! Every row of the start table.

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
        is_fenced: false,
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
) -> FoundOnDisk {
    FoundOnDisk {
        newest,
        older,
        installing: installing.map(|index| log_id(2, index)),
        image: None,
    }
}

fn with_image(index: u64, found: FoundOnDisk) -> FoundOnDisk {
    FoundOnDisk {
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
    let none = FoundOnDisk::default();
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
