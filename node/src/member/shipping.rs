//! Ships the log while the member lives: a segment at the latest every few seconds, behind what is in the
//! bucket. Any member may be told to, also several at once. The order is not kept over a restart.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::backups::Backups;
use super::running::Running;
use crate::backup::bucket::Bucket;
use crate::backup::check::{Unfit, check};
use crate::backup::credentials::Credentials;
use crate::backup::destination::Destination;
use crate::backup::error::{Access, Error};
use crate::backup::layout::{BackupName, Lineage};
use crate::backup::list::{State, backups};
use crate::backup::log::ship::{End, Source, Step, end, step};
use crate::backup::manifest::{Creator, Manifest};
use crate::backup::progress::Noted;
use crate::backup::write::{Order, write};
use crate::limits::BACKUP_SEGMENT_BYTES;
use crate::service::clock::now_ms;
use crate::storage::snapshot::Position;
use crate::storage::types::Entry;

/// What is committed waits no longer than this, and for the upload: with it a disaster loses five seconds.
const SHIP_EVERY: Duration = Duration::from_secs(4);
/// After a failure the next try waits, twice as long each time until something was shipped.
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(2);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(300);

/// How far shipping has come, for whoever watches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shipped {
    pub last: Option<Position>,
    pub wall_time_ms: u64,
    pub chains_started: u64,
    /// Why nothing is shipped now; empty: it is.
    pub problem: String,
}

impl Shipped {
    /// By the store's clock, what is applied and not in the bucket: nothing, or what came since the last entry
    /// there.
    pub fn unshipped_ms(&self, applied_index: u64, wall_time_ms: u64) -> u64 {
        match self.last.is_some_and(|last| last.index >= applied_index) {
            true => 0,
            false => wall_time_ms.saturating_sub(self.wall_time_ms),
        }
    }
}

/// At most one job of a member.
#[derive(Default)]
pub struct Shipping(Mutex<Option<Job>>);

struct Job {
    to: (Destination, Credentials),
    shipped: watch::Receiver<Shipped>,
    /// Ends when this is dropped.
    _work: JoinSet<()>,
}

impl Shipping {
    /// Ships there from now on; none: no more. The same order again only watches.
    pub fn order(
        &self,
        running: Arc<Running>,
        backups: &Backups,
        to: Option<(Destination, Credentials)>,
    ) -> Option<watch::Receiver<Shipped>> {
        let mut job = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(job), Some(to)) = (&*job, &to)
            && job.to == *to
        {
            return Some(job.shipped.clone());
        }
        *job = None;
        let to = to?;
        let (sender, shipped) = watch::channel(Shipped::default());
        let shipper = Shipper {
            running,
            backups: backups.clone(),
            to: to.clone(),
            shipped: sender,
        };
        let mut work = JoinSet::new();
        work.spawn(shipper.run());
        *job = Some(Job {
            to,
            shipped: shipped.clone(),
            _work: work,
        });
        Some(shipped)
    }

    /// How far it is; none while nothing is to be shipped.
    pub fn shipped(&self) -> Option<Shipped> {
        let job = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        job.as_ref().map(|job| job.shipped.borrow().clone())
    }

    pub fn stop(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What this member has applied, as far as its log still has it.
impl Source for Running {
    async fn committed(&self, from: u64, bytes_max: usize) -> io::Result<Option<Vec<Entry>>> {
        let (applied, _) = self.applied();
        if from > applied {
            return Ok(Some(Vec::new()));
        }
        let entries = self.log.entries(from..applied + 1, bytes_max).await?;
        let is_there = entries
            .first()
            .is_some_and(|first| first.log_id.index == from);
        Ok(is_there.then_some(entries))
    }
}

struct Shipper {
    running: Arc<Running>,
    backups: Backups,
    to: (Destination, Credentials),
    shipped: watch::Sender<Shipped>,
}

impl Shipper {
    async fn run(self) {
        let mut pause = None;
        loop {
            let before = self.shipped.borrow().last;
            let Err(error) = self.ship().await;
            tracing::warn!(%error, "the log is not shipped");
            self.shipped
                .send_modify(|shipped| shipped.problem = error.to_string());
            let has_progressed = self.shipped.borrow().last != before;
            let next = next_pause(pause, has_progressed);
            pause = Some(next);
            tokio::time::sleep(next).await;
        }
    }

    async fn ship(&self) -> Result<Infallible, Error> {
        let identity = self.running.home.stamp().identity;
        let lineage = Lineage::new(&identity.cluster_id, identity.incarnation)?;
        let bucket = self.to.0.connect(&self.to.1).await?;
        let mut at = match end(&bucket, &lineage).await? {
            Some(end) => end,
            None => self.start_chain(&bucket, &lineage, None).await?,
        };
        let mut progress = self.running.state.progress();
        loop {
            self.note(&at);
            let news = progress.wait_for(|progress| {
                let applied = progress.applied.as_ref();
                applied.is_some_and(|applied| applied.index > at.last.index)
            });
            news.await.map_err(io::Error::other)?;
            match step(&bucket, &lineage, &at, self.running.as_ref()).await? {
                Step::Shipped(next) => {
                    at = next;
                    let waiting_bytes = self.running.log.bytes_from(at.last.index + 1);
                    if waiting_bytes < BACKUP_SEGMENT_BYTES as u64 {
                        self.note(&at);
                        tokio::time::sleep(SHIP_EVERY).await;
                    }
                }
                Step::Idle => {}
                Step::Gap => at = self.start_chain(&bucket, &lineage, Some(at)).await?,
            }
        }
    }

    fn note(&self, at: &End) {
        self.running.shipped.send_replace(Some(at.last.index));
        self.shipped.send_if_modified(|shipped| {
            let now = Shipped {
                last: Some(at.last),
                wall_time_ms: at.wall_time_ms,
                problem: String::new(),
                ..shipped.clone()
            };
            let is_news = now != *shipped;
            *shipped = now;
            is_news
        });
    }

    /// Behind the newest backup that this member's log goes on from, or behind a new one.
    async fn start_chain(
        &self,
        bucket: &Bucket,
        lineage: &Lineage,
        ended: Option<End>,
    ) -> Result<End, Error> {
        let mut newest_first = backups(bucket, lineage).await?.into_iter().rev();
        let newest = newest_first.find_map(|listed| match listed.state {
            State::Complete(manifest) => Some(*manifest),
            _ => None,
        });
        if let Some(manifest) = newest {
            let next = manifest.log_id.index + 1;
            if self.running.committed(next, 0).await?.is_some() {
                return Ok(end_of(&manifest));
            }
        }
        let _permit = self.backups.permit().await;
        self.prove_rights(bucket, lineage).await?;
        let cut = self.running.snapshots.cut_now().await;
        let snapshot = cut.map_err(io::Error::other)?;
        let order = Order {
            name: BackupName::parse(&format!("chain-{}", snapshot.position().index))?,
            previous: None,
            created_at_ms: now_ms(),
            created_by: Creator {
                member_id: self.running.home.stamp().identity.member_id,
                version: env!("CARGO_PKG_VERSION").into(),
            },
            bytes_per_second_max: None,
        };
        let manifest = write(bucket, &snapshot, &order, &Noted::default()).await?;
        // Another member may have started one while the backup was written: two side by side serve nobody.
        if let Some(found) = end(bucket, lineage).await?
            && ended.is_none_or(|ended| found.last > ended.last)
        {
            return Ok(found);
        }
        tracing::warn!(name = %manifest.name, "the shipped log starts a new chain");
        self.shipped
            .send_modify(|shipped| shipped.chains_started += 1);
        Ok(end_of(&manifest))
    }

    /// Before a whole state is cut and sent to a bucket that will not have it. Shipping deletes nothing: that
    /// right may be missing, and then one small object of each member stays.
    async fn prove_rights(&self, bucket: &Bucket, lineage: &Lineage) -> Result<(), Error> {
        let member_id = self.running.home.stamp().identity.member_id;
        match check(bucket, lineage, &format!("member-{member_id}")).await {
            Ok(()) => Ok(()),
            Err(Unfit::Failed(error)) => Err(error),
            Err(Unfit::Lacks { missing, reason }) => match missing {
                Access::Delete => Ok(()),
                access => Err(Error::Forbidden {
                    access,
                    object: bucket.name_of(&lineage.folder()),
                    reason,
                }),
            },
        }
    }
}

/// The log is held for nobody once shipping has ended.
impl Drop for Shipper {
    fn drop(&mut self) {
        self.running.shipped.send_replace(None);
    }
}

fn next_pause(before: Option<Duration>, has_progressed: bool) -> Duration {
    match before {
        Some(before) if !has_progressed => RETRY_PAUSE_MAX.min(2 * before),
        _ => RETRY_PAUSE_MIN,
    }
}

fn end_of(backup: &Manifest) -> End {
    End::of_backup(backup.log_id.into(), backup.wall_time_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_that_refuses_is_asked_less_and_less_often_until_something_was_shipped() {
        let mut pause = None;
        let mut pauses = Vec::new();
        for has_progressed in [true].into_iter().chain([false; 9]).chain([true, false]) {
            let next = next_pause(pause, has_progressed);
            pauses.push(next.as_secs());
            pause = Some(next);
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 2, 4]);
    }
}
