//! A store that fails in every way a real one does now and then: however often, a backup is whole or not
//! listed, and in the end there is one.

use std::sync::{Arc, Mutex};

use object_store::memory::InMemory;

use super::rig::{Cut, Fate, Fated, bucket_over, cut, objects, order, proven};
use crate::backup::error::{Access, Error};
use crate::backup::progress::Noted;
use crate::backup::write::write;

const RUNS: usize = 120;
/// Orders of one run until it must have worked.
const ORDERS_MAX: usize = 60;

/// One request in six meets one of the fates that its kind can meet.
pub fn unreliable(memory: &Arc<InMemory>, seed: u64) -> Arc<Fated> {
    let rng = Mutex::new(fastrand::Rng::with_seed(seed));
    Fated::new(memory.clone(), move |access, _| {
        let mut rng = rng.lock().expect("no panic under it");
        if rng.u8(..6) != 0 {
            return Fate::Fine;
        }
        let fates: &[Fate] = match access {
            Access::Read => &[Fate::Refused, Fate::Silent, Fate::Truncated],
            Access::List => &[Fate::Refused, Fate::Silent, Fate::Stale],
            Access::Write | Access::Create | Access::Delete => {
                &[Fate::Refused, Fate::Silent, Fate::Unanswered]
            }
        };
        fates[rng.usize(..fates.len())]
    })
}

async fn run(seed: u64, cuts: [&Cut; 2]) {
    let memory = Arc::new(InMemory::new());
    let bucket = bucket_over(unreliable(&memory, seed));
    let (asked, noted) = (order("b-1"), Noted::default());
    let mut ordered = 0;
    let manifest = loop {
        assert!(ordered < ORDERS_MAX, "seed {seed}: never done");
        // Two members at once, as after an operator that has lost sight of the first.
        let (one, two) = tokio::join!(
            write(&bucket, &cuts[ordered % 2].handle, &asked, &noted),
            write(&bucket, &cuts[(ordered + 1) % 2].handle, &asked, &noted),
        );
        ordered += 1;
        let listed = proven(&memory).await;
        assert!(listed.len() <= 1, "seed {seed}");
        for answer in [&one, &two] {
            match answer {
                Ok(manifest) => assert_eq!(listed.first(), Some(manifest), "seed {seed}"),
                Err(Error::Unavailable { .. }) => {}
                Err(error) => panic!("seed {seed}: not its own fault, and yet: {error}"),
            }
        }
        if let Ok(manifest) = one.or(two) {
            break manifest;
        }
    };
    let again = write(
        &bucket_over(memory.clone()),
        &cuts[0].handle,
        &asked,
        &noted,
    )
    .await;
    assert_eq!(again.expect("there is one"), manifest, "seed {seed}");
    let manifests = objects(&memory).await;
    let manifests = manifests
        .keys()
        .filter(|path| path.filename() == Some("manifest.json"));
    assert_eq!(manifests.count(), 1, "seed {seed}");
}

#[tokio::test]
async fn whatever_the_store_does_there_is_one_backup_in_the_end_and_never_half_a_one() {
    let first = std::env::var("BACKUP_FAULTS_SEED").ok();
    let first = first.and_then(|seed| seed.parse().ok());
    let first = first.unwrap_or_else(|| fastrand::u64(..u64::MAX / 2));
    println!("BACKUP_FAULTS_SEED={first}");
    let (one, two) = (cut("one", 5), cut("two", 5));
    for seed in first..first + RUNS as u64 {
        run(seed, [&one, &two]).await;
    }
}
