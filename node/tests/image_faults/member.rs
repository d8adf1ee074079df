//! A member's store on a directory, the work that it does, and what must be in it after each entry: work is a
//! function of the state, so whoever starts at any position goes on in the same way.

use std::collections::BTreeMap;
use std::future::ready;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::storage::RaftStateMachine;
use taskstore::storage::codec::log_id;
use taskstore::storage::image;
use taskstore::storage::log::FatalHook;
use taskstore::storage::machine::Machine;
use taskstore::storage::snapshot::{Look, SnapshotIdentity, Snapshots, survey};
use taskstore::storage::store::{Kept, Origin, Store};
use taskstore::storage::types::{Entry, EntryBytes};
use taskstore::task::command::{
    self, Claim, Command, Create, Lease, NewTask, Settle, SettleAction, TaskState,
};
use taskstore::task::hash;
use taskstore::task::id::{Name, TaskId, Token};
use taskstore::task::state::{At, Bounds, State};

/// Far more than a healthy open of these images takes.
pub const PATIENCE: Duration = Duration::from_secs(6);
const WALL_MS: u64 = 1_700_000_000_000;
/// Around the size of a piece of the image, and several pieces.
const SIZES: [usize; 16] = [
    0, 5, 900, 3_000, 16_383, 1_000, 100, 16_384, 2_000, 700, 16_385, 50, 4_000, 32_768, 300, 1,
];

pub fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

pub fn identity(cluster: &str) -> SnapshotIdentity {
    SnapshotIdentity {
        cluster_id: cluster.into(),
        incarnation: 1,
    }
}

/// What members do: creates, creates, a claim, its settles, and so on.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    creates: u64,
    claims: u32,
    payload_bytes: fn(u64) -> usize,
}

/// Of many sizes; more comes than goes.
pub const MIXED: Work = Work {
    creates: 20,
    claims: 12,
    payload_bytes: mixed,
};
/// As much goes as comes.
pub const STEADY: Work = Work {
    claims: 40,
    ..MIXED
};
/// For a small disk: nearly as much goes as comes.
pub const LARGE: Work = Work {
    creates: 12,
    claims: 20,
    payload_bytes: |number| 200_000 + (number % 7) as usize * 60_000,
};

fn mixed(number: u64) -> usize {
    match number % 50 {
        17 => 100_000,
        _ => SIZES[number as usize % SIZES.len()],
    }
}

impl Work {
    /// The payload of a task tells it apart.
    fn payload(&self, number: u64) -> Bytes {
        let mut bytes = vec![0; (self.payload_bytes)(number)];
        fastrand::Rng::with_seed(number).fill(&mut bytes);
        bytes.into()
    }

    fn new_task(&self, number: u64) -> NewTask {
        let payload = self.payload(number);
        NewTask {
            id: TaskId::parse(&format!("t{number}")).expect("an id"),
            kind: "mail".into(),
            content_type: "text/plain".into(),
            priority: 5,
            not_before_ms: 0,
            lease_ms: 30_000,
            attempts_max: 3,
            payload_hash: hash::of_payload(&payload),
            payload,
        }
    }
}

fn entry(work: &Work, state: &State, index: u64) -> command::Entry {
    let queues = [name("q0"), name("q1")];
    let command = match index % 4 {
        1 | 2 => Command::Create(Create {
            namespace: name("ns"),
            queue: queues[index as usize % 2].clone(),
            tasks: (0..work.creates)
                .map(|n| work.new_task(index * 100 + n))
                .collect(),
        }),
        3 => Command::Claim(Claim {
            namespace: name("ns"),
            queues: queues.into(),
            tasks_max: work.claims,
            bytes_max: 1 << 30,
            lease_ms: 0,
            claim_id: format!("c{index}"),
            worker: "w".into(),
        }),
        _ => Command::Settle(settles(state)),
    };
    command::Entry {
        lease_time_ms: 0,
        wall_time_ms: WALL_MS,
        commands: vec![command],
    }
}

fn settles(state: &State) -> Vec<Settle> {
    let rows = state.tables().tasks.values();
    let running = rows.filter(|row| row.state() == TaskState::Running);
    let settle = |id: &TaskId, token| Settle {
        lease: Lease {
            namespace: name("ns"),
            id: id.clone(),
            token: Token(token),
        },
        action: SettleAction::Complete {
            result: Bytes::from_static(b"fine"),
        },
    };
    running
        .map(|row| settle(&row.id, row.past().token))
        .collect()
}

/// What the state is after each entry.
pub struct Expected {
    work: Work,
    state: State,
    hashes: BTreeMap<u64, u128>,
}

impl Expected {
    pub fn of(work: Work) -> Arc<Mutex<Expected>> {
        let state = State::with_bounds(Bounds::default());
        Arc::new(Mutex::new(Expected {
            work,
            hashes: BTreeMap::from([(0, state.hash())]),
            state,
        }))
    }

    fn hash(&mut self, index: u64) -> u128 {
        while !self.hashes.contains_key(&index) {
            let next = self.hashes.len() as u64;
            let at = At {
                index: next,
                incarnation: 1,
            };
            let entry = entry(&self.work, &self.state, next);
            let applied = self.state.apply(at, entry, &mut Vec::new());
            applied.expect("a known level");
            self.hashes.insert(next, self.state.hash());
        }
        self.hashes[&index]
    }
}

pub struct Member {
    pub store: Arc<Store>,
    pub from_image: bool,
    pub machine: Machine,
    work: Work,
    expected: Arc<Mutex<Expected>>,
}

impl Member {
    /// A start as the table has it: the image if it is good, else the newest good snapshot.
    pub fn start(
        root: &Path,
        cluster: &str,
        expected: Arc<Mutex<Expected>>,
        fatal: FatalHook,
    ) -> io::Result<Member> {
        let (dir, image_dir) = (root.join("snapshots"), root.join("image"));
        let (identity, bounds) = (identity(cluster), Bounds::default());
        let image = image::open_within(PATIENCE, &image_dir, &identity, bounds)?;
        let from_image = image.is_some();
        let surveyed = survey(&dir, &identity, Look::Whole)?;
        let newest = surveyed.iter().find_map(|surveyed| surveyed.good.clone());
        let snapshots = Snapshots::open(&dir, identity, surveyed)?;
        let origin = match (image, newest) {
            (Some(image), _) => Origin::Image(Box::new(image)),
            (None, Some(newest)) => Origin::Snapshot(newest),
            (None, None) => Origin::Nothing,
        };
        let store = Store::with(snapshots, &image_dir, origin, bounds, fatal)?;
        let work = expected.lock().expect("no panic").work;
        Ok(Member {
            machine: Machine::new(store.clone()),
            store,
            from_image,
            work,
            expected,
        })
    }

    pub fn index(&self) -> u64 {
        let (applied, _) = self.store.applied_state();
        applied.map_or(0, |applied| applied.index())
    }

    pub async fn apply_next(&mut self) {
        let index = self.index() + 1;
        let entry = self.store.read(|state| entry(&self.work, state, index));
        let commands: Vec<_> = entry.commands.iter().map(Command::encode).collect();
        let bytes = command::Entry::assemble(0, WALL_MS, &commands);
        let entry = Entry {
            log_id: log_id(1, index),
            payload: EntryPayload::Normal(EntryBytes(bytes.into())),
        };
        let entries = futures::stream::iter([Ok((entry, None))]);
        self.machine.apply(entries).await.expect("applied");
    }

    pub async fn apply_many(&mut self, count: usize) {
        for _ in 0..count {
            self.apply_next().await;
        }
    }

    /// Until the image holds everything.
    pub async fn keep_all(&self) -> io::Result<()> {
        loop {
            let kept = self.store.write_behind(|_| ready(Ok(()))).await?;
            if kept != Kept::Rebuilding {
                return Ok(());
            }
        }
    }

    pub async fn sweep(&self) -> io::Result<()> {
        while self.store.sweep().await? {}
        Ok(())
    }

    pub async fn cut(&self) -> io::Result<()> {
        let cut = self.store.cut_snapshot(|_| ready(Ok(()))).await;
        cut.map(drop)
    }

    /// That the rows are those of the position, and that every payload is there. An error is the store's own;
    /// what it did not notice itself is in the answer.
    pub async fn check(&self) -> io::Result<Result<(), String>> {
        let (hash, index) = (self.store.read(|state| state.hash()), self.index());
        let expected = self.expected.lock().expect("no panic").hash(index);
        if hash != expected {
            return Ok(Err(format!("other rows than at {index}")));
        }
        let tasks: Vec<_> = self.store.read(|state| {
            let tables = state.tables();
            let rows = tables.tasks.values();
            let needed = rows.filter(|row| tables.has_payload(row.seq));
            let view = |id| state.get(&name("ns"), id).expect("it has a row");
            needed.map(|row| view(&row.id)).collect()
        });
        for some in tasks.chunks(16) {
            let found = self.store.payloads(some.iter()).await?;
            for (task, found) in some.iter().zip(found) {
                let number = task.id.to_string()[1..].parse().expect("a number");
                if found != Some(self.work.payload(number)) {
                    return Ok(Err(format!("another payload of {}", task.id)));
                }
            }
        }
        Ok(Ok(()))
    }
}
