//! What a task's row takes in memory, index included, and how fast apply goes: by hand, on a quiet machine.
//!
//! `cargo run --release -p taskstore-node --example task_weight -- pending`, or `scheduled`, `completed`,
//! `speed`: one at a time, so that one does not re-use what another freed.

use std::time::Duration;

use bytes::Bytes;
use taskstore::task::command::{
    Claim, Command, Create, Entry, Lease, NewTask, Outcome, Settle, SettleAction,
};
use taskstore::task::hash::of_payload;
use taskstore::task::id::{Name, TaskId};
use taskstore::task::state::{At, Bounds, State};
use taskstore::task::tables::Tables;

/// Some day in 2026.
const START_MS: u64 = 1_790_000_000_000;
const ROWS: u64 = 1_000_000;
const BATCH: u64 = 100;

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split(' ').nth(1).expect("resident pages");
    pages.parse::<u64>().expect("a number") * 4096
}

/// Time of this thread on a processor: others at work on the machine count less than on a clock.
fn busy() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanos = stat.split(' ').next().expect("time on a processor");
    Duration::from_nanos(nanos.parse().expect("a number"))
}

/// A UUIDv7 of this number: time first, the rest scattered.
fn uuid(n: u64) -> String {
    let ms = START_MS + n / BATCH;
    let scattered = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!(
        "{:08x}-{:04x}-7{:03x}-{:04x}-{:012x}",
        ms >> 16,
        ms & 0xffff,
        scattered >> 52,
        0x8000 | (scattered >> 36) & 0x3fff,
        scattered.wrapping_mul(scattered | 1) & 0xffff_ffff_ffff,
    )
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a good name")
}

#[derive(Default)]
struct Bench {
    state: State,
    index: u64,
    wall_time_ms: u64,
    /// A copy of the tables is taken every so many entries, and kept until the next.
    copy_every: Option<u64>,
    copy: Tables,
}

impl Bench {
    fn apply(&mut self, command: Command, spent: &mut Duration) -> Outcome {
        self.index += 1;
        self.wall_time_ms = START_MS + self.index;
        let at = At {
            index: self.index,
            incarnation: 1,
        };
        let entry = Entry {
            lease_time_ms: self.index,
            wall_time_ms: self.wall_time_ms,
            commands: vec![command],
        };
        let mut effects = Vec::new();
        let before = busy();
        if self
            .copy_every
            .is_some_and(|every| self.index.is_multiple_of(every))
        {
            self.copy = self.state.tables().clone();
        }
        let outcomes = self.state.apply(at, entry, &mut effects);
        *spent += busy() - before;
        outcomes.expect("a known level").remove(0)
    }

    fn create(&mut self, not_before_ms: u64, spent: &mut Duration) {
        let payload = Bytes::from_static(&[7; 1024]);
        for first in (0..ROWS).step_by(BATCH as usize) {
            let tasks = (first..first + BATCH)
                .map(|n| NewTask {
                    id: TaskId::parse(&uuid(n)).expect("a UUID is an id"),
                    kind: "mail".into(),
                    content_type: "text/plain".into(),
                    priority: 5,
                    not_before_ms: not_before_ms + if not_before_ms > 0 { n } else { 0 },
                    lease_ms: 3_600_000,
                    attempts_max: 3,
                    payload_hash: of_payload(&payload),
                    payload: payload.clone(),
                })
                .collect();
            let create = Create {
                namespace: name("ns"),
                queue: name("q"),
                tasks,
            };
            let outcome = self.apply(Command::Create(create), spent);
            let Outcome::Created(created) = outcome else {
                panic!("{outcome:?}")
            };
            assert!(created.iter().all(|one| one.is_ok()));
        }
    }

    fn claim_and_complete(&mut self, claims: &mut Duration, settles: &mut Duration) {
        for round in 0..ROWS / BATCH {
            let claim = Claim {
                namespace: name("ns"),
                queues: vec![name("q")],
                tasks_max: BATCH as u32,
                bytes_max: 1 << 20,
                lease_ms: 0,
                claim_id: format!("c{round}"),
                worker: "w".into(),
            };
            let outcome = self.apply(Command::Claim(claim), claims);
            let Outcome::Claimed(claimed) = outcome else {
                panic!("{outcome:?}")
            };
            assert_eq!(claimed.len() as u64, BATCH);
            let settled = claimed.into_iter().map(|one| Settle {
                lease: Lease {
                    namespace: name("ns"),
                    id: one.task.id,
                    token: one.token,
                },
                action: SettleAction::Complete {
                    result: Bytes::new(),
                },
            });
            let settle = Command::Settle(settled.collect());
            let outcome = self.apply(settle, settles);
            let Outcome::Settled(settled) = outcome else {
                panic!("{outcome:?}")
            };
            assert!(settled.iter().all(|one| one.is_ok()));
        }
    }
}

fn bench() -> Bench {
    let bounds = Bounds {
        payloads_bytes_max: u64::MAX,
        ..Bounds::default()
    };
    Bench {
        state: State::with_bounds(bounds),
        ..Bench::default()
    }
}

fn report(what: &str, bench: &Bench, before: u64) {
    assert_eq!(bench.state.task_rows(), ROWS);
    let bytes = resident_bytes() - before;
    println!("{what}: {} bytes a row", bytes / ROWS);
}

fn main() {
    let (before, mut bench, mut spent) = (resident_bytes(), bench(), Duration::default());
    let what = std::env::args().nth(1).unwrap_or_default();
    match what.as_str() {
        "pending" => bench.create(0, &mut spent),
        "scheduled" => bench.create(START_MS + 86_400_000, &mut spent),
        "completed" => {
            bench.create(0, &mut spent);
            bench.claim_and_complete(&mut Duration::default(), &mut spent);
        }
        "speed" => return speed(),
        _ => panic!("pending, scheduled, completed or speed"),
    }
    report(&what, &bench, before);
}

/// With and without copies of the tables, which make every change copy a part of the maps.
fn speed() {
    for copy_every in [None, Some(100)] {
        let mut rates = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..3 {
            let mut spent = [Duration::ZERO; 3];
            let [create, claim, complete] = &mut spent;
            let mut bench = Bench {
                copy_every,
                ..bench()
            };
            bench.create(0, create);
            bench.claim_and_complete(claim, complete);
            for (rates, spent) in rates.iter_mut().zip(spent) {
                rates.push((ROWS as f64 / spent.as_secs_f64()) as u64);
            }
        }
        let [create, claim, complete] = rates.map(|mut rates| {
            rates.sort();
            rates[1]
        });
        println!(
            "a copy every {copy_every:?} entries: {create} creates/s, {claim} claims/s, {complete} completes/s"
        );
    }
}
