//! Who watches which directory. Steps below a watched one happen one at a time, so that what its watcher
//! sees of the disk is one moment.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::{Act, Step};

pub trait Watcher: Send + Sync {
    /// An error: the operation fails with it and is not done.
    fn before(&self, step: Step, act: Act<'_>) -> io::Result<()>;
    fn after(&self, step: Step, act: Act<'_>, is_done: bool);
}

struct Watched {
    root: PathBuf,
    watcher: Arc<dyn Watcher>,
    one_at_a_time: Mutex<()>,
}

static WATCHED: RwLock<Vec<Arc<Watched>>> = RwLock::new(Vec::new());

/// Watches until it is dropped.
pub struct Watching(Arc<Watched>);

pub fn watch(root: &Path, watcher: Arc<dyn Watcher>) -> Watching {
    let watched = Arc::new(Watched {
        root: root.into(),
        watcher,
        one_at_a_time: Mutex::default(),
    });
    let mut all = WATCHED.write().unwrap_or_else(PoisonError::into_inner);
    all.push(watched.clone());
    Watching(watched)
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut all = WATCHED.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|watched| !Arc::ptr_eq(watched, &self.0));
    }
}

fn watched(path: &Path) -> Option<Arc<Watched>> {
    let all = WATCHED.read().unwrap_or_else(PoisonError::into_inner);
    let mut found = all.iter().filter(|watched| path.starts_with(&watched.root));
    found.next().cloned()
}

pub fn take<T>(
    step: Step,
    act: Act<'_>,
    operation: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let Some(watched) = watched(act.path()) else {
        return operation();
    };
    let _one_at_a_time = watched
        .one_at_a_time
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    watched.watcher.before(step, act)?;
    let done = operation();
    watched.watcher.after(step, act, done.is_ok());
    done
}
