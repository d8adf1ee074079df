//! Opens the image that a start finds, and believes nothing: all rows are read, counted and hashed. sled
//! may panic or hang on a damaged file, so it is opened on a thread of its own, under a deadline.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::db::{Db, Row};
use super::watch::Watch;
use super::{PATIENCE, absolve, bad, condemn, head, is_condemned};
use crate::storage::snapshot::{Header, SnapshotIdentity};
use crate::storage::step::{Act, Step, take};
use crate::task::id::Name;
use crate::task::load::Loader;
use crate::task::queue::QueueRow;
use crate::task::row::TaskRow;
use crate::task::state::{Bounds, FEATURE_LEVEL_KNOWN, State};

/// An image whose rows are what its head says.
pub struct Opened {
    pub db: Db,
    pub header: Header,
    pub state: State,
}

/// `None`: there is none, or it cannot be used, which is said in the log. Only a sled that hangs is an error.
pub fn open(dir: &Path, identity: &SnapshotIdentity, bounds: Bounds) -> io::Result<Option<Opened>> {
    open_within(PATIENCE, dir, identity, bounds)
}

/// `open` with another patience, which the image keeps.
pub fn open_within(
    patience: Duration,
    dir: &Path,
    identity: &SnapshotIdentity,
    bounds: Bounds,
) -> io::Result<Option<Opened>> {
    if !dir.exists() {
        return Ok(None);
    }
    if is_condemned(dir) {
        tracing::warn!("the image was found bad, or could not be opened: it is made anew");
        return Ok(None);
    }
    condemn(dir)?;
    let (done, opened) = channel();
    let (opened_dir, identity) = (dir.to_owned(), identity.clone());
    let thread = std::thread::Builder::new().name("image-open".into());
    thread.spawn(move || {
        // The other side may have given up.
        let _ = done.send(open_now(
            &opened_dir,
            &identity,
            bounds,
            Watch::new(patience),
        ));
    })?;
    let reason = match opened.recv_timeout(patience) {
        Ok(Ok(opened)) => {
            absolve(dir)?;
            return Ok(Some(opened));
        }
        Ok(Err(error)) => error.to_string(),
        Err(RecvTimeoutError::Disconnected) => "sled panicked".into(),
        Err(RecvTimeoutError::Timeout) => {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the image could not be opened in time",
            ));
        }
    };
    tracing::warn!(reason, "the image is not usable: it is made anew");
    Ok(None)
}

fn open_now(
    dir: &Path,
    identity: &SnapshotIdentity,
    bounds: Bounds,
    watch: Arc<Watch>,
) -> io::Result<Opened> {
    let db = take(Step::ImageOpen, Act::Write(dir), || Db::open(dir, watch))?;
    let head = db.head()?.ok_or_else(|| bad("it was never finished"))?;
    let header = head::decode(&head, identity)?;
    let state = load(&db, &header, bounds)?;
    Ok(Opened { db, header, state })
}

fn load(db: &Db, header: &Header, bounds: Bounds) -> io::Result<State> {
    let level = header.meta.feature_level;
    if level > FEATURE_LEVEL_KNOWN {
        return Err(bad(format!(
            "it needs feature level {level}, known is {FEATURE_LEVEL_KNOWN}"
        )));
    }
    let mut loader = Loader::new(header.meta.clone(), bounds);
    let (mut namespaces, mut queues, mut tasks) = (0, 0, 0);
    db.each_row(|row| {
        let loaded = match row {
            Row::Namespace(bytes) => {
                let (id, name): (u32, Name) = decode(bytes)?;
                namespaces += 1;
                loader.namespace(id, name)
            }
            Row::Queue(bytes) => {
                queues += 1;
                loader.queue(decode::<QueueRow>(bytes)?)
            }
            Row::Task(bytes) => {
                tasks += 1;
                loader.task(decode::<TaskRow>(bytes)?)
            }
        };
        loaded.map_err(|unfit| bad(unfit.to_string()))
    })?;
    let found = (namespaces, queues, tasks);
    let expected = (header.namespaces, header.queues, header.tasks);
    if found != expected {
        return Err(bad(format!(
            "it holds {found:?} rows, its head says {expected:?}"
        )));
    }
    let loaded = loader.finish(header.state_hash);
    loaded.map_err(|unfit| bad(unfit.to_string()))
}

fn decode<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> io::Result<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((row, [])) => Ok(row),
        Ok(_) => Err(bad("a row has bytes left over")),
        Err(error) => Err(bad(format!("a row cannot be read: {error}"))),
    }
}
