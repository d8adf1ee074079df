//! What clients were told, and whether a member still holds all of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use taskstore::storage::store::Store;
use taskstore::task::command::{TaskState, TaskView};
use taskstore::task::id::{Name, TaskId};
use tokio::sync::watch;

pub fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub fn namespace() -> Name {
    name("n")
}

/// Tells by itself which task it belongs to. Most frames have several sectors, so that half of one can be
/// lost.
pub fn payload_of(id: &str) -> Bytes {
    Bytes::from(id.repeat(200))
}

/// What is known of a task whose create was acknowledged, or that was given to a worker.
#[derive(Debug, Default, Clone)]
pub struct Told {
    pub token: Option<u64>,
    pub asked_to_end: bool,
    pub ended: bool,
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub tasks: BTreeMap<String, Told>,
    /// Creates, claims and settles.
    pub acknowledged: watch::Sender<u64>,
    pub wrong: Vec<String>,
}

impl Ledger {
    pub fn created(&mut self, id: &str) {
        self.acknowledged.send_modify(|count| *count += 1);
        self.tasks.entry(id.into()).or_default();
    }

    pub fn claimed(&mut self, task: &TaskView, payload: &Bytes, token: u64) {
        self.acknowledged.send_modify(|count| *count += 1);
        let id = &*task.id.to_string();
        if *payload != payload_of(id) {
            self.wrong.push(format!("{id} came with another payload"));
        }
        let told = self.tasks.entry(id.into()).or_default();
        if told.token.is_some() {
            self.wrong
                .push(format!("{id} was given to a second worker: {told:?}"));
        }
        told.token = Some(token);
    }

    pub fn ending(&mut self, id: &str) {
        self.tasks.entry(id.into()).or_default().asked_to_end = true;
    }

    pub fn ended(&mut self, id: &str) {
        self.acknowledged.send_modify(|count| *count += 1);
        self.tasks.entry(id.into()).or_default().ended = true;
    }

    /// How many tasks a member does not hold as clients were told. Each is counted once.
    pub fn lost(&mut self, store: &Store) -> u64 {
        let view = |id: &str| {
            let id = TaskId::parse(id).unwrap();
            store.read(|state| state.get(&namespace(), &id))
        };
        let tasks = self.tasks.iter();
        let lost: Vec<(String, String)> = tasks
            .filter_map(|(id, told)| Some((id.clone(), wrong(told, view(id).as_ref())?)))
            .collect();
        for (id, reason) in &lost {
            self.tasks.remove(id);
            self.wrong.push(format!("{id}: {reason}"));
        }
        lost.len() as u64
    }
}

fn wrong(told: &Told, found: Option<&TaskView>) -> Option<String> {
    let Some(found) = found else {
        return Some(format!("is gone, {told:?}"));
    };
    let states: &[TaskState] = match told {
        Told { ended: true, .. } => &[TaskState::Completed],
        Told {
            asked_to_end: true, ..
        } => &[TaskState::Running, TaskState::Completed],
        Told { token: Some(_), .. } => &[TaskState::Running],
        // A claim whose answer nobody got may have taken it.
        Told { token: None, .. } => &[TaskState::Available, TaskState::Running],
    };
    let is_other_lease = told.token.is_some_and(|token| token != found.token);
    (is_other_lease || !states.contains(&found.state))
        .then(|| format!("is {:?} under {}, {told:?}", found.state, found.token))
}
