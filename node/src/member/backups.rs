//! Backups as a member makes them: of its own newest state, one at a time, away from what Raft waits for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::running::Running;
use crate::backup::credentials::Credentials;
use crate::backup::destination::Destination;
use crate::backup::error::Error;
use crate::backup::layout::{BackupName, Lineage};
use crate::backup::manifest::{Creator, Manifest, ManifestRef};
use crate::backup::progress::{Noted, Progress};
use crate::backup::write::{Order, find, write};
use crate::service::clock::now_ms;

/// One report at most in this time.
const REPORT_PAUSE: Duration = Duration::from_millis(500);

/// Bounds the memory that backups take: one at a time.
#[derive(Debug, Clone)]
pub struct Backups(Arc<Semaphore>);

impl Default for Backups {
    fn default() -> Backups {
        Backups(Arc::new(Semaphore::new(1)))
    }
}

/// What a caller orders.
#[derive(Debug, Clone)]
pub struct Ordered {
    pub destination: Destination,
    pub credentials: Credentials,
    pub name: BackupName,
    pub previous: Option<ManifestRef>,
    pub bytes_per_second_max: Option<u64>,
}

/// A backup under way. It ends when this is dropped.
pub struct UnderWay {
    work: JoinSet<Result<Manifest, Error>>,
    progress: watch::Receiver<Progress>,
    /// Nothing was told yet.
    is_new: bool,
}

/// The next thing to tell.
#[derive(Debug)]
pub enum Report {
    Progress(Progress),
    Done(Box<Manifest>),
}

impl Backups {
    /// Waits for its turn. None: never, which does not happen.
    pub async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().acquire_owned().await.ok()
    }

    /// None: another one is under way.
    pub fn start(&self, running: Arc<Running>, ordered: Ordered) -> Option<UnderWay> {
        let permit = self.0.clone().try_acquire_owned().ok()?;
        let noted = Noted::default();
        let progress = noted.watch();
        let mut work = JoinSet::new();
        work.spawn(make(permit, running, ordered, noted));
        Some(UnderWay {
            work,
            progress,
            is_new: true,
        })
    }
}

impl UnderWay {
    /// The first answer comes at once, the last one is `Done` or an error.
    pub async fn next(&mut self) -> Result<Report, Error> {
        if std::mem::take(&mut self.is_new) {
            return Ok(Report::Progress(*self.progress.borrow_and_update()));
        }
        let moved = async {
            tokio::time::sleep(REPORT_PAUSE).await;
            // The other end goes with the work, which is waited for beside this.
            if self.progress.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            *self.progress.borrow_and_update()
        };
        tokio::select! {
            biased;
            done = self.work.join_next() => match done {
                Some(Ok(made)) => made.map(|manifest| Report::Done(manifest.into())),
                Some(Err(error)) => Err(Error::Local(std::io::Error::other(error))),
                None => Err(Error::Local(std::io::Error::other("the backup has ended before"))),
            },
            progress = moved => Ok(Report::Progress(progress)),
        }
    }
}

async fn make(
    _permit: OwnedSemaphorePermit,
    running: Arc<Running>,
    ordered: Ordered,
    noted: Noted,
) -> Result<Manifest, Error> {
    let identity = running.home.stamp().identity;
    let lineage = Lineage::new(&identity.cluster_id, identity.incarnation)?;
    let bucket = ordered.destination.connect(&ordered.credentials).await?;
    if let Some(manifest) = find(&bucket, &lineage, &ordered.name).await? {
        return Ok(manifest);
    }
    let cut = running.snapshots.cut_now().await;
    // Open until the upload ends: it stays readable when newer ones have taken its place in the folder.
    let snapshot = cut.map_err(|reason| Error::Local(std::io::Error::other(reason)))?;
    let order = Order {
        name: ordered.name,
        previous: ordered.previous,
        created_at_ms: now_ms(),
        created_by: Creator {
            member_id: identity.member_id,
            version: env!("CARGO_PKG_VERSION").into(),
        },
        bytes_per_second_max: ordered.bytes_per_second_max,
    };
    let manifest = write(&bucket, &snapshot, &order, &noted).await?;
    tracing::info!(
        name = %manifest.name,
        index = manifest.log_id.index,
        bytes = manifest.snapshot.bytes,
        "backup complete"
    );
    Ok(manifest)
}
