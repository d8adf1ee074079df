//! Tests of the rules, and the small world they play in.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::command::{
    Claim, Claimed, Command, Create, Created, Entry, Extend, Lease, NewTask, Outcome, Rejection,
    Settle, SettleAction, Settled, TaskView,
};
use super::id::{Name, TaskId, Token};
use super::load::Loader;
use super::state::{At, Bounds, PayloadEffect, State};

mod claims;
mod clocks;
mod creates;
pub mod golden;
mod ids;
mod members;
mod model;
mod properties;
mod reads;
mod rewrites;
mod rows;
mod settles;
mod table;

pub fn name(text: &str) -> Name {
    Name::parse(text).expect("tests use good names")
}

pub fn id(text: &str) -> TaskId {
    TaskId::parse(text).expect("tests use good ids")
}

pub fn task(text: &str) -> NewTask {
    NewTask {
        id: id(text),
        kind: "mail".into(),
        content_type: "text/plain".into(),
        priority: 5,
        not_before_ms: 0,
        lease_ms: 30_000,
        attempts_max: 3,
        payload_hash: crate::task::hash::of_payload(text.as_bytes()),
        payload: Bytes::from(text.to_owned()),
    }
}

pub fn claim_of(queues: &[&str], claim_id: &str, tasks_max: u32) -> Claim {
    Claim {
        namespace: name("ns"),
        queues: queues.iter().map(|queue| name(queue)).collect(),
        tasks_max,
        bytes_max: 1 << 20,
        lease_ms: 0,
        claim_id: claim_id.into(),
        worker: "w".into(),
    }
}

pub fn complete() -> SettleAction {
    SettleAction::Complete {
        result: Bytes::from_static(b"fine"),
    }
}

pub fn fail() -> SettleAction {
    SettleAction::Fail {
        error: "no".into(),
        retry_after_ms: None,
        discard: false,
    }
}

pub fn discard() -> SettleAction {
    SettleAction::Fail {
        error: "never".into(),
        retry_after_ms: None,
        discard: true,
    }
}

/// A state with clocks that a test moves, and the payloads it says are held.
pub struct World {
    pub state: State,
    pub payloads: BTreeMap<u64, Bytes>,
    pub index: u64,
    pub incarnation: u16,
    pub lease_time_ms: u64,
    pub wall_time_ms: u64,
}

pub const START_MS: u64 = 1_700_000_000_000;

impl World {
    #[allow(clippy::new_without_default, reason = "a test says World::new()")]
    pub fn new() -> World {
        World::with(Bounds::default())
    }

    pub fn with(bounds: Bounds) -> World {
        World {
            state: State::with_bounds(bounds),
            payloads: BTreeMap::new(),
            index: 0,
            incarnation: 1,
            lease_time_ms: 0,
            wall_time_ms: START_MS,
        }
    }

    pub fn apply(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        self.index += 1;
        let at = At {
            index: self.index,
            incarnation: self.incarnation,
        };
        let entry = Entry {
            lease_time_ms: self.lease_time_ms,
            wall_time_ms: self.wall_time_ms,
            commands,
        };
        let mut effects = Vec::new();
        let outcomes = self
            .state
            .apply(at, entry, &mut effects)
            .expect("a known level");
        for effect in effects {
            match effect {
                PayloadEffect::Keep { seq, payload } => {
                    assert_eq!(self.payloads.insert(seq, payload), None)
                }
                PayloadEffect::Drop { seq } => assert!(self.payloads.remove(&seq).is_some()),
            }
        }
        outcomes
    }

    fn one(&mut self, command: Command) -> Outcome {
        self.apply(vec![command]).remove(0)
    }

    pub fn tick(&mut self) {
        assert_eq!(self.one(Command::Tick), Outcome::Done);
    }

    /// Both clocks move, then a tick.
    pub fn pass(&mut self, ms: u64) {
        self.lease_time_ms += ms;
        self.wall_time_ms += ms;
        self.tick();
    }

    pub fn create(&mut self, queue: &str, tasks: Vec<NewTask>) -> Vec<Result<Created, Rejection>> {
        match self.one(Command::Create(Create {
            namespace: name("ns"),
            queue: name(queue),
            tasks,
        })) {
            Outcome::Created(results) => results,
            other => panic!("{other:?}"),
        }
    }

    pub fn claim(&mut self, claim: Claim) -> Vec<Claimed> {
        match self.one(Command::Claim(claim)) {
            Outcome::Claimed(tasks) => tasks,
            other => panic!("{other:?}"),
        }
    }

    pub fn settle(
        &mut self,
        text: &str,
        token: Token,
        action: SettleAction,
    ) -> Result<Settled, Rejection> {
        let lease = Lease {
            namespace: name("ns"),
            id: id(text),
            token,
        };
        match self.one(Command::Settle(vec![Settle { lease, action }])) {
            Outcome::Settled(mut results) => results.remove(0),
            other => panic!("{other:?}"),
        }
    }

    pub fn extend(&mut self, text: &str, token: Token, lease_ms: u64) -> Result<u64, Rejection> {
        let lease = Lease {
            namespace: name("ns"),
            id: id(text),
            token,
        };
        match self.one(Command::Extend(Extend { lease, lease_ms })) {
            Outcome::Extended(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub fn get(&self, text: &str) -> Option<TaskView> {
        self.state.get(&name("ns"), &id(text))
    }

    /// What must hold after every entry: the kept hash is that of the rows, the indexes are those of the
    /// rows, and payloads are held for exactly the unfinished tasks.
    pub fn check(&self) {
        assert_eq!(self.state.hash(), self.state.tables().rehash());
        let rebuilt = reload(&self.state);
        assert_eq!(self.state.index.facts(), rebuilt.index.facts());
        assert_eq!(self.state.next_deadlines(), rebuilt.next_deadlines());
        let unfinished = self
            .state
            .tables()
            .tasks
            .values()
            .filter(|row| row.finished_ms().is_none());
        assert!(
            unfinished
                .map(|row| row.seq)
                .eq(self.payloads.keys().copied())
        );
        assert_eq!(
            self.state.payload_bytes(),
            self.payloads.values().map(|p| p.len() as u64).sum::<u64>()
        );
    }
}

/// The state as a snapshot would bring it back.
pub fn reload(state: &State) -> State {
    let tables = state.tables();
    let mut loader = Loader::new(tables.meta.clone(), state.bounds);
    for (id, name) in tables.namespaces.iter() {
        loader.namespace(*id, name.clone()).expect("in order");
    }
    for queue in tables.queues.values() {
        loader.queue((**queue).clone()).expect("in order");
    }
    for row in tables.tasks.values() {
        loader.task((**row).clone()).expect("in order");
    }
    loader.finish(tables.hash()).expect("the same hash")
}
