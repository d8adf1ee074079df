//! A member without Raft: opened as the process opens it, driven as openraft drives it.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures::TryStreamExt;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage, RaftStateMachine};
use openraft::type_config::TypeConfigExt;

use super::history::{self, History, MEMBER};
use super::promises::{Life, Promises};
use crate::app::disk::{self, Disk, Opened};
use crate::config::{Config, MemberIdentity};
use crate::member::{Member, Phase};
use crate::metrics::Metrics;
use crate::raft::certs::Authority;
use crate::raft::transport::tls::TlsStore;
use crate::storage::identity::{Content, Volume};
use crate::storage::log::Geometry;
use crate::storage::machine::{Machine, with_meta};
use crate::storage::snapshot::{Position, SnapshotHandle, SnapshotIdentity, SnapshotReceiver};
use crate::storage::store::position;
use crate::storage::types::{Entry, LogId, TypeConfig, Vote};
use crate::task::command::TaskView;
use crate::task::tests::name;

/// Small: each step of it is copied.
pub const GEOMETRY: Geometry = Geometry {
    segment_bytes: 16 << 10,
    segments: 4,
};

/// What all members of all scenarios share.
pub struct Rig {
    pub history: History,
    tls: Arc<TlsStore>,
    metrics: Arc<Metrics>,
}

impl Rig {
    pub fn new() -> Rig {
        let directory = tempfile::tempdir().unwrap();
        let issued = Authority::new("c").unwrap().member(MEMBER).unwrap();
        issued.write_to(directory.path()).unwrap();
        Rig {
            history: History::new(),
            tls: Arc::new(TlsStore::load(directory.path()).unwrap()),
            metrics: Arc::default(),
        }
    }

    fn config(&self, root: &Path) -> Config {
        self.config_of(root, MEMBER)
    }

    /// Of this member, on the same volume.
    pub fn config_of(&self, root: &Path, member_id: u64) -> Config {
        let incarnation = (member_id >> 32) as u16;
        let member = MemberIdentity {
            cluster_id: "c".into(),
            incarnation,
            member_id,
            volume_uid: "v".into(),
            name: format!("m-{incarnation}"),
        };
        Config::new(root.into(), member, root.join("tls"))
    }

    /// Without Raft; what the process would tell of it.
    pub fn member(&self, config: Config) -> Arc<Member> {
        Arc::new(Member::new(config, self.tls.clone()))
    }

    /// As the operator orders it, with a small log. What was there before.
    pub fn format_if_blank(&self, root: &Path) -> Result<Life, String> {
        let said = |error| format!("{error}");
        let volume = Volume::open(root).map_err(|error| error.to_string())?;
        let Content::Blank = volume.content().map_err(said)? else {
            return Ok(Life::Member);
        };
        let identity = disk::identity(&self.config(root));
        volume.format(identity, GEOMETRY).map_err(said)?;
        Ok(Life::Blank)
    }

    /// An error: the member refuses its disk. `None`: it was removed.
    async fn open(&self, config: Config) -> Result<Option<Box<Disk>>, String> {
        let member = self.member(config);
        match disk::open(&member, &self.metrics).await {
            Ok(Opened::Ready(disk)) => Ok(Some(disk)),
            Ok(Opened::Idle(Phase::Removed)) => Ok(None),
            Ok(Opened::Idle(phase)) => Err(format!("{phase:?}")),
            Err(error) => Err(format!("{error:#}")),
        }
    }

    /// With everything applied that the log says is committed.
    pub async fn try_start(
        &self,
        root: &Path,
        promises: Arc<Mutex<Promises>>,
    ) -> Result<Option<Driver>, String> {
        self.try_start_as(self.config(root), promises).await
    }

    /// The same, as another member.
    pub async fn try_start_as(
        &self,
        config: Config,
        promises: Arc<Mutex<Promises>>,
    ) -> Result<Option<Driver>, String> {
        let Some(disk) = self.open(config).await? else {
            return Ok(None);
        };
        // As the service does first.
        let verified = disk.store.snapshots().verify();
        verified.map_err(|error| error.to_string())?;
        let machine = Machine::new(disk.store.clone());
        let mut driver = Driver {
            disk,
            machine,
            promises,
        };
        let applied = driver.apply_committed().await;
        applied.map_err(|error| error.to_string())?;
        Ok(Some(driver))
    }

    pub fn snapshot_identity(&self) -> SnapshotIdentity {
        disk::of_snapshots(&disk::identity(&self.config(Path::new(""))))
    }
}

pub struct Driver {
    pub disk: Box<Disk>,
    pub machine: Machine,
    promises: Arc<Mutex<Promises>>,
}

/// Asked for now; acknowledged when it is done.
macro_rules! promise {
    ($driver:ident, $what:ident, $asked:expr, $done:expr) => {{
        let asked = Vec::from($asked);
        let last = asked.last().expect("something is asked for").clone();
        $driver.promises.lock().unwrap().$what.extend(asked);
        let done = $done;
        $driver.promises.lock().unwrap().$what = vec![last];
        done
    }};
}

impl Driver {
    pub async fn append(&mut self, entries: Vec<Entry>) {
        let ids: Vec<_> = entries.iter().map(|entry| Some(entry.log_id)).collect();
        promise!(self, lasts, ids, {
            let (done, on_disk) = TypeConfig::oneshot();
            let appended = self.disk.log.append(entries, IOFlushed::signal(done));
            appended.await.unwrap();
            on_disk.await.unwrap().unwrap();
        })
    }

    pub async fn vote(&mut self, vote: Vote) {
        promise!(self, votes, [Some(vote)], {
            self.disk.log.save_vote(&vote).await.unwrap()
        })
    }

    pub async fn truncate_after(&mut self, last: LogId) {
        promise!(self, lasts, [Some(last)], {
            self.disk.log.truncate_after(Some(last)).await.unwrap()
        })
    }

    /// Appends, commits and applies.
    pub async fn agree(&mut self, entries: Vec<Entry>) {
        self.append(entries.clone()).await;
        let last = entries.last().map(|entry| entry.log_id);
        self.disk.log.save_committed(last).await.unwrap();
        history::apply(&mut self.machine, entries).await;
    }

    pub async fn apply_committed(&mut self) -> io::Result<()> {
        let Some(committed) = self.disk.log.read_committed().await? else {
            return Ok(());
        };
        self.apply_upto(committed.index).await
    }

    /// Everything in the log: a member that is elected alone commits it.
    pub async fn apply_all(&mut self) -> io::Result<()> {
        match self.last().await {
            Some(last) => self.apply_upto(last.index).await,
            None => Ok(()),
        }
    }

    async fn apply_upto(&mut self, last: u64) -> io::Result<()> {
        let next = self.applied().map_or(0, |applied| applied.index + 1);
        let entries = self.disk.log.entries_stream(next..last + 1).await;
        let entries: Vec<Entry> = entries.try_collect().await?;
        let entries = entries.into_iter().map(|entry| Ok((entry, None)));
        self.machine.apply(futures::stream::iter(entries)).await
    }

    pub fn applied(&self) -> Option<LogId> {
        self.disk.store.applied_state().0
    }

    pub async fn last(&mut self) -> Option<LogId> {
        let state = self.disk.log.get_log_state().await.unwrap();
        state.last_log_id
    }

    pub fn hash(&self) -> u128 {
        self.disk.store.read(|state| state.hash())
    }

    /// One that is not finished and whose payload cannot be read.
    pub async fn task_without_payload(&self) -> Option<u64> {
        let tasks: Vec<TaskView> = self.disk.store.read(|state| {
            let rows = state.tables().tasks.values();
            let unfinished = rows.filter(|row| row.finished_ms().is_none());
            unfinished
                .filter_map(|row| state.get(&name("ns"), &row.id))
                .collect()
        });
        let read = self.disk.store.payloads(tasks.iter()).await;
        let payloads = read.expect("the disk is not full");
        let mut lost = tasks.iter().zip(payloads);
        let lost = lost.find(|(task, payload)| {
            let held = payload.as_ref().map(|payload| payload.len() as u64);
            held != Some(task.payload_bytes)
        });
        lost.map(|(task, _)| task.seq)
    }

    pub async fn keep(&self) {
        let log = &self.disk.log;
        let kept = self.disk.store.write_behind(|log_id| log.flushed(log_id));
        kept.await.unwrap();
    }

    /// As the service cuts. An error leaves everything as it was.
    pub async fn cut(&mut self) -> io::Result<()> {
        let cut = position(self.applied().expect("something to cut"));
        let before = self.disk.store.snapshots().positions();
        let two = [cut].into_iter().chain(before.first().copied()).collect();
        let (log, store) = (self.disk.log.clone(), self.disk.store.clone());
        promise!(self, snapshots, [before, two], {
            let cut = store.cut_snapshot(|log_id| log.flushed(log_id));
            match cut.await {
                Ok(_) => Ok(()),
                Err(error) => {
                    let before = self.disk.store.snapshots().positions();
                    self.promises.lock().unwrap().snapshots = vec![before];
                    return Err(error);
                }
            }
        })
    }

    pub async fn purge(&mut self, upto: LogId) {
        let last = self.last().await.max(Some(upto));
        promise!(self, lasts, [last], {
            self.disk.log.purge(upto).await.unwrap()
        })
    }

    /// Behind the older of the snapshots that are kept.
    pub async fn purge_behind_the_older(&mut self, history: &History) {
        let positions = self.disk.store.snapshots().positions();
        if let [_, older] = positions[..] {
            self.purge(history.id(older.index)).await;
        }
    }

    /// As openraft installs: what conflicts goes, the state changes, the log behind it is purged.
    pub async fn install(&mut self, history: &History, handle: SnapshotHandle) {
        let upto = history.id(handle.position().index);
        let last = self.last().await;
        let conflicts = last.is_some_and(|last| !history.is_agreed(last));
        if conflicts && last.map(|last| last.index) >= Some(upto.index) {
            let committed = self.applied().expect("something is committed");
            self.truncate_after(committed).await;
        }
        let last = self.last().await.max(Some(upto));
        let before = self.disk.store.snapshots().positions();
        let position = handle.position();
        let two: Vec<Position> = [position]
            .into_iter()
            .chain(before.first().copied())
            .collect();
        let snapshot = with_meta(handle).unwrap();
        promise!(self, lasts, [last], {
            promise!(self, snapshots, [before, two], {
                let installed = self
                    .machine
                    .install_snapshot(&snapshot.meta, snapshot.snapshot);
                installed.await.unwrap()
            })
        });
        self.purge(upto).await;
    }

    /// Takes what is missing of the leader's snapshot, in chunks. `None`: stopped after so many.
    pub fn receive(&self, from: &SnapshotHandle, chunks_max: usize) -> Option<SnapshotHandle> {
        let snapshots = self.disk.store.snapshots();
        let mut receiver = SnapshotReceiver::begin(snapshots, &from.id, from.bytes).unwrap();
        for _ in 0..chunks_max {
            let offset = receiver.received();
            let chunk = from.read_at(offset, 2_000).unwrap();
            if chunk.is_empty() {
                return match receiver.finish(snapshots) {
                    Ok(handle) => Some(handle),
                    // What was there did not survive: the next try starts from nothing.
                    Err(_) => self.receive_anew(from),
                };
            }
            receiver.write(offset, &chunk).unwrap();
        }
        None
    }

    fn receive_anew(&self, from: &SnapshotHandle) -> Option<SnapshotHandle> {
        let snapshots = self.disk.store.snapshots();
        let mut receiver = SnapshotReceiver::begin(snapshots, &from.id, from.bytes).unwrap();
        assert_eq!(
            receiver.received(),
            0,
            "nothing of the bad transfer is used"
        );
        let whole = from.read_at(0, usize::MAX).unwrap();
        receiver.write(0, &whole).unwrap();
        Some(receiver.finish(snapshots).unwrap())
    }

    pub fn stop(self) {
        self.disk.log.close();
    }
}
