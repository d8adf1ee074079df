//! Damage at rest: whatever happens to an image's files, a start gives a state that is whole, the image's or
//! the snapshot's, or the damage is met later, ends the process, and the next start is right.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use taskstore::storage::log::FatalHook;
use tempfile::TempDir;

use crate::children::{self, Child, FATAL, Said, say};
use crate::damage::{self, Others};
use crate::member::{Expected, MIXED, Member};

/// In memory: nothing here is about the disk itself.
pub const SCRATCH: &str = "/dev/shm";
const TRIALS: u64 = 640;
const AT_ONCE: usize = 3;
/// A child that says nothing for so long is given up.
pub const SILENCE: Duration = Duration::from_secs(30);
pub const CLUSTER: &str = "c-1";

/// Images of several moments, each with the snapshots beside it: as a kill leaves them, after a restart, and
/// those to take from.
pub fn fixture(root: &Path) {
    let runtime = runtime();
    runtime.block_on(async {
        let expected = Expected::of(MIXED);
        let at = root.join("work");
        let mut member = start(&at, expected.clone());
        for batch in 1..=8 {
            member.apply_many(3).await;
            member.keep_all().await.expect("kept");
            match batch {
                4 => damage::copy(&at, &root.join("older")),
                3 | 6 => member.cut().await.expect("cut"),
                _ => {}
            }
        }
        damage::copy(&at, &root.join("killed"));
        drop(member);
        let mut member = start(&at, expected.clone());
        assert!(member.from_image);
        member.apply_many(3).await;
        member.keep_all().await.expect("kept");
        drop(member);
        let member = start(&at, expected.clone());
        damage::copy(&at, &root.join("restarted"));
        drop(member);
        let foreign = root.join("foreign");
        let mut member = Member::start(&foreign, "c-2", expected, panics()).expect("started");
        member.apply_many(24).await;
        member.keep_all().await.expect("kept");
    });
}

fn start(root: &Path, expected: Arc<Mutex<Expected>>) -> Member {
    Member::start(root, CLUSTER, expected, panics()).expect("started")
}

fn panics() -> FatalHook {
    Arc::new(|what, error| panic!("{what}: {error}"))
}

pub fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime")
}

/// Says it to the parent; the process ends, as it does in production.
pub fn ends(trial: &str) -> FatalHook {
    let trial = trial.to_owned();
    Arc::new(move |what, error| {
        say(format!("fatal {trial} {what}: {error}"));
        std::process::exit(FATAL)
    })
}

/// The words of a child's task: folder, seed, first and last trial.
pub struct Range {
    pub root: PathBuf,
    pub seed: u64,
    pub trials: std::ops::Range<u64>,
}

impl Range {
    pub fn of(words: &[&str]) -> Range {
        let number = |place: usize| words[place].parse::<u64>().expect("a number");
        Range {
            root: words[0].into(),
            seed: number(1),
            trials: number(2)..number(3),
        }
    }

    pub fn rng(&self, trial: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed.wrapping_add(trial.wrapping_mul(0x9e37_79b9)))
    }
}

pub fn run(words: &[&str]) {
    let range = Range::of(words);
    let others = Others {
        older: range.root.join("older/image"),
        foreign: range.root.join("foreign/image"),
    };
    let expected = Expected::of(MIXED);
    for trial in range.trials.clone() {
        let kind = damage::kind(trial);
        say(format!("begin {trial} {kind}"));
        let mut rng = range.rng(trial);
        let from = rng.choice(["killed", "restarted"]).expect("two");
        let at = range.root.join(format!("trial-{trial}"));
        damage::copy(&range.root.join(from), &at);
        damage::spoil(kind, &at.join("image"), &others, &mut rng);
        try_it(&at, trial, expected.clone());
        fs::remove_dir_all(&at).expect("removed");
    }
}

/// The start after the one that ended.
pub fn run_next(words: &[&str]) {
    let range = Range::of(words);
    let expected = Expected::of(MIXED);
    for trial in range.trials.clone() {
        let at = range.root.join(format!("trial-{trial}"));
        try_it(&at, trial, expected.clone());
    }
}

/// A start, a look at everything, work, and a start again. Says which row it was.
fn try_it(at: &Path, trial: u64, expected: Arc<Mutex<Expected>>) {
    let runtime = runtime();
    let hook = ends(&trial.to_string());
    let ended = runtime.block_on(async {
        let mut member = match Member::start(at, CLUSTER, expected.clone(), hook.clone()) {
            Ok(member) => member,
            Err(error) => {
                say(format!("fatal {trial} start: {error}"));
                std::process::exit(FATAL);
            }
        };
        let row = match (member.from_image, member.index()) {
            (true, 24 | 27) => "used",
            (true, _) => "used-older",
            (false, _) => "rebuilt",
        };
        member.sweep().await.map_err(of("sweep"))?;
        member.check().await.map_err(of("read"))??;
        if !trial.is_multiple_of(4) {
            return Ok(row);
        }
        member.apply_many(4).await;
        member.keep_all().await.map_err(of("keep"))?;
        member.cut().await.map_err(of("cut"))?;
        member.check().await.map_err(of("read"))??;
        let index = member.index();
        drop(member);
        let member = Member::start(at, CLUSTER, expected, hook).map_err(of("start again"))?;
        member.check().await.map_err(of("read again"))??;
        match (
            member.index() == index,
            member.from_image || row != "rebuilt",
        ) {
            (true, true) => Ok(row),
            (true, false) => Err("the image made anew is not used".into()),
            (false, _) => Err(format!("at {} after {index}", member.index())),
        }
    });
    match ended {
        Ok(row) => say(format!("end {trial} {row}")),
        Err(wrong) => say(format!("end {trial} silent {wrong}")),
    }
}

/// An error that nobody took for the end of the process.
pub fn of(what: &'static str) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{what}: {error}, and the process goes on")
}

/// What trials came to.
#[derive(Debug, Default)]
pub struct Tally {
    rows: BTreeMap<String, u64>,
    /// By kind and row.
    kinds: BTreeMap<String, u64>,
    /// Whatever ended the process.
    causes: BTreeMap<String, u64>,
    pub wrong: Vec<String>,
}

impl Tally {
    fn note(&mut self, kind: &str, row: &str) {
        *self.rows.entry(row.into()).or_default() += 1;
        *self.kinds.entry(format!("{kind} {row}")).or_default() += 1;
    }

    pub fn row(&self, row: &str) -> u64 {
        self.rows.get(row).copied().unwrap_or_default()
    }
}

/// Runs trials of this task in children, several at once, and the start after each that ended its process.
pub fn run_trials(task: &str, root: &Path, seed: u64, trials: u64) -> Tally {
    let (tally, next) = (Mutex::new(Tally::default()), AtomicU64::new(0));
    let a_child = trials.div_ceil(AT_ONCE as u64 * 4);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let first = next.fetch_add(a_child, Ordering::Relaxed);
                    if first >= trials {
                        return;
                    }
                    let range = first..trials.min(first + a_child);
                    run_range(task, root, seed, range, &tally);
                }
            });
        }
    });
    tally.into_inner().expect("no panic")
}

fn run_range(
    task: &str,
    root: &Path,
    seed: u64,
    mut range: std::ops::Range<u64>,
    tally: &Mutex<Tally>,
) {
    let of = |task: &str, from: u64, to: u64| {
        Child::start(&format!("{task} {} {seed} {from} {to}", root.display()))
    };
    while !range.is_empty() {
        let mut child = of(task, range.start, range.end);
        let (mut trial, mut kind, mut cause) = (range.start, String::new(), String::new());
        let met = loop {
            let said = child.next(SILENCE);
            let line = match &said {
                Said::Line(line) => line,
                Said::Ended(Some(0)) if trial == range.end => return,
                _ => break said,
            };
            let (word, rest) = line.split_once(' ').expect("words");
            let (number, rest) = rest.split_once(' ').expect("words");
            let mut tally = tally.lock().expect("no panic");
            match word {
                "begin" => kind = rest.into(),
                "fatal" => cause = rest.into(),
                _ => {
                    let row = rest.split(' ').next().expect("a word");
                    tally.note(&kind, row);
                    if row == "silent" {
                        tally.wrong.push(format!("trial {number}, {kind}: {rest}"));
                    }
                    trial += 1;
                }
            }
        };
        drop(child);
        let row = match met {
            Said::Ended(Some(FATAL))
                if cause.ends_with("in time") || cause.ends_with("it hangs") =>
            {
                "hung"
            }
            Said::Ended(Some(FATAL)) => "condemned",
            Said::Silent => "hung-for-ever",
            _ => "died",
        };
        let mut again = of(&format!("{task}-next"), trial, trial + 1);
        let next = loop {
            match again.next(SILENCE) {
                Said::Line(line) if line.starts_with("begin ") => {}
                said => break said,
            }
        };
        drop(again);
        // With the folder, so that many trials take little memory.
        fs::remove_dir_all(root.join(format!("trial-{trial}"))).expect("removed");
        let mut tally = tally.lock().expect("no panic");
        tally.note(&kind, row);
        let is_right = next == Said::Line(format!("end {trial} rebuilt"));
        if !is_right || !matches!(row, "hung" | "condemned") {
            let wrong = format!("trial {trial}, {kind}: {row} {met:?} {cause}, then {next:?}");
            println!("{wrong}");
            tally.wrong.push(wrong);
        }
        *tally.causes.entry(cause).or_default() += 1;
        range.start = trial + 1;
    }
}

#[test]
fn damage_at_rest_is_never_silent() {
    let (root, seed) = (
        TempDir::new_in(SCRATCH).expect("a folder"),
        children::seed(),
    );
    fixture(root.path());
    let tally = run_trials("at-rest", root.path(), seed, TRIALS);
    println!("{:#?}\n{:#?}", tally.kinds, tally.causes);
    println!(
        "storage faults: image trials={TRIALS} used={} older={} rebuilt={} condemned={} hung={} silent={} seed={seed}",
        tally.row("used"),
        tally.row("used-older"),
        tally.row("rebuilt"),
        tally.row("condemned"),
        tally.row("hung"),
        tally.row("silent"),
    );
    assert!(tally.wrong.is_empty(), "{:#?}", tally.wrong);
    assert_eq!(tally.rows.values().sum::<u64>(), TRIALS);
    for row in ["used", "used-older", "rebuilt", "condemned"] {
        assert!(tally.row(row) > 0, "no trial met {row}");
    }
}
