//! Damage under a living store: no wrong byte is answered; either nothing was noticed, because what counts was
//! in memory, or the process ends. The start after it is right.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::at_rest::{
    CLUSTER, Range, SCRATCH, ends, fixture, of, run_next as next, run_trials, runtime,
};
use crate::children::{self, say};
use crate::damage;
use crate::member::{Expected, MIXED, Member};

const TRIALS: u64 = 60;
/// Of one trial, at most.
const BLOWS: usize = 12;

pub fn run(words: &[&str]) {
    let range = Range::of(words);
    let expected = Expected::of(MIXED);
    for trial in range.trials.clone() {
        say(format!("begin {trial} living"));
        let mut rng = range.rng(trial);
        let at = range.root.join(format!("trial-{trial}"));
        let from = rng.choice(["killed", "restarted"]).expect("two");
        damage::copy(&range.root.join(from), &at);
        match runtime().block_on(live(&at, trial, expected.clone(), &mut rng)) {
            Ok(row) => say(format!("end {trial} {row}")),
            Err(wrong) => say(format!("end {trial} silent {wrong}")),
        }
        fs::remove_dir_all(&at).expect("removed");
    }
}

pub fn run_next(words: &[&str]) {
    next(words);
}

async fn live(
    at: &Path,
    trial: u64,
    expected: Arc<Mutex<Expected>>,
    rng: &mut fastrand::Rng,
) -> Result<&'static str, String> {
    let hook = ends(&trial.to_string());
    let start = || Member::start(at, CLUSTER, expected.clone(), hook.clone());
    let mut member = start().map_err(of("start"))?;
    let db = at.join("image/db");
    for _ in 0..rng.usize(1..BLOWS) {
        match rng.bool() {
            true => damage::flip(&db, rng),
            false => damage::zero(&db, rng),
        }
    }
    // Reads, sweep, snapshot and batches in any order: each is the first to meet the damage in some trial.
    for _ in 0..6 {
        match rng.u8(..5) {
            0 => member.sweep().await.map_err(of("sweep"))?,
            1 => member.check().await.map_err(of("read"))??,
            2 => member.cut().await.map_err(of("cut"))?,
            _ => {
                member.apply_many(3).await;
                member.keep_all().await.map_err(of("keep"))?;
            }
        }
    }
    member.check().await.map_err(of("read"))??;
    drop(member);
    let member = start().map_err(of("start again"))?;
    let row = match member.from_image {
        true => "used",
        false => "rebuilt",
    };
    member.sweep().await.map_err(of("sweep again"))?;
    member.check().await.map_err(of("read again"))??;
    Ok(row)
}

#[test]
fn damage_under_a_living_store_is_never_answered() {
    let (root, seed) = (
        TempDir::new_in(SCRATCH).expect("a folder"),
        children::seed(),
    );
    fixture(root.path());
    let tally = run_trials("living", root.path(), seed, TRIALS);
    println!("{tally:#?}");
    println!(
        "storage faults: living image trials={TRIALS} unnoticed={} next-rebuilt={} condemned={} hung={} silent={} seed={seed}",
        tally.row("used"),
        tally.row("rebuilt"),
        tally.row("condemned"),
        tally.row("hung"),
        tally.row("silent"),
    );
    assert!(tally.wrong.is_empty(), "{:#?}", tally.wrong);
    assert!(tally.row("condemned") > 0, "no trial met the damage");
}
