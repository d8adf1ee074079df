//! Damage to the kept snapshots and to the marker of an install.

use crate::damage::{DAMAGES, Damage};
use crate::scene::{
    END, Files, Kind, NEWEST, OLDER, SENT, SENT_END, Scene, marker_path, snapshot_path,
};
use crate::tally::Tally;
use crate::trial::{self, Row, name};

/// What became of a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Snapshot {
    #[default]
    Whole,
    Bad,
    Gone,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Marker {
    #[default]
    Whole,
    /// Gone, or it names another position.
    Other,
    Unreadable,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Fates {
    pub newest: Snapshot,
    pub older: Snapshot,
    pub marker: Marker,
}

/// The start table once more, by what happened to which file.
pub fn row(kind: Kind, fates: Fates) -> Row {
    let starts = |base, end| Row::Starts {
        base,
        end: Some(end),
    };
    let none_good = Row::Damaged("no good snapshot");
    let Fates {
        newest,
        older,
        marker,
    } = fates;
    let (has_newest, has_older) = (newest == Snapshot::Whole, older == Snapshot::Whole);
    match kind {
        Kind::Fresh => Row::Starts {
            base: None,
            end: None,
        },
        Kind::NoSnapshot => starts(None, END),
        Kind::OneSnapshot | Kind::TwoSnapshots if has_newest => starts(Some(NEWEST), END),
        Kind::TwoSnapshots if has_older => starts(Some(OLDER), END),
        Kind::OneSnapshot | Kind::TwoSnapshots => starts(None, END),
        Kind::PurgedBehindOlder | Kind::PurgedBehindNewest if has_newest => {
            starts(Some(NEWEST), END)
        }
        Kind::PurgedBehindOlder if has_older => starts(Some(OLDER), END),
        Kind::PurgedBehindOlder | Kind::PurgedBehindNewest => none_good,
        _ if marker == Marker::Unreadable => Row::Damaged("installing marker"),
        Kind::Installed | Kind::InstalledMarked if has_newest => starts(Some(SENT), SENT_END),
        Kind::Installed | Kind::InstalledMarked => none_good,
        Kind::Installing => match (newest, older, marker) {
            (Snapshot::Whole, _, Marker::Whole) => starts(Some(SENT), SENT),
            (Snapshot::Whole | Snapshot::Bad, _, Marker::Other) => {
                Row::Damaged("beyond the log's end")
            }
            // The install has not begun, as far as can be seen: the log is whole.
            (_, Snapshot::Whole, _) => starts(Some(NEWEST), END),
            (..) => none_good,
        },
    }
}

/// The positions of the newest and the older file.
pub fn kept(kind: Kind) -> [Option<u64>; 2] {
    match kind {
        Kind::Fresh | Kind::NoSnapshot => [None, None],
        Kind::OneSnapshot => [Some(NEWEST), None],
        Kind::TwoSnapshots | Kind::PurgedBehindOlder | Kind::PurgedBehindNewest => {
            [Some(NEWEST), Some(OLDER)]
        }
        Kind::Installing | Kind::Installed | Kind::InstalledMarked => [Some(SENT), Some(NEWEST)],
    }
}

pub async fn trials(scenes: &[Scene], rng: &mut fastrand::Rng) -> Tally {
    let mut tally = Tally::default();
    for scene in scenes {
        files(&mut tally, scene, rng).await;
        places(&mut tally, scene).await;
        markers(&mut tally, scene, rng).await;
        bystanders(&mut tally, scene, rng).await;
    }
    tally
}

/// The newest, the older one, and both.
async fn files(tally: &mut Tally, scene: &Scene, rng: &mut fastrand::Rng) {
    let [newest, older] = kept(scene.kind);
    for hits in [[true, false], [false, true], [true, true]] {
        for damage in DAMAGES.into_iter().flat_map(|damage| [damage; 12]) {
            let mut files = scene.files.clone();
            let mut fate = |is_hit: bool, index: Option<u64>| {
                let path = snapshot_path(index.unwrap_or(0));
                match is_hit && damage.hit(&path, &mut files, scene, rng) {
                    true if damage == Damage::Gone => Snapshot::Gone,
                    true => Snapshot::Bad,
                    false => Snapshot::Whole,
                }
            };
            let fates = Fates {
                newest: fate(hits[0], newest),
                older: fate(hits[1], older),
                marker: Marker::Whole,
            };
            if fates.newest == Snapshot::Whole && fates.older == Snapshot::Whole {
                continue;
            }
            let what = name(&[&damage, &fates]);
            trial::run(tally, scene, &files, row(scene.kind, fates), &what).await;
        }
    }
}

/// Good files under names that are not theirs.
async fn places(tally: &mut Tally, scene: &Scene) {
    let [Some(newest), Some(older)] = kept(scene.kind) else {
        return;
    };
    let (newest, older) = (snapshot_path(newest), snapshot_path(older));
    let both = |newest, older| Fates {
        newest,
        older,
        marker: Marker::Whole,
    };
    let rows = [
        (&older, &newest, both(Snapshot::Bad, Snapshot::Bad)),
        (&older, &older, both(Snapshot::Bad, Snapshot::Whole)),
        (&newest, &newest, both(Snapshot::Whole, Snapshot::Bad)),
    ];
    for (as_newest, as_older, fates) in rows {
        let mut files = scene.files.clone();
        files.insert(newest.clone(), scene.files[as_newest].clone());
        files.insert(older.clone(), scene.files[as_older].clone());
        let what = name(&[&"misplaced", &fates]);
        trial::run(tally, scene, &files, row(scene.kind, fates), &what).await;
    }
}

async fn markers(tally: &mut Tally, scene: &Scene, rng: &mut fastrand::Rng) {
    let Some(whole) = scene.files.get(&marker_path()) else {
        return;
    };
    for damage in DAMAGES.into_iter().flat_map(|damage| [damage; 20]) {
        for newest in [Snapshot::Whole, Snapshot::Bad, Snapshot::Gone] {
            let mut files = scene.files.clone();
            damage.hit(&marker_path(), &mut files, scene, rng);
            let marker = match files.get(&marker_path()) {
                Some(bytes) if bytes == whole => continue,
                None => Marker::Other,
                Some(bytes) if is_position(bytes) => Marker::Other,
                Some(_) => Marker::Unreadable,
            };
            hit_newest(&mut files, scene, newest, rng);
            let fates = Fates {
                newest,
                older: Snapshot::Whole,
                marker,
            };
            let what = name(&[&damage, &fates]);
            trial::run(tally, scene, &files, row(scene.kind, fates), &what).await;
        }
    }
}

fn hit_newest(files: &mut Files, scene: &Scene, fate: Snapshot, rng: &mut fastrand::Rng) {
    let [Some(newest), _] = kept(scene.kind) else {
        return;
    };
    let damage = match fate {
        Snapshot::Whole => return,
        Snapshot::Bad => Damage::Flip,
        Snapshot::Gone => Damage::Gone,
    };
    damage.hit(&snapshot_path(newest), files, scene, rng);
}

/// Two numbers with a dash between them.
fn is_position(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let parts: Vec<&str> = text.split('-').collect();
    let is_number = |part: &&str| part.parse::<u64>().is_ok();
    parts.len() == 2 && parts.iter().all(is_number)
}

/// What stands beside the snapshots counts for nothing, whatever is in it.
async fn bystanders(tally: &mut Tally, scene: &Scene, rng: &mut fastrand::Rng) {
    let names = [
        "ballast",
        "cut.tmp",
        "arrived-0.tmp",
        "arrived-0-installing.tmp",
        "installing.tmp",
        "receive-0123456789abcdef0123456789abcdef.tmp",
        "00000000000000000002-00000000000000000099.snapshot.bad",
        "lost+found",
    ];
    for file in names {
        let mut files = scene.files.clone();
        let path = marker_path().with_file_name(file);
        files.insert(path, (0..rng.usize(0..9_000)).map(|_| rng.u8(..)).collect());
        let what = name(&[&"beside", &file]);
        trial::run(tally, scene, &files, trial::untouched(scene), &what).await;
    }
}
