//! Status streams to members, and their admin calls over the same connections.
//!
//! ```text
//!  Watching ──dial──▶ stream ──report flips──▶ wake the reconcile of its cluster
//!     ▲                 │
//!     └── backoff ◀─────┘ ended, or no sign of life for SILENCE_MAX
//! ```
//!
//! Which members are watched is decided by the reconcile: the leader alone, or everybody while there is
//! none. The members' last words are kept when a stream is given up because the leader speaks for them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crds::MemberId;
use taskstore_api::admin::{self, ClientTls};
use taskstore_api::v1;
use taskstore_api::v1::admin_client::AdminClient;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tonic::transport::Channel;
use tracing::debug;

use crate::observe::{Link, Member, Report};

/// A member speaks at least every 5 s; two missed signs and a little end the stream.
const SILENCE_MAX: Duration = Duration::from_secs(12);
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// A new pod is dialled often: its listeners come up while we wait for it.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// A cluster object, by namespace and name.
pub type Key = (String, String);

/// Where one member is reached, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `ip:port`: faster than a name that was just published.
    pub address: String,
    pub server_name: String,
}

/// Everything this process knows from members. Cheap to clone.
#[derive(Clone)]
pub struct Members {
    clusters: Arc<Mutex<HashMap<Key, Cluster>>>,
    wake: mpsc::Sender<Key>,
}

#[derive(Default)]
struct Cluster {
    tls: Option<ClientTls>,
    watched: BTreeMap<MemberId, Watched>,
    known: BTreeMap<MemberId, Member>,
    /// Members with a format order under way: it fills a log's worth of disk, and others need not wait.
    formatting: BTreeSet<MemberId>,
}

struct Watched {
    target: Target,
    task: AbortHandle,
    client: Option<AdminClient<Channel>>,
}

impl Members {
    /// `wake` gets the key of a cluster whenever something about one of its members flipped.
    pub fn new(wake: mpsc::Sender<Key>) -> Self {
        Self {
            clusters: Arc::default(),
            wake,
        }
    }

    pub fn known(&self, key: &Key) -> BTreeMap<MemberId, Member> {
        self.with(key, |cluster| cluster.known.clone())
    }

    /// A client over the connection of the member's open status stream.
    pub fn client(&self, key: &Key, member: MemberId) -> Option<AdminClient<Channel>> {
        self.with(key, |cluster| {
            cluster
                .watched
                .get(&member)
                .and_then(|watched| watched.client.clone())
        })
    }

    /// Opens and closes streams until exactly `targets` are watched. Members that are in `gone` are
    /// forgotten, all others keep what was last heard from them.
    pub fn watch(
        &self,
        key: &Key,
        tls: &ClientTls,
        targets: BTreeMap<MemberId, Target>,
        present: &[MemberId],
    ) {
        let this = self.clone();
        self.with(key, |cluster| {
            let is_new_identity = cluster
                .tls
                .as_ref()
                .is_none_or(|known| known.cert_pem != tls.cert_pem);
            cluster.tls = Some(tls.clone());
            cluster.watched.retain(|member, watched| {
                let keep = !is_new_identity && targets.get(member) == Some(&watched.target);
                if !keep {
                    watched.task.abort();
                    if let Some(known) = cluster.known.get_mut(member) {
                        known.link = Link::Unwatched;
                    }
                }
                keep
            });
            cluster.known.retain(|member, _| present.contains(member));
            for (member, target) in targets {
                if cluster.watched.contains_key(&member) {
                    continue;
                }
                let known = cluster.known.entry(member).or_insert(Member {
                    link: Link::Silent,
                    report: None,
                });
                known.link = Link::Silent;
                let task = tokio::spawn(follow(
                    this.clone(),
                    key.clone(),
                    member,
                    target.clone(),
                    tls.clone(),
                ));
                let watched = Watched {
                    target,
                    task: task.abort_handle(),
                    client: None,
                };
                cluster.watched.insert(member, watched);
            }
        });
    }

    /// Runs one order to a member beside the pass that gave it; what came of it shows in the next report.
    /// While one is under way another is not sent.
    pub fn format_beside(
        &self,
        key: &Key,
        member: MemberId,
        order: impl Future<Output = ()> + Send + 'static,
    ) {
        let is_first = self.with(key, |cluster| cluster.formatting.insert(member));
        if !is_first {
            return;
        }
        let (this, key) = (self.clone(), key.clone());
        tokio::spawn(async move {
            order.await;
            this.with(&key, |cluster| cluster.formatting.remove(&member));
            // An order that failed is given again by the next pass, and this asks for one.
            let _ = this.wake.send(key).await;
        });
    }

    /// Ends every stream of a cluster and forgets it.
    pub fn forget(&self, key: &Key) {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = clusters.remove(key) {
            for watched in cluster.watched.values() {
                watched.task.abort();
            }
        }
    }

    /// Ends every stream: a standby holds watches and no streams.
    pub fn forget_all(&self) {
        let keys: Vec<Key> = {
            let clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
            clusters.keys().cloned().collect()
        };
        for key in keys {
            self.forget(&key);
        }
    }

    fn with<T>(&self, key: &Key, read: impl FnOnce(&mut Cluster) -> T) -> T {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        read(clusters.entry(key.clone()).or_default())
    }

    /// Notes what a member said; wakes its cluster when that is news.
    async fn note(&self, key: &Key, member: MemberId, now: Member) {
        let is_news = self.with(key, |cluster| {
            if !cluster.watched.contains_key(&member) {
                return false;
            }
            let before = cluster.known.insert(member, now.clone());
            let is_news = before.as_ref() != Some(&now);
            if is_news {
                debug!(%member, ?before, ?now, "member news");
            }
            is_news
        });
        if is_news {
            // The receiver lives as long as the controller; without it nobody is left to wake.
            let _ = self.wake.send(key.clone()).await;
        }
    }

    async fn lost(&self, key: &Key, member: MemberId) {
        let last = self.with(key, |cluster| {
            if let Some(watched) = cluster.watched.get_mut(&member) {
                watched.client = None;
            }
            cluster
                .known
                .get(&member)
                .and_then(|known| known.report.clone())
        });
        self.note(
            key,
            member,
            Member {
                link: Link::Silent,
                report: last,
            },
        )
        .await;
    }
}

/// Dials, follows and dials again, until it is aborted.
async fn follow(members: Members, key: Key, member: MemberId, target: Target, tls: ClientTls) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let dialled = tokio::time::timeout(
            DIAL_TIMEOUT,
            admin::connect(&target.address, &target.server_name, tls.clone()),
        )
        .await;
        match dialled {
            Ok(Ok(client)) => {
                let heard = listen(&members, &key, member, client).await;
                if heard {
                    backoff = BACKOFF_MIN;
                }
                members.lost(&key, member).await;
            }
            Ok(Err(error)) => debug!(address = %target.address, %error, "member not reached"),
            Err(_) => debug!(address = %target.address, "member not reached in time"),
        }
        let jitter = 0.75 + fastrand::f64() / 2.0;
        tokio::time::sleep(backoff.mul_f64(jitter)).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Follows one stream to its end. True when the member said anything.
async fn listen(
    members: &Members,
    key: &Key,
    member: MemberId,
    mut client: AdminClient<Channel>,
) -> bool {
    let opened =
        tokio::time::timeout(DIAL_TIMEOUT, client.watch_status(v1::WatchStatusRequest {})).await;
    let mut stream = match opened {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(error)) => {
            debug!(%error, "status stream refused");
            return false;
        }
        Err(_) => return false,
    };
    members.with(key, |cluster| {
        if let Some(watched) = cluster.watched.get_mut(&member) {
            watched.client = Some(client);
        }
    });
    let mut heard = false;
    loop {
        match tokio::time::timeout(SILENCE_MAX, stream.message()).await {
            Ok(Ok(Some(status))) => {
                heard = true;
                let report = Some(Report::read(&status));
                members
                    .note(
                        key,
                        member,
                        Member {
                            link: Link::Connected,
                            report,
                        },
                    )
                    .await;
            }
            Ok(Ok(None)) | Err(_) => return heard,
            Ok(Err(error)) => {
                debug!(%error, "status stream ended");
                return heard;
            }
        }
    }
}
