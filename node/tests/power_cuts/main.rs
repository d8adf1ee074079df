//! The power of a whole cluster fails, again and again: whatever was acknowledged is there afterwards.
//!
//! Three members run in one process over real Raft and real sockets, each on a disk that notes what was
//! not yet synced. At a random moment all three are frozen at once, under load or while they start, elect,
//! cut or install a snapshot; each disk loses an arbitrary part of what was not synced, and all start again.

#[path = "../support/faults.rs"]
#[allow(dead_code, reason = "the log's own trials use the rest")]
mod faults;
#[path = "../support/tally.rs"]
#[allow(dead_code, reason = "the damage trials use the rest")]
mod tally;
#[path = "../support/volume.rs"]
#[allow(dead_code, reason = "the damage trials use the rest")]
mod volume;

mod cluster;
mod copy;
mod ledger;
mod load;
mod member;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster::Cluster;
use ledger::Ledger;
use load::Load;
use taskstore::task::command::TaskState;

/// Far more than anything here takes; a cluster that never elects takes all of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a cut waits for an install that it could hit.
const INSTALL_PATIENCE: Duration = Duration::from_millis(300);
/// Of so many tasks the payload is read after each cut; the rows are all looked at.
const PAYLOADS_READ: usize = 20;

#[derive(Debug, Default)]
struct Seen {
    cuts: u64,
    acknowledged: u64,
    lost: u64,
    /// Cuts that left a member with half a frame, or in the middle of an install.
    torn: u64,
    halfway_installed: u64,
    snapshots: u64,
    installs: u64,
    wrong: Vec<String>,
}

impl Seen {
    fn add(&mut self, other: Seen) {
        self.cuts += other.cuts;
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.torn += other.torn;
        self.halfway_installed += other.halfway_installed;
        self.snapshots += other.snapshots;
        self.installs += other.installs;
        self.wrong.extend(other.wrong);
    }
}

/// One cluster through so many power cuts.
struct Trial {
    rng: fastrand::Rng,
    cluster: Cluster,
    ledger: Arc<Mutex<Ledger>>,
    numbers: Arc<AtomicU64>,
    patience: Duration,
    seen: Seen,
}

impl Trial {
    async fn run(seed: u64, cuts: u64, is_lying: bool) -> Seen {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut trial = Trial {
            cluster: Cluster::start(&mut rng, is_lying).await,
            rng,
            ledger: Arc::default(),
            numbers: Arc::default(),
            // What lying disks have lost may keep a cluster from electing.
            patience: if is_lying { PATIENCE / 30 } else { PATIENCE },
            seen: Seen::default(),
        };
        let ended = trial.cut_and_check(cuts).await;
        trial.cluster.cut(&mut trial.rng).await;
        let mut seen = trial.seen;
        let ledger = std::mem::take(&mut *trial.ledger.lock().unwrap());
        seen.acknowledged = *ledger.acknowledged.borrow();
        seen.wrong.extend(ledger.wrong);
        seen.wrong.extend(ended.err());
        seen
    }

    async fn cut_and_check(&mut self, cuts: u64) -> Result<(), String> {
        let (mut away, mut is_back) = (None, false);
        while self.seen.cuts < cuts {
            let mut load = None;
            let random = Duration::from_micros(self.rng.u64(0..60_000));
            match self.rng.u32(0..5) {
                // Nobody may lead yet.
                0 => tokio::time::sleep(random).await,
                // Whoever was away may need a snapshot.
                1..4 if is_back => {
                    let installing = self.cluster.installing();
                    tokio::time::timeout(INSTALL_PATIENCE, installing)
                        .await
                        .ok();
                }
                _ => {
                    self.check().await?;
                    load = Some(self.load().await?);
                }
            }
            self.cluster.cut(&mut self.rng).await;
            drop(load);
            self.seen.cuts += 1;
            is_back = away.is_some();
            away = (!is_back && self.rng.u32(0..3) == 0).then(|| self.rng.u64(1..4));
            let booted = self.cluster.boot(&mut self.rng, away).await;
            booted.map_err(|refused| refused.to_string())?;
            for member in self.cluster.running.values() {
                self.seen.torn += u64::from(member.found.torn_frames);
                self.seen.halfway_installed += u64::from(member.found.was_installing);
            }
        }
        self.check().await
    }

    /// Returns in the middle of the work of many clients.
    async fn load(&mut self) -> Result<Load, String> {
        let members = self.cluster.running.values();
        let services = members.clone().map(|member| &member.service);
        let load = Load::start(services, &self.ledger, &self.numbers);
        let (before, after) = (self.rng.u64(0..30), self.rng.u64(0..30));
        self.acknowledged(before).await?;
        let is_small = members.len() < 3;
        for member in members {
            if is_small || self.rng.bool() {
                member.cutting(is_small || self.rng.bool());
                self.seen.snapshots += 1;
            }
        }
        self.acknowledged(after).await?;
        tokio::time::sleep(Duration::from_micros(self.rng.u64(0..10_000))).await;
        Ok(load)
    }

    /// Waits for so many more answers.
    async fn acknowledged(&self, more: u64) -> Result<(), String> {
        let mut acknowledged = self.ledger.lock().unwrap().acknowledged.subscribe();
        let upto = *acknowledged.borrow() + more;
        let reached = acknowledged.wait_for(|count| *count >= upto);
        let reached = tokio::time::timeout(self.patience, reached).await;
        reached
            .map(drop)
            .map_err(|_| "clients are not answered".into())
    }

    /// Every running member holds what was acknowledged, and they hold the same.
    async fn check(&mut self) -> Result<(), String> {
        let leader = self.cluster.leader(&mut self.rng);
        let leader = tokio::time::timeout(self.patience, leader).await;
        let leader = &self.cluster.running[&leader.map_err(|_| "nobody leads")?];
        let ids = {
            let mut ledger = self.ledger.lock().unwrap();
            self.seen.lost += ledger.lost(&leader.store);
            self.rng
                .choose_multiple(ledger.tasks.keys().cloned(), PAYLOADS_READ)
        };
        let reads = ids.iter().map(|id| load::get(&leader.service, id));
        for (id, found) in ids.iter().zip(futures::future::join_all(reads).await) {
            let found = found.map_err(|error| format!("{id} is not answered: {error}"))?;
            let is_whole = found.payload == ledger::payload_of(id);
            if !is_whole && found.task.state != TaskState::Completed {
                self.seen.lost += 1;
                return Err(format!("{id} has another payload"));
            }
        }
        let hashes = tokio::time::timeout(self.patience, self.cluster.hashes()).await;
        let hashes = hashes.map_err(|_| "not all catch up")?;
        if hashes.iter().any(|hash| *hash != hashes[0]) {
            return Err(format!("the members differ: {hashes:x?}"));
        }
        let members = self.cluster.running.values();
        self.seen.installs += members.filter(|member| member.has_installed()).count() as u64;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_power_cut_of_a_whole_cluster_loses_an_acknowledged_task() {
    // RUST_LOG shows what the members say.
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .init();
    let seed = tally::seed("POWER_CUTS_SEED");
    let mut rng = fastrand::Rng::with_seed(seed);
    let trials = (0..4).map(|_| tokio::spawn(Trial::run(rng.u64(..), 52, false)));
    let mut seen = Seen::default();
    for trial in futures::future::join_all(trials).await {
        seen.add(trial.unwrap());
    }
    println!(
        "{} cuts left half a frame, {} half an install; {} snapshots were cut, {} installed",
        seen.torn, seen.halfway_installed, seen.snapshots, seen.installs
    );
    println!(
        "power cuts: cuts={} acknowledged={} lost={} seed={seed}",
        seen.cuts, seen.acknowledged, seen.lost
    );
    assert!(seen.wrong.is_empty(), "{:#?}", seen.wrong);
    assert_eq!(seen.lost, 0);
    assert!(seen.cuts >= 200 && seen.acknowledged > 1_000, "{seen:?}");
}

/// That the trials can fail: these disks answer an fsync one too early.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_answers_before_it_holds_what_it_was_given_is_found_out() {
    let mut rng = fastrand::Rng::with_seed(tally::seed("POWER_CUTS_SEED"));
    let mut seen = Seen::default();
    while seen.lost == 0 && seen.cuts < 200 {
        seen.add(Trial::run(rng.u64(..), 10, true).await);
    }
    assert!(seen.lost > 0, "{seen:?}");
}
