//! Watches a volume: at each step, before and after it, everything the disk could hold if all ended there,
//! and what a restart may then find.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::promises::Promises;
use super::volume::{ENDS, End, Left, LeftId, ModelDisk, Tree};
use crate::storage::step::watch::{Watcher, Watching, watch};
use crate::storage::step::{Act, Step};

/// Names steps whose fsyncs are left out, to see that they are missed.
const WITHOUT_SYNC: &str = "CRASH_WITHOUT_SYNC";

pub struct Moment {
    /// None: after the last one.
    pub step: Option<Step>,
    pub is_after: bool,
    pub ends: Vec<(End, LeftId)>,
    pub promises: Promises,
}

impl Moment {
    pub fn named(&self, end: End) -> String {
        match self.step {
            None => format!("{end:?} at the end"),
            Some(step) if self.is_after => format!("{end:?} after {step:?}"),
            Some(step) => format!("{end:?} before {step:?}"),
        }
    }
}

#[derive(Default)]
pub struct Recorded {
    pub moments: Vec<Moment>,
    pub left: HashMap<LeftId, Left>,
}

impl Recorded {
    /// Each way the volume may have been left, once, with how that came about first.
    pub fn distinct_ends(&self) -> impl Iterator<Item = (&Left, String)> {
        let mut seen = HashSet::new();
        let ends = self
            .moments
            .iter()
            .flat_map(|moment| moment.ends.iter().map(move |end| (moment, end)));
        ends.filter(move |(_, (_, id))| seen.insert(*id))
            .map(|(moment, (end, id))| (&self.left[id], moment.named(*end)))
    }

    /// As it stood when this step was taken first.
    pub fn tree(&self, step: Step, is_after: bool) -> &Tree {
        let is_it = |moment: &&Moment| moment.step == Some(step) && moment.is_after == is_after;
        let moment = self.moments.iter().find(is_it).expect("it was taken");
        self.left[&moment.ends[0].1].tree()
    }
}

struct Model {
    disk: ModelDisk,
    recorded: Recorded,
    /// As the disk could end now.
    ends: Vec<(End, LeftId)>,
}

pub struct Recorder {
    model: Mutex<Model>,
    promises: Arc<Mutex<Promises>>,
    fails: Mutex<BTreeMap<Step, io::ErrorKind>>,
    without_sync: Vec<String>,
}

impl Recorder {
    pub fn watch(disk: ModelDisk, promises: Arc<Mutex<Promises>>) -> (Arc<Recorder>, Watching) {
        let root = disk.root().to_owned();
        let mut model = Model {
            disk,
            recorded: Recorded::default(),
            ends: Vec::new(),
        };
        model.see();
        let left_out = std::env::var(WITHOUT_SYNC).unwrap_or_default();
        let recorder = Arc::new(Recorder {
            model: Mutex::new(model),
            promises,
            fails: Mutex::default(),
            without_sync: left_out.split(',').map(String::from).collect(),
        });
        let watching = watch(&root, recorder.clone());
        (recorder, watching)
    }

    /// The next time that it is reached.
    pub fn fail_once(&self, step: Step, kind: io::ErrorKind) {
        self.fails.lock().unwrap().insert(step, kind);
    }

    /// How often it was taken so far.
    pub fn times(&self, step: Step) -> usize {
        let model = self.model();
        let of_step = |moment: &&Moment| moment.step == Some(step) && moment.is_after;
        model.recorded.moments.iter().filter(of_step).count()
    }

    /// Now, with nothing under way.
    pub fn end(&self, promises: Promises) {
        self.model().note(None, true, promises);
    }

    pub fn recorded(&self) -> Recorded {
        std::mem::take(&mut self.model().recorded)
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }
}

impl Model {
    fn see(&mut self) {
        let ends = ENDS.map(|end| {
            let left = self.disk.at(end);
            let id = left.id();
            self.recorded.left.entry(id).or_insert(left);
            (end, id)
        });
        self.ends = ends.to_vec();
    }

    fn note(&mut self, step: Option<Step>, is_after: bool, promises: Promises) {
        self.recorded.moments.push(Moment {
            step,
            is_after,
            ends: self.ends.clone(),
            promises,
        });
    }
}

impl Watcher for Recorder {
    fn before(&self, step: Step, act: Act<'_>) -> io::Result<()> {
        if let Some(kind) = self.fails.lock().unwrap().remove(&step) {
            return Err(kind.into());
        }
        let promises = self.promises.lock().unwrap().clone();
        let mut model = self.model();
        model.disk.before(act);
        model.note(Some(step), false, promises);
        Ok(())
    }

    fn after(&self, step: Step, act: Act<'_>, is_done: bool) {
        let is_left_out = matches!(act, Act::Sync(_) | Act::SyncDirectory(_))
            && self.without_sync.contains(&format!("{step:?}"));
        let promises = self.promises.lock().unwrap().clone();
        let mut model = self.model();
        if model.disk.after(act, is_done && !is_left_out) {
            model.see();
        }
        model.note(Some(step), true, promises);
    }
}
