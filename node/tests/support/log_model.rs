//! A model of what a log must hold, and a log that is driven beside it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use taskstore::storage::codec::log_id;
use taskstore::storage::log::disk::SystemDisk;
use taskstore::storage::log::recovery::recover;
use taskstore::storage::log::{Geometry, LogError, LogHooks, segment};
use taskstore::storage::log_store::{LogOptions, LogStore};
use taskstore::storage::types::{Entry, EntryBytes, LogId, TypeConfig, Vote};

use crate::faults::FaultDisk;

pub const SALT: u32 = 7;

#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    Append(Vec<Entry>),
    Vote(Vote),
    Truncate(Option<LogId>),
    Purge(LogId),
}

/// What the log must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    pub entries: BTreeMap<u64, Entry>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    pub vote: Option<Vote>,
}

impl Model {
    pub fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Append(entries) => {
                self.entries.extend(
                    entries
                        .iter()
                        .map(|entry| (entry.log_id.index, entry.clone())),
                );
                self.last = entries.last().map_or(self.last, |entry| Some(entry.log_id));
            }
            Operation::Vote(vote) => self.vote = Some(*vote),
            Operation::Truncate(to) => {
                drop(self.entries.split_off(&to.map_or(0, |to| to.index + 1)));
                self.last = (*to).max(self.purged);
            }
            Operation::Purge(to) => {
                self.entries = self.entries.split_off(&(to.index + 1));
                self.purged = Some(*to);
                self.last = self.last.max(self.purged);
            }
        }
    }

    pub fn next(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    /// The next thing that happens to a log, in proportions that make every kind of frame.
    pub fn random(&self, rng: &mut fastrand::Rng, term: &mut u64) -> Operation {
        let kept = self.last.filter(|_| !self.entries.is_empty());
        match (rng.u32(0..100), kept) {
            (0..10, _) => {
                *term += 1;
                Operation::Vote(Vote::new(*term, rng.u64(1..4)))
            }
            (10..16, Some(last)) => {
                let first = self.entries.keys().next().copied().unwrap_or(0);
                *term += 1;
                let to = rng.u64(first..=last.index);
                Operation::Truncate(self.entries.get(&to).map(|entry| entry.log_id))
            }
            (16..26, Some(last)) => {
                let to = rng.u64(self.entries.keys().next().copied().unwrap_or(0)..=last.index);
                Operation::Purge(self.entries[&to].log_id)
            }
            (26..28, Some(last)) => {
                *term += 1;
                Operation::Purge(log_id(*term, last.index + rng.u64(1..20)))
            }
            _ => Operation::Append(self.random_entries(rng, *term)),
        }
    }

    pub fn random_entries(&self, rng: &mut fastrand::Rng, term: u64) -> Vec<Entry> {
        let next = self.next();
        (next..next + rng.u64(1..4))
            .map(|index| {
                let payload = match rng.u32(0..10) {
                    0 => EntryPayload::Blank,
                    _ => {
                        let bytes: Vec<u8> = (0..rng.usize(0..1200)).map(|_| rng.u8(..)).collect();
                        EntryPayload::Normal(EntryBytes(Bytes::from(bytes)))
                    }
                };
                Entry {
                    log_id: log_id(term, index),
                    payload,
                }
            })
            .collect()
    }
}

/// A log with a history: `states[k]` is what it must hold after k steps.
pub struct Driver {
    pub log: LogStore<FaultDisk>,
    pub disk: FaultDisk,
    pub states: Vec<Model>,
    pub fatal: Arc<Mutex<Vec<String>>>,
    pub term: u64,
    waiting: Vec<tokio::sync::oneshot::Receiver<io::Result<()>>>,
}

impl Driver {
    pub fn new(
        directory: &Path,
        geometry: Geometry,
        disk: FaultDisk,
        options: LogOptions,
    ) -> Driver {
        segment::format(directory, geometry, segment::Space::All).unwrap();
        Driver::open(directory, geometry, disk, options, Model::default())
    }

    pub fn open(
        directory: &Path,
        geometry: Geometry,
        disk: FaultDisk,
        options: LogOptions,
        state: Model,
    ) -> Driver {
        let recovered = recover(directory, geometry, SALT, disk.clone()).unwrap();
        let fatal = Arc::new(Mutex::new(Vec::new()));
        let noted = fatal.clone();
        let hooks = LogHooks::only_fatal(Arc::new(move |what, error| {
            noted.lock().unwrap().push(format!("{what}: {error}"));
        }));
        let log = LogStore::start(recovered, options, hooks).unwrap();
        Driver {
            log,
            disk,
            states: vec![state],
            fatal,
            term: 1,
            waiting: Vec::new(),
        }
    }

    pub fn state(&self) -> &Model {
        self.states.last().unwrap()
    }

    /// Does it; an append may still wait for its flush on return.
    pub async fn run(&mut self, operation: Operation) -> io::Result<()> {
        // The entries of one append may stand in two frames, so each of them is a step.
        let steps = match &operation {
            Operation::Append(entries) => entries
                .iter()
                .map(|entry| Operation::Append(vec![entry.clone()]))
                .collect(),
            other => vec![other.clone()],
        };
        for step in steps {
            let mut next = self.state().clone();
            next.apply(&step);
            self.states.push(next);
        }
        match operation {
            Operation::Append(entries) => {
                let (done, on_disk) = TypeConfig::oneshot();
                self.log.append(entries, IOFlushed::signal(done)).await?;
                self.waiting.push(on_disk);
                return Ok(());
            }
            Operation::Vote(vote) => self.log.save_vote(&vote).await?,
            Operation::Truncate(to) => self.log.truncate_after(to).await?,
            Operation::Purge(to) => self.log.purge(to).await?,
        }
        self.acked().await
    }

    /// Waits until everything is acknowledged.
    pub async fn acked(&mut self) -> io::Result<()> {
        for on_disk in self.waiting.drain(..) {
            on_disk.await.map_err(io::Error::other)??;
        }
        self.disk.acked(self.states.len() - 1);
        Ok(())
    }
}

/// How a trial ended.
#[derive(Debug, PartialEq)]
pub enum End {
    /// The log holds what it held after so many operations.
    Holds {
        operations: usize,
        torn_frames: u32,
    },
    Damage(String),
    /// It opened without what was acknowledged: never.
    Silent(String),
}

/// Opens a log and compares it with every state it may be in.
pub async fn open_and_compare(
    directory: &Path,
    geometry: Geometry,
    acked: usize,
    states: &[Model],
) -> End {
    let recovered = match recover(directory, geometry, SALT, SystemDisk) {
        Ok(recovered) => recovered,
        Err(LogError::Damage(reason)) => return End::Damage(reason),
        Err(LogError::Io(error)) => panic!("{error}"),
    };
    let torn_frames = recovered.torn_frames;
    let hooks = LogHooks::only_fatal(Arc::new(|what, error| panic!("{what}: {error}")));
    let mut log = LogStore::start(recovered, LogOptions::default(), hooks).unwrap();
    let state = log.get_log_state().await.unwrap();
    let entries = log.try_get_log_entries(..).await.unwrap();
    let found = Model {
        entries: entries
            .into_iter()
            .map(|entry| (entry.log_id.index, entry))
            .collect(),
        purged: state.last_purged_log_id,
        last: state.last_log_id,
        vote: log.read_vote().await.unwrap(),
    };
    match states
        .iter()
        .enumerate()
        .skip(acked)
        .find(|(_, state)| **state == found)
    {
        Some((operations, _)) => End::Holds {
            operations,
            torn_frames,
        },
        None => End::Silent(format!(
            "holds {:?}..{:?} and {:?}; {:?} was acknowledged",
            found.purged, found.last, found.vote, states[acked].last
        )),
    }
}
