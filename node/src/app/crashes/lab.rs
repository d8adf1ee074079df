//! One scenario's volume: everything that happens to it while it is watched is crashed at each step, and each
//! crash is started again.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use openraft::storage::RaftLogReader;
use tempfile::TempDir;

use super::member::{Driver, Rig};
use super::promises::{Found, Life, Promises};
use super::recorder::{Moment, Recorded, Recorder};
use super::volume::{End, Image, Left, LeftId, ModelDisk, Tree};
use crate::storage::snapshot::{Look, SnapshotHandle, survey};
use crate::storage::step::Step;
use crate::storage::step::watch::Watching;
use crate::storage::types::LogId;

const SNAPSHOTS: &str = "store-1/snapshots";
/// A start is crashed too, and started again.
const STARTS_CRASHED: usize = 1;

/// In memory where the system offers it: nothing here fsyncs what matters.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        TempDir::new_in(memory).unwrap()
    } else {
        TempDir::new().unwrap()
    }
}

#[derive(Default)]
pub struct Report {
    pub scenarios: usize,
    /// Before an operation or after it.
    pub crashes: usize,
    pub starts: usize,
    pub steps: BTreeMap<Step, usize>,
    pub wrong: Vec<String>,
    started: HashMap<LeftId, Arc<Started>>,
}

impl Report {
    pub fn count(&mut self, recorded: &Recorded) {
        self.crashes += recorded.moments.len();
        for moment in &recorded.moments {
            if let Some(step) = moment.step {
                *self.steps.entry(step).or_default() += 1;
            }
        }
    }
}

/// A volume as a crash left it.
struct Crash {
    left: Left,
    id: LeftId,
    promises: Arc<Promises>,
    /// How it came about, for people.
    path: String,
}

/// What came of a start.
struct Started {
    found: Found,
    is_crashed: bool,
    recorded: Recorded,
}

impl Started {
    fn crashes(&self) -> impl Iterator<Item = (&Moment, &End, &LeftId)> {
        let moments = self.recorded.moments.iter();
        moments.flat_map(|moment| moment.ends.iter().map(move |(end, id)| (moment, end, id)))
    }
}

pub struct Lab<'a> {
    pub rig: &'a Rig,
    pub name: &'static str,
    volume: TempDir,
    pub promises: Arc<Mutex<Promises>>,
    watched: Option<(Arc<Recorder>, Watching)>,
    /// The leader's snapshot whose transfer goes on after a crash.
    pub sent: Option<SnapshotHandle>,
    pub image: Image,
}

impl<'a> Lab<'a> {
    pub fn blank(rig: &'a Rig, name: &'static str) -> Lab<'a> {
        Lab {
            rig,
            name,
            volume: scratch(),
            promises: Arc::new(Mutex::new(Promises::of(Life::Blank))),
            watched: None,
            sent: None,
            image: Image::Lost,
        }
    }

    pub fn formatted(rig: &'a Rig, name: &'static str) -> Lab<'a> {
        let lab = Lab::blank(rig, name);
        rig.format_if_blank(lab.root()).unwrap();
        *lab.promises.lock().unwrap() = Promises::of(Life::Member);
        lab
    }

    /// Another volume with this content and what was promised for it.
    pub fn with(rig: &'a Rig, name: &'static str, tree: &Tree, promises: Promises) -> Lab<'a> {
        let lab = Lab::blank(rig, name);
        tree.write_to(lab.root());
        *lab.promises.lock().unwrap() = promises;
        lab
    }

    pub fn root(&self) -> &Path {
        self.volume.path()
    }

    pub fn snapshots_directory(&self) -> PathBuf {
        self.root().join(SNAPSHOTS)
    }

    /// From here on each step is crashed.
    pub fn watch(&mut self) -> Arc<Recorder> {
        let watched = Recorder::watch(
            ModelDisk::of(self.root(), self.image),
            self.promises.clone(),
        );
        let recorder = watched.0.clone();
        self.watched = Some(watched);
        recorder
    }

    pub async fn start(&self) -> Driver {
        let started = self.rig.try_start(self.root(), self.promises.clone()).await;
        started.unwrap().expect("not removed")
    }

    pub fn recorded(&mut self) -> Recorded {
        let (recorder, watching) = self.watched.take().expect("it is watched");
        drop(watching);
        recorder.recorded()
    }

    /// Starts every crash of this scenario again, and the crashes of these starts.
    pub async fn finish(mut self, report: &mut Report) {
        let recorded = self.recorded();
        report.scenarios += 1;
        report.count(&recorded);
        let mut crashes = Vec::new();
        for moment in &recorded.moments {
            for (end, id) in &moment.ends {
                let path = format!("{}: {}", self.name, moment.named(*end));
                crashes.push(Crash {
                    left: recorded.left[id].clone(),
                    id: *id,
                    promises: Arc::new(moment.promises.clone()),
                    path,
                });
            }
        }
        for starts_crashed in 0..=STARTS_CRASHED {
            let is_crashed = starts_crashed < STARTS_CRASHED;
            crashes = self.start_all(crashes, is_crashed, report).await;
        }
    }

    /// What the starts of these were crashed to.
    async fn start_all(
        &self,
        crashes: Vec<Crash>,
        is_crashed: bool,
        report: &mut Report,
    ) -> Vec<Crash> {
        let mut next = Vec::new();
        let mut seen: HashMap<LeftId, Vec<Arc<Promises>>> = HashMap::new();
        for crash in crashes {
            let seen = seen.entry(crash.id).or_default();
            if seen.contains(&crash.promises) {
                continue;
            }
            seen.push(crash.promises.clone());
            let started = self.started(&crash, is_crashed, report).await;
            if let Some(breach) = crash.promises.breach(&started.found) {
                report.wrong.push(format!("{}: {breach}", crash.path));
            }
            for (moment, end, id) in started.crashes() {
                next.push(Crash {
                    left: started.recorded.left[id].clone(),
                    id: *id,
                    promises: match moment.step {
                        Some(_) => crash.promises.clone(),
                        None => Arc::new(moment.promises.clone()),
                    },
                    path: format!("{}, then {}", crash.path, moment.named(*end)),
                });
            }
        }
        next
    }

    async fn started(&self, crash: &Crash, is_crashed: bool, report: &mut Report) -> Arc<Started> {
        let known = report.started.get(&crash.id);
        if let Some(known) = known.filter(|known| known.is_crashed || !is_crashed) {
            return known.clone();
        }
        let volume = scratch();
        crash.left.tree().write_to(volume.path());
        report.starts += 1;
        let promises = Arc::new(Mutex::new(Promises::of(Life::Member)));
        let disk = ModelDisk::of_left(volume.path(), &crash.left);
        let mut watched = is_crashed.then(|| Recorder::watch(disk, promises.clone()));
        let mut recorded = Recorded::default();
        let looked = async {
            let begun = self.begin(volume.path(), promises).await;
            if let Some((recorder, watching)) = watched.take() {
                drop(watching);
                if let Ok((found, driver)) = &begun {
                    // From here on others count on it.
                    recorder.end(found.promised(driver.as_ref()));
                }
                recorded = recorder.recorded();
            }
            match begun? {
                (found, Some(driver)) => {
                    self.go_on(driver).await?;
                    Ok(found)
                }
                (found, None) => Ok(found),
            }
        };
        let looked = AssertUnwindSafe(looked).catch_unwind().await;
        let looked = looked.unwrap_or_else(|_| Err("the start panicked".into()));
        let found = looked.unwrap_or_else(Found::wrong);
        report.count(&recorded);
        let started = Arc::new(Started {
            found,
            is_crashed,
            recorded,
        });
        report.started.insert(crash.id, started.clone());
        started
    }

    /// Starts, and compares the state with the one that the cluster agreed on.
    async fn begin(
        &self,
        root: &Path,
        promises: Arc<Mutex<Promises>>,
    ) -> Result<(Found, Option<Driver>), String> {
        let life = self.rig.format_if_blank(root)?;
        let surveyed = survey(
            &root.join(SNAPSHOTS),
            &self.rig.snapshot_identity(),
            Look::Whole,
        )
        .map_err(|error| error.to_string())?;
        let good = surveyed.iter().filter_map(|one| one.good.as_ref());
        let mut found = Found {
            life,
            last: None,
            vote: None,
            snapshots: good.map(SnapshotHandle::position).collect(),
            wrong: None,
        };
        let Some(mut driver) = self.rig.try_start(root, promises).await? else {
            found.life = Life::Removed;
            return Ok((found, None));
        };
        found.last = driver.last().await;
        found.vote = driver.disk.log.read_vote().await.unwrap();
        self.compare(&driver, driver.applied()).await?;
        Ok((found, Some(driver)))
    }

    /// A transfer goes on, the rest of the log is applied, and new entries are taken.
    async fn go_on(&self, mut driver: Driver) -> Result<(), String> {
        let history = &self.rig.history;
        if let Some(sent) = &self.sent {
            let received = driver.receive(sent, usize::MAX).expect("all of it");
            if Some(received.position().index) > driver.applied().map(|applied| applied.index) {
                driver.install(history, received).await;
                self.compare(&driver, Some(history.id(sent.position().index)))
                    .await?;
            }
        }
        driver
            .apply_all()
            .await
            .map_err(|error| error.to_string())?;
        let last = driver.last().await;
        self.compare(&driver, last).await?;
        if last.is_none_or(|last| history.is_agreed(last)) {
            let next = last.map_or(0, |last| last.index + 1);
            driver.agree(history.slice(next..next + 2)).await;
            self.compare(&driver, Some(history.id(next + 1))).await?;
        }
        driver.stop();
        Ok(())
    }

    async fn compare(&self, driver: &Driver, applied: Option<LogId>) -> Result<(), String> {
        if driver.applied() != applied {
            return Err(format!("applied {:?}, not {applied:?}", driver.applied()));
        }
        if driver.hash() != self.rig.history.hash(applied) {
            return Err(format!("another state at {applied:?}"));
        }
        match driver.task_without_payload().await {
            Some(seq) => Err(format!("task {seq} has not its payload")),
            None => Ok(()),
        }
    }
}
