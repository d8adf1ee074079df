//! The one thread that writes the image and cuts snapshots from it: its jobs run one after the other, so a
//! snapshot sees the image at rest.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::Image;
use super::batch::{Batch, Rebuild};
use super::source::Ordered;
use super::sweep::Sweep;
use super::watch::WatchThread;
use crate::storage::log::FatalHook;
use crate::storage::on_panic::OnPanic;
use crate::storage::snapshot::{Frozen, Position, SnapshotHandle, SnapshotIdentity, Snapshots};
use crate::task::tables::Tables;

/// What became of a batch.
pub enum Wrote {
    /// It was written before, or an install has thrown it away.
    Nothing,
    /// A piece of a rebuild.
    Piece,
    /// The image holds all of this.
    All(Box<Frozen>),
}

/// What the thread owns.
pub struct Writer {
    image: Arc<Image>,
    fatal: FatalHook,
    /// Frozen, and waiting for its flush or for space on the disk.
    pending: Option<Batch>,
    /// None: the image holds everything up to `written`.
    rebuild: Option<Rebuild>,
    namespaces_written: usize,
    written: Option<Position>,
    /// After a start from the image, until all of it was looked at.
    sweep: Option<Sweep>,
}

impl Writer {
    /// Of an empty image.
    pub fn new(image: Arc<Image>, fatal: FatalHook, rebuild: Rebuild) -> Writer {
        Writer {
            image,
            fatal,
            pending: None,
            rebuild: Some(rebuild),
            namespaces_written: 0,
            written: None,
            sweep: None,
        }
    }

    /// Of an image that holds these tables.
    pub fn resume(image: Arc<Image>, fatal: FatalHook, at: Position, tables: Tables) -> Writer {
        Writer {
            image,
            fatal,
            pending: None,
            rebuild: None,
            namespaces_written: tables.namespaces.len(),
            written: Some(at),
            sweep: Some(Sweep::new(tables)),
        }
    }

    /// The batch under way, or a new one if there is something to write.
    pub fn freeze(&mut self, freeze: impl FnOnce() -> Option<Batch>) -> Option<Position> {
        if self.pending.is_none() {
            self.pending = freeze();
        }
        self.pending.as_ref().map(|batch| batch.frozen.position)
    }

    pub fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// How far the image has come.
    pub fn written(&self) -> Option<Position> {
        self.written
    }

    pub fn is_complete(&self) -> bool {
        self.rebuild.is_none()
    }

    /// Writes the batch that was frozen at this position; the log is flushed up to it.
    pub fn write(&mut self, at: Position, snapshots: &Snapshots) -> io::Result<Wrote> {
        let is_it = |batch: &mut Batch| batch.frozen.position == at;
        let Some(batch) = self.pending.take_if(is_it) else {
            return Ok(Wrote::Nothing);
        };
        let space = self.image.check_space(batch.payload_bytes());
        if let Err(error) = space.and_then(|()| self.unstick(at, snapshots.identity())) {
            self.pending = Some(batch);
            return Err(error);
        }
        let (namespaces, rebuild) = (self.namespaces_written, self.rebuild.as_mut());
        let written = self
            .image
            .with(|db| batch.write(db, namespaces, rebuild, snapshots.identity()));
        match self.image.noting(written) {
            Ok(is_complete) => {
                self.namespaces_written = batch.frozen.tables.namespaces.len();
                if !is_complete {
                    return Ok(Wrote::Piece);
                }
                self.rebuild = None;
                self.written = Some(at);
                Ok(Wrote::All(Box::new(batch.frozen)))
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.pending = Some(batch);
                Err(error)
            }
            Err(error) => Err(self.fail("writing the image", error)),
        }
    }

    /// A sled that met a full disk has lost what it could not write; what it wrote before must be there.
    fn unstick(&self, batch: Position, identity: &SnapshotIdentity) -> io::Result<()> {
        if !self.image.is_stuck() {
            return Ok(());
        }
        let holds_nothing = matches!(&self.rebuild, Some(Rebuild { done_upto: 0, .. }));
        let opened = match holds_nothing {
            true => self.image.recreate(),
            false => self.image.reopen(self.written, batch, identity),
        };
        match opened {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => {
                Err(self.fail("opening the image again", error))
            }
            opened => opened,
        }
    }

    /// A snapshot of the moment that `write` has answered, not yet published.
    pub fn cut(&self, frozen: &Frozen, snapshots: &Snapshots) -> io::Result<SnapshotHandle> {
        let mut failed = false;
        let cut = self.image.with(|db| {
            let mut payloads = Ordered::new(db);
            let cut = snapshots.write(frozen, &mut payloads);
            failed = payloads.failed;
            cut
        });
        match cut {
            Err(error) if failed && error.kind() != io::ErrorKind::StorageFull => {
                Err(self.fail("reading the image", error))
            }
            cut if failed => self.image.noting(cut),
            cut => cut,
        }
    }

    /// Looks at the next payloads of an image that a start was made from. True: there are more.
    pub fn sweep(&mut self, is_needed: impl Fn(u64) -> bool) -> io::Result<bool> {
        let Some(sweep) = &mut self.sweep else {
            return Ok(false);
        };
        let looked = self.image.with(|db| sweep.go_on(db, is_needed));
        match self.image.noting(looked) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            // It goes on once the next batch has found space.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(false),
            Err(error) => return Err(self.fail("looking through the image", error)),
        }
        self.sweep = None;
        Ok(false)
    }

    /// The state was replaced: the image starts from nothing, on a full disk once there is space.
    pub fn start_over(&mut self, rebuild: Rebuild) -> io::Result<()> {
        self.pending = None;
        self.sweep = None;
        self.written = None;
        self.namespaces_written = 0;
        self.rebuild = Some(rebuild);
        match self.image.recreate() {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                tracing::warn!(%error, "the image waits for space");
                Ok(())
            }
            made => made.map_err(|error| self.fail("making the image anew", error)),
        }
    }

    /// Nothing but a full disk passes: the process ends, and the next start makes the image anew.
    pub fn fail(&self, doing: &'static str, error: io::Error) -> io::Error {
        self.image.condemn();
        (self.fatal)(doing, &error);
        error
    }
}

type Job = Box<dyn FnOnce(&mut Writer) + Send>;

/// The thread. It ends, with all jobs done, when this is dropped.
pub struct WriterThread {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// Ends after the writer: that may hang.
    _watch: WatchThread,
}

impl WriterThread {
    pub fn start(mut writer: Writer) -> io::Result<WriterThread> {
        let (jobs, incoming) = channel::<Job>();
        let (image, fatal) = (writer.image.clone(), writer.fatal.clone());
        // sled panics where it finds its own file damaged.
        let guard = OnPanic(move || {
            image.condemn();
            fatal("image writer", &io::Error::other("it panicked"));
        });
        let watch = WatchThread::start(writer.image.clone(), writer.fatal.clone())?;
        let thread = std::thread::Builder::new().name("image-writer".into());
        let thread = thread.spawn(move || {
            let _guard = guard;
            for job in incoming {
                job(&mut writer);
            }
        })?;
        Ok(WriterThread {
            jobs: Some(jobs),
            thread: Some(thread),
            _watch: watch,
        })
    }

    /// Runs a job after those before it.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (reply, done) = oneshot::channel();
        let job: Job = Box::new(move |writer| {
            // Whoever asked may have gone.
            let _ = reply.send(job(writer));
        });
        let ended = || io::Error::other("the image's writer ended");
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        jobs.send(job).map_err(|_| ended())?;
        done.await.map_err(|_| ended())?
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has said so.
            drop(thread.join());
        }
    }
}

impl fmt::Debug for WriterThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("image writer")
    }
}
