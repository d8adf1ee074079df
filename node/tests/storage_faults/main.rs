//! The fault table of everything but the log: whatever happens to snapshots, the marker of an install and
//! the identity, at rest or while a member runs, it ends in the row that the start table names, and never
//! in silence.

#[path = "../support/faults.rs"]
#[allow(dead_code, reason = "the log's own trials use the rest")]
mod faults;
#[path = "../support/tally.rs"]
mod tally;
#[path = "../support/volume.rs"]
#[allow(dead_code, reason = "the power cuts use the rest")]
mod volume;

mod damage;
mod identity;
mod running;
mod scene;
mod snapshots;
mod trial;

use scene::{KINDS, Scene};
use tally::Tally;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_damage_to_storage_is_silent_and_each_ends_in_its_row() {
    let seed = tally::seed("STORAGE_FAULTS_SEED");
    let mut rng = fastrand::Rng::with_seed(seed);
    let scenes = futures::future::join_all(KINDS.map(Scene::new)).await;
    let mut tally = Tally::default();
    // Trials of what else a member stores (the image) join here, so that one line sums up all of them.
    let kinds = [
        ("snapshots", snapshots::trials(&scenes, &mut rng).await),
        ("identity", identity::trials(&scenes, &mut rng).await),
        ("running", running::trials(&scenes, &mut rng).await),
    ];
    for (kind, of_kind) in kinds {
        println!("{kind}: trials={} {:?}", of_kind.trials, of_kind.rows);
        tally.add(of_kind);
    }
    println!(
        "storage faults: trials={} silent={} seed={seed}",
        tally.trials, tally.silent
    );
    tally.check();
    assert!(tally.trials >= 1_200);
}
