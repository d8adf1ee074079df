//! Orders to members about a bucket, which take their time: each runs beside the passes, over a connection of
//! its own, and what is heard of it wakes its cluster.
//!
//! One of each kind at a time for each cluster; another one ends the one before, and with the order the member
//! ends its work. Only shipping goes on when nobody listens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crds::MemberId;
use crds::backup::BackupPhase;
use crds::destination::Lineage;
use crds::status::LogId;
use jiff::Timestamp;
use taskstore_api::admin::{self, ClientTls};
use taskstore_api::v1;
use taskstore_api::v1::admin_client::AdminClient;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::members::{Key, Target};
use crate::observe::backups::{
    Facts, Failure, Heard, Order, Orders as Known, Pruned, Shipped, Verdict, Writing,
};

const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// A member tries each access for half a minute.
const CHECK_TIMEOUT: Duration = Duration::from_mins(4);
const PRUNE_TIMEOUT: Duration = Duration::from_mins(30);
/// A stream begins with a word at once.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the moment that the log is shipped to is told.
const SHIPPED_EVERY: Duration = Duration::from_mins(1);

/// Whom to ask, and for what.
pub struct Asked {
    pub about: String,
    pub member: MemberId,
    pub failures: u32,
    pub target: Target,
    pub tls: ClientTls,
}

/// Everything this process has ordered. Cheap to clone.
#[derive(Clone)]
pub struct Orders {
    clusters: Arc<Mutex<HashMap<Key, Desk>>>,
    wake: mpsc::Sender<Key>,
}

#[derive(Default)]
struct Desk {
    known: Known,
    check: Option<Task>,
    backup: Option<Task>,
    prune: Option<Task>,
    shipping: Option<Task>,
    /// Since when the log is to be shipped, and is not as far as anybody said.
    unshipped_since: Option<Instant>,
}

impl Desk {
    fn note_shipping(&mut self, now: Instant) {
        let order = self.known.shipping.as_ref();
        let is_shipped = order.is_none_or(|order| match &order.heard {
            Heard::News(news) => news.problem.is_empty(),
            Heard::Nothing | Heard::Failed(_) => false,
        });
        match is_shipped {
            true => self.unshipped_since = None,
            false => _ = self.unshipped_since.get_or_insert(now),
        }
    }
}

/// Ends when it is dropped.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where the orders of one kind stand in a desk.
struct Kind<T> {
    order: fn(&mut Known) -> &mut Option<Order<T>>,
    task: fn(&mut Desk) -> &mut Option<Task>,
}

impl Orders {
    /// `wake` gets the key of a cluster whenever there is news of one of its orders.
    pub fn new(wake: mpsc::Sender<Key>) -> Self {
        Self {
            clusters: Arc::default(),
            wake,
        }
    }

    pub fn known(&self, key: &Key) -> Known {
        self.with(key, |desk| desk.known.clone())
    }

    /// Whether a destination can be written, read, listed and deleted from.
    pub fn check(&self, key: &Key, asked: Asked, destination: v1::BackupDestination) {
        let kind = Kind {
            order: |known| &mut known.check,
            task: |desk| &mut desk.check,
        };
        self.give(key, asked, kind, move |mut client, told| async move {
            let request = timed(
                v1::CheckDestinationRequest {
                    destination: Some(destination),
                },
                CHECK_TIMEOUT,
            );
            let answer = client.check_destination(request).await?.into_inner();
            let lacks = Some((answer.missing, answer.reason));
            told.news(Verdict {
                lacks: lacks.filter(|(missing, _)| !missing.is_empty()),
                at: Timestamp::now(),
            })
            .await;
            Ok(())
        });
    }

    /// Writes a backup, or finds the one of this name.
    pub fn back_up(&self, key: &Key, asked: Asked, request: v1::BackupRequest) {
        let kind = Kind {
            order: |known| &mut known.backup,
            task: |desk| &mut desk.backup,
        };
        self.give(key, asked, kind, move |mut client, told| async move {
            let opened = tokio::time::timeout(OPEN_TIMEOUT, client.backup(request)).await;
            let mut stream = opened.map_err(|_| late())??.into_inner();
            while let Some(progress) = stream.message().await? {
                told.news(writing(&progress)).await;
                if progress.phase() == v1::BackupPhase::Done {
                    return Ok(());
                }
            }
            Err(Status::unavailable("the member has ended it"))
        });
    }

    pub fn prune(&self, key: &Key, asked: Asked, request: v1::PruneBackupsRequest) {
        let kind = Kind {
            order: |known| &mut known.prune,
            task: |desk| &mut desk.prune,
        };
        self.give(key, asked, kind, move |mut client, told| async move {
            let request = timed(request, PRUNE_TIMEOUT);
            let answer = client.prune_backups(request).await?.into_inner();
            told.news(Pruned {
                deleted: answer.deleted.into_iter().collect(),
                kept: answer.kept.into_iter().collect(),
            })
            .await;
            Ok(())
        });
    }

    /// Ships the log there from now on. The member that did so before is told to stop, if it can be reached.
    pub fn ship(
        &self,
        key: &Key,
        asked: Asked,
        destination: v1::BackupDestination,
        before: Option<Target>,
    ) {
        let tls = asked.tls.clone();
        self.give(key, asked, SHIPPING, move |mut client, told| async move {
            if let Some(before) = before
                && let Ok(mut before) = dial(&before, tls).await
            {
                // Two that ship side by side cost twice as much, and nothing else.
                let _ = before.ship_log(v1::ShipLogRequest::default()).await;
            }
            let request = v1::ShipLogRequest {
                destination: Some(destination),
            };
            let opened = tokio::time::timeout(OPEN_TIMEOUT, client.ship_log(request)).await;
            let stream = opened.map_err(|_| late())??.into_inner();
            follow(stream, &told).await?;
            Err(Status::unavailable("the member ships no more"))
        });
    }

    pub fn stop_shipping(&self, key: &Key, asked: Asked) {
        self.give(key, asked, SHIPPING, move |mut client, told| async move {
            let request = timed(v1::ShipLogRequest::default(), OPEN_TIMEOUT);
            client.ship_log(request).await?;
            told.news(Shipped::default()).await;
            Ok(())
        });
    }

    /// How long the log of some cluster is not shipped although it is to be, the longest of all.
    pub fn unshipped(&self, now: Instant) -> Duration {
        let clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        let since = clusters.values().filter_map(|desk| desk.unshipped_since);
        since
            .min()
            .map_or(Duration::ZERO, |since| now.duration_since(since))
    }

    /// Ends every order of a cluster and forgets it.
    pub fn forget(&self, key: &Key) {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        clusters.remove(key);
    }

    pub fn forget_all(&self) {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        clusters.clear();
    }

    fn with<T>(&self, key: &Key, read: impl FnOnce(&mut Desk) -> T) -> T {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        read(clusters.entry(key.clone()).or_default())
    }

    fn give<T, F>(
        &self,
        key: &Key,
        asked: Asked,
        kind: Kind<T>,
        work: impl FnOnce(AdminClient<Channel>, Told<T>) -> F + Send + 'static,
    ) where
        T: PartialEq + Send + 'static,
        F: Future<Output = Result<(), Status>> + Send,
    {
        let told = Told {
            orders: self.clone(),
            key: key.clone(),
            given: Timestamp::now(),
            order: kind.order,
        };
        self.with(key, |desk| {
            *(kind.order)(&mut desk.known) = Some(Order {
                about: asked.about.clone(),
                member: asked.member,
                given: told.given,
                failures: asked.failures,
                heard: Heard::Nothing,
            });
            let task = tokio::spawn(async move {
                let ended = match dial(&asked.target, asked.tls).await {
                    Ok(client) => work(client, told.clone()).await,
                    Err(status) => Err(status),
                };
                if let Err(status) = ended {
                    told.heard(Heard::Failed(failure(&status))).await;
                }
            });
            *(kind.task)(desk) = Some(Task(task.abort_handle()));
            desk.note_shipping(Instant::now());
        });
    }
}

const SHIPPING: Kind<Shipped> = Kind {
    order: |known| &mut known.shipping,
    task: |desk| &mut desk.shipping,
};

/// Where an order puts what it hears.
struct Told<T> {
    orders: Orders,
    key: Key,
    given: Timestamp,
    order: fn(&mut Known) -> &mut Option<Order<T>>,
}

impl<T> Clone for Told<T> {
    fn clone(&self) -> Self {
        Self {
            orders: self.orders.clone(),
            key: self.key.clone(),
            given: self.given,
            order: self.order,
        }
    }
}

impl<T: PartialEq> Told<T> {
    async fn news(&self, news: T) {
        self.heard(Heard::News(news)).await;
    }

    /// Wakes the cluster when it is news, and when the order is still the last of its kind.
    async fn heard(&self, heard: Heard<T>) {
        let is_news = self.orders.with(&self.key, |desk| {
            let order = (self.order)(&mut desk.known).as_mut();
            let Some(order) = order.filter(|order| order.given == self.given) else {
                return false;
            };
            let is_news = order.heard != heard;
            order.heard = heard;
            desk.note_shipping(Instant::now());
            is_news
        });
        if is_news {
            let _ = self.orders.wake.send(self.key.clone()).await;
        }
    }
}

/// Tells a problem at once, and how far the log is shipped once a minute.
async fn follow(
    mut stream: tonic::Streaming<v1::LogShipped>,
    told: &Told<Shipped>,
) -> Result<(), Status> {
    let mut shown = Shipped::default();
    let mut to = None;
    let mut next = Instant::now();
    loop {
        tokio::select! {
            message = stream.message() => {
                let Some(message) = message? else { return Ok(()) };
                let is_there = message.shipped_to.is_some();
                to = Some(message.wall_time_ms).filter(|_| is_there).and_then(moment).or(to);
                shown.problem = message.problem;
            }
            () = tokio::time::sleep_until(next), if shown.to != to => {}
        }
        if Instant::now() >= next && shown.to != to {
            shown.to = to;
            next = Instant::now() + SHIPPED_EVERY;
        }
        told.news(shown.clone()).await;
    }
}

async fn dial(target: &Target, tls: ClientTls) -> Result<AdminClient<Channel>, Status> {
    let dialled = admin::connect(&target.address, &target.server_name, tls);
    match tokio::time::timeout(DIAL_TIMEOUT, dialled).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) => Err(Status::unavailable(format!("not reached: {error}"))),
        Err(_) => Err(Status::unavailable("not reached in time")),
    }
}

fn late() -> Status {
    Status::unavailable("no answer in time")
}

fn timed<T>(message: T, timeout: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}

fn failure(status: &Status) -> Failure {
    Failure {
        words: status.message().to_owned(),
        is_final: is_final(status.code()),
        at: Timestamp::now(),
    }
}

/// What is wrong with the order, the rights or the bucket stays wrong; whatever else may be better next time.
fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument | Code::PermissionDenied | Code::DataLoss
    )
}

fn moment(ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()
}

fn writing(progress: &v1::BackupProgress) -> Writing {
    let phase = match progress.phase() {
        v1::BackupPhase::Verifying => BackupPhase::Verifying,
        v1::BackupPhase::Unspecified | v1::BackupPhase::Uploading => BackupPhase::Running,
        v1::BackupPhase::Done => {
            return Writing::Done(facts(&progress.facts.clone().unwrap_or_default()));
        }
    };
    let tenths = (progress.bytes_done.min(progress.bytes_total) * 10)
        .checked_div(progress.bytes_total)
        .unwrap_or(0);
    Writing::UnderWay {
        phase,
        percent: u8::try_from(tenths * 10).unwrap_or(100),
    }
}

fn facts(facts: &v1::BackupFacts) -> Facts {
    let log_id = facts.log_id.unwrap_or_default();
    Facts {
        lineage: Lineage {
            cluster_id: facts.cluster_id.clone(),
            incarnation: u16::try_from(facts.incarnation).unwrap_or(u16::MAX),
        },
        log_id: LogId {
            term: log_id.term,
            index: log_id.index,
        },
        taken_at: moment(facts.created_at_ms).unwrap_or(Timestamp::UNIX_EPOCH),
        member: MemberId(facts.member_id),
        bytes: facts.bytes,
        tasks: facts.tasks,
        state_hash: facts.state_hash.clone(),
        checksum: facts.r#ref.clone().unwrap_or_default().checksum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_counts_as_shipped_once_a_member_says_so() {
        let order = |heard| {
            Some(Order {
                about: "bucket".into(),
                member: MemberId(1),
                given: Timestamp::UNIX_EPOCH,
                failures: 0,
                heard,
            })
        };
        let problem = |words: &str| {
            Heard::News(Shipped {
                to: None,
                problem: words.into(),
            })
        };
        let (wake, _news) = mpsc::channel(1);
        let orders = Orders::new(wake);
        let rows = [
            (order(Heard::Nothing), Some(60)),
            (order(problem("AccessDenied")), Some(120)),
            (order(problem("")), None),
            (order(problem("AccessDenied")), Some(60)),
            (None, None),
        ];
        let mut now = Instant::now();
        for (shipping, seconds) in rows {
            orders.with(&("shop".into(), "demo".into()), |desk| {
                desk.known.shipping = shipping;
                desk.note_shipping(now);
            });
            now += Duration::from_mins(1);
            assert_eq!(
                orders.unshipped(now),
                Duration::from_secs(seconds.unwrap_or(0))
            );
        }
    }

    #[test]
    fn progress_is_told_in_steps_of_ten() {
        let rows = [
            (0, 0, 0),
            (0, 100, 0),
            (99, 1_000, 0),
            (100, 1_000, 10),
            (999, 1_000, 90),
        ];
        for (bytes_done, bytes_total, expected) in rows {
            let progress = v1::BackupProgress {
                phase: v1::BackupPhase::Uploading.into(),
                bytes_done,
                bytes_total,
                facts: None,
            };
            let told = Writing::UnderWay {
                phase: BackupPhase::Running,
                percent: expected,
            };
            assert_eq!(writing(&progress), told, "{bytes_done} of {bytes_total}");
        }
    }
}
