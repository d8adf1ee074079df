//! Damage to the stamp, and to the file that names the directory in use.

use crate::damage::{DAMAGES, Damage};
use crate::scene::{HOME, Kind, Scene, current_path, identity_path};
use crate::tally::Tally;
use crate::trial::{self, Row, name};

pub async fn trials(scenes: &[Scene], rng: &mut fastrand::Rng) -> Tally {
    let mut tally = Tally::default();
    for scene in scenes {
        let what = "untouched";
        trial::run(
            &mut tally,
            scene,
            &scene.files,
            trial::untouched(scene),
            what,
        )
        .await;
        for damage in DAMAGES.into_iter().flat_map(|damage| [damage; 8]) {
            stamp(&mut tally, scene, damage, rng).await;
            current(&mut tally, scene, damage, rng).await;
        }
        directories(&mut tally, scene).await;
    }
    tally
}

async fn stamp(tally: &mut Tally, scene: &Scene, damage: Damage, rng: &mut fastrand::Rng) {
    let mut files = scene.files.clone();
    if !damage.hit(&identity_path(), &mut files, scene, rng) {
        return;
    }
    let expected = match damage {
        Damage::Foreign => Row::Damaged("the volume is stamped with cluster id other"),
        Damage::Gone => Row::Damaged("the identity file is missing"),
        _ => Row::Damaged("the identity file"),
    };
    let what = name(&[&"identity", &damage]);
    trial::run(tally, scene, &files, expected, &what).await;
}

async fn current(tally: &mut Tally, scene: &Scene, damage: Damage, rng: &mut fastrand::Rng) {
    let mut files = scene.files.clone();
    if !damage.hit(&current_path(), &mut files, scene, rng) {
        return;
    }
    let text = files
        .get(&current_path())
        .map(|bytes| std::str::from_utf8(bytes));
    let expected = match text {
        // White space at the end does not change what it says.
        Some(Ok(text)) if text.trim_end() == HOME => trial::untouched(scene),
        _ => Row::Damaged("CURRENT"),
    };
    let what = name(&[&"CURRENT", &damage, &text]);
    trial::run(tally, scene, &files, expected, &what).await;
}

/// Whole directories that are missing.
async fn directories(tally: &mut Tally, scene: &Scene) {
    let without = |lost: &str| {
        let mut files = scene.files.clone();
        files.retain(|path, _| !path.starts_with(lost));
        files
    };
    let lost_home = Row::Damaged("CURRENT names store-1, which is missing");
    trial::run(tally, scene, &without(HOME), lost_home, "no home").await;
    trial::run(tally, scene, &without(""), Row::Blank, "an empty volume").await;
    let no_log = Row::Damaged("missing");
    trial::run(tally, scene, &without("store-1/log"), no_log, "no log").await;
    if scene.kind == Kind::Fresh {
        let mut files = scene.files.clone();
        let path = crate::scene::snapshot_path(crate::scene::NEWEST);
        files.insert(path, b"anything".to_vec());
        let row = Row::Damaged("there is a snapshot but no log");
        trial::run(tally, scene, &files, row, "a snapshot without a log").await;
    }
}
