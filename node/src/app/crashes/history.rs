//! What the cluster has agreed on: entries, and the hash of the state after each. Made by a leader of which
//! only the rules exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::storage::RaftStateMachine;

use crate::storage::codec::log_id;
use crate::storage::machine::Machine;
use crate::storage::snapshot::{SnapshotHandle, SnapshotIdentity};
use crate::storage::store::Store;
use crate::storage::types::{Entry, EntryBytes, LogId, MemberName, Membership};
use crate::task::command::{self, Claimed, Command, Create, Lease, NewTask, Outcome, Settle};
use crate::task::hash::of_payload;
use crate::task::state::{At, Bounds};
use crate::task::tests::{World, claim_of, complete, fail, id, name, task};

pub const ENTRIES: u64 = 160;
/// Here the leader of term 1 is followed by that of term 2.
pub const SECOND_TERM: u64 = 60;
pub const MEMBER: u64 = (1 << 32) + 1;

pub struct History {
    pub entries: Vec<Entry>,
    hashes: Vec<u128>,
}

fn commands(world: &World, index: u64, claimed: &mut Vec<Claimed>) -> Vec<Command> {
    let new = |n: u64| {
        let payload = Bytes::from(vec![n as u8; (n * 37 % 700) as usize]);
        NewTask {
            payload_hash: of_payload(&payload),
            payload,
            ..task(&format!("t{n}"))
        }
    };
    match index % 4 {
        0 => vec![Command::Tick],
        1 => vec![Command::Create(Create {
            namespace: name("ns"),
            queue: name("q"),
            tasks: vec![new(2 * index), new(2 * index + 1)],
        })],
        2 => vec![Command::Claim(claim_of(&["q"], &format!("c{index}"), 2))],
        _ => {
            let settled = claimed.drain(..claimed.len().min(1)).map(|one| Settle {
                lease: Lease {
                    namespace: name("ns"),
                    id: id(&one.task.id.to_string()),
                    token: one.token,
                },
                action: if world.index % 8 == 3 {
                    fail()
                } else {
                    complete()
                },
            });
            vec![Command::Settle(settled.collect())]
        }
    }
}

impl History {
    pub fn new() -> History {
        let mut world = World::new();
        let names = BTreeMap::from([(MEMBER, MemberName("m-1".into()))]);
        let alone = Membership::new(vec![BTreeSet::from([MEMBER])], names).unwrap();
        world.state.note_members([MEMBER]);
        let first = Entry {
            log_id: log_id(1, 0),
            payload: EntryPayload::Membership(alone),
        };
        let mut history = History {
            entries: vec![first],
            hashes: vec![world.state.hash()],
        };
        let mut claimed = Vec::new();
        for index in 1..ENTRIES {
            let commands = commands(&world, index, &mut claimed);
            let entry = command::Entry {
                lease_time_ms: world.lease_time_ms,
                wall_time_ms: world.wall_time_ms,
                commands: commands.clone(),
            };
            for outcome in world.apply(commands) {
                if let Outcome::Claimed(more) = outcome {
                    claimed.extend(more);
                }
            }
            world.lease_time_ms += 100;
            world.wall_time_ms += 100;
            let bytes = postcard::to_stdvec(&entry).unwrap();
            history.entries.push(Entry {
                log_id: log_id(if index < SECOND_TERM { 1 } else { 2 }, index),
                payload: EntryPayload::Normal(EntryBytes(bytes.into())),
            });
            history.hashes.push(world.state.hash());
        }
        assert!(claimed.len() < 100, "most of what is claimed is settled");
        history
    }

    pub fn slice(&self, indexes: std::ops::Range<u64>) -> Vec<Entry> {
        self.entries[indexes.start as usize..indexes.end as usize].to_vec()
    }

    pub fn id(&self, index: u64) -> LogId {
        self.entries[index as usize].log_id
    }

    pub fn is_agreed(&self, log_id: LogId) -> bool {
        let entry = self.entries.get(log_id.index as usize);
        entry.is_some_and(|entry| entry.log_id == log_id)
    }

    /// Of the state after this entry. Entries that nobody agreed to change nothing.
    pub fn hash(&self, last: Option<LogId>) -> u128 {
        match last {
            None => World::new().state.hash(),
            Some(last) if self.is_agreed(last) => self.hashes[last.index as usize],
            Some(_) => self.hashes[SECOND_TERM as usize - 1],
        }
    }

    /// Of the state that a later incarnation begins with behind this entry, all before it applied.
    pub fn hash_rewritten(&self, last: LogId, member_id: u64) -> u128 {
        let mut world = World::new();
        world.state.note_members([MEMBER]);
        let at = |incarnation, index| At { index, incarnation };
        for entry in &self.entries[..=last.index as usize] {
            if let (EntryPayload::Normal(bytes), true) = (&entry.payload, entry.log_id <= last) {
                let commands = postcard::from_bytes(&bytes.0).unwrap();
                let at = at(1, entry.log_id.index);
                world.state.apply(at, commands, &mut Vec::new()).unwrap();
            }
        }
        let incarnation = (member_id >> 32) as u16;
        world.state.rewrite(at(incarnation, last.index), member_id);
        world.state.hash()
    }

    /// What the leader of term 1 wrote and could not commit.
    pub fn stray(&self, count: u64) -> Vec<Entry> {
        let blank = |index| Entry {
            log_id: log_id(1, index),
            payload: EntryPayload::Blank,
        };
        (SECOND_TERM..SECOND_TERM + count).map(blank).collect()
    }

    /// Another member's, up to this entry and with it.
    pub async fn snapshot(&self, directory: &Path, index: u64) -> SnapshotHandle {
        let identity = SnapshotIdentity {
            cluster_id: "c".into(),
            incarnation: 1,
        };
        let store = Store::open(directory, identity, None, Bounds::default()).unwrap();
        apply(&mut Machine::new(store.clone()), self.slice(0..index + 1)).await;
        cut(&store).await.expect("something new")
    }
}

pub async fn apply(machine: &mut Machine, entries: Vec<Entry>) {
    let entries = entries.into_iter().map(|entry| Ok((entry, None)));
    machine.apply(futures::stream::iter(entries)).await.unwrap();
}

async fn cut(store: &Arc<Store>) -> Option<SnapshotHandle> {
    store
        .cut_snapshot(|_| std::future::ready(Ok(())))
        .await
        .unwrap()
}
