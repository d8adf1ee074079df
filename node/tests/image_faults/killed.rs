//! kill -9 while the image is written: the next start has rows of one position, not beyond what was applied,
//! and every payload they need.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::at_rest::{CLUSTER, SCRATCH, SILENCE, ends, of, runtime};
use crate::children::{self, Child, Said, say};
use crate::member::{Expected, Member, STEADY};

const ROUNDS: u64 = 40;
/// On one directory.
const LIVES: u64 = 10;
const LIFE_MS_MAX: u64 = 200;

pub fn run(words: &[&str]) {
    let root = Path::new(words[0]);
    let ended: Result<(), String> = runtime().block_on(async {
        let expected = Expected::of(STEADY);
        let started = Member::start(root, CLUSTER, expected, ends("killed"));
        let mut member = started.map_err(of("start"))?;
        member.sweep().await.map_err(of("sweep"))?;
        member.check().await.map_err(of("read"))??;
        say(format!("started {} {}", member.from_image, member.index()));
        loop {
            let index = member.index() + 1;
            say(format!("applying {index}"));
            member.apply_next().await;
            if index.is_multiple_of(2) {
                member.keep_all().await.map_err(of("keep"))?;
            }
            if index.is_multiple_of(64) {
                member.cut().await.map_err(of("cut"))?;
            }
        }
    });
    say(format!("silent {ended:?}"));
}

#[test]
fn a_kill_at_any_moment_leaves_rows_of_one_position_and_their_payloads() {
    let (root, seed) = (
        TempDir::new_in(SCRATCH).expect("a folder"),
        children::seed(),
    );
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut from_image, mut applied) = (0, 0);
    for round in 0..ROUNDS {
        let at = root.path().join((round / LIVES).to_string());
        if round % LIVES == 0 {
            applied = 0;
            fs::create_dir(&at).expect("made");
        }
        let mut child = Child::start(&format!("killed {}", at.display()));
        let Said::Line(line) = child.next(SILENCE) else {
            panic!("round {round} does not start");
        };
        let words: Vec<&str> = line.split(' ').collect();
        let ["started", is_from_image, index] = words[..] else {
            panic!("round {round}: {line}");
        };
        let index: u64 = index.parse().expect("a number");
        assert!(index <= applied, "round {round}: {index} after {applied}");
        from_image += u32::from(is_from_image == "true");
        std::thread::sleep(Duration::from_millis(rng.u64(..LIFE_MS_MAX)));
        child.kill();
        loop {
            match child.next(SILENCE) {
                Said::Line(line) => {
                    let (word, index) = line.split_once(' ').expect("words");
                    assert_eq!(word, "applying", "round {round}: {line}");
                    applied = index.parse().expect("a number");
                }
                Said::Ended(None) => break,
                other => panic!("round {round}: {other:?}"),
            }
        }
    }
    println!("storage faults: image kills={ROUNDS} from-image={from_image} silent=0 seed={seed}");
    assert!(from_image > 0, "the image was never used");
}
