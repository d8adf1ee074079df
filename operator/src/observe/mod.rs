//! The world as one pass sees it: plain data, built once, from caches and pushed reports.
//!
//! ```text
//!  watches ──▶ caches ──▶ objects.rs ─┐
//!  status streams ──────▶ report.rs ──┼──▶ Observed ──▶ plan, status
//!  Secrets we made or checked ────────┘
//! ```
//!
//! It is stale by nature. What would do harm on stale facts is checked again by `apply`, uncached, right
//! before it is done.

mod app;
pub mod backups;
mod drill;
pub mod objects;
pub mod report;
mod snapshot;
pub mod streams;

use std::collections::{BTreeMap, BTreeSet};

use crds::MemberId;
use crds::restore::{BucketSource, RestoreUpto};
use crds::status::LogId;
use jiff::Timestamp;

pub use backups::Backups;
pub use drill::{DrillPod, drill};
pub use report::{Filled, Membership, Peer, PeerHealth, Phase, Raft, Reach, Report};
pub use snapshot::{Caches, observe};

/// Everything of one cluster, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Every volume labelled for this cluster's name, by claim name.
    pub volumes: BTreeMap<String, Volume>,
    /// Every pod labelled for this cluster's name, by pod name.
    pub pods: BTreeMap<String, Pod>,
    pub client_service: Option<Object>,
    pub peer_service: Option<Object>,
    pub account: Option<Object>,
    pub budget: Option<Budget>,
    pub credentials: Credentials,
    pub members: BTreeMap<MemberId, Member>,
    /// Volumes that the API server lately refused to make larger. Losing it costs another refusal.
    pub refused_growth: BTreeMap<MemberId, RefusedGrowth>,
    /// What the TaskStoreRestore says that the spec names; none once the cluster has begun.
    pub restore: Option<Restore>,
    /// The pod of a restore drill.
    pub drill: Option<DrillPod>,
    /// Image of a spec that names none.
    pub default_image: String,
    pub backups: Backups,
}

/// The TaskStoreRestore that a cluster is to begin with.
#[derive(Clone, Debug, PartialEq)]
pub enum Restore {
    Missing,
    /// It has not said yet what its source comes to.
    Pending,
    /// It was given up, or made another cluster.
    Ended,
    Ordered(Box<RestoreOrder>),
}

/// What a volume is filled with.
#[derive(Clone, Debug, PartialEq)]
pub struct RestoreOrder {
    pub source: BucketSource,
    pub upto: RestoreUpto,
}

/// Whose an object is by its controller reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The cluster as it exists now.
    Ours,
    /// Another object, most often an earlier cluster of this name; garbage collection removes it.
    Other,
    Nobody,
}

/// Whether an object is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Present,
    Deleting,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub uid: String,
    pub version: String,
    pub owner: Owner,
    /// What differs from what we render, in fields that we set.
    pub drift: Drift,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drift {
    None,
    Changed,
}

/// Where a volume stands in the one life that its member has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeState {
    /// Nothing was ever stamped on it: its member is in no configuration.
    Unformatted,
    Formatted,
    /// Its member was removed for good.
    Retired,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    pub uid: String,
    pub version: String,
    pub cluster_id: String,
    pub member: MemberId,
    pub state: VolumeState,
    pub owner: Owner,
    pub life: Life,
    pub requested_bytes: u64,
    /// Absent until it is bound.
    pub capacity_bytes: Option<u64>,
}

/// A size that a volume cannot have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedGrowth {
    pub bytes: u64,
    /// The API server's words.
    pub words: String,
    pub at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPhase {
    Pending,
    /// Its member's container was started; containers around it may wait for what they like.
    Running,
    /// Failed, evicted or succeeded: it only holds its name.
    Ended,
    Unknown,
}

/// How a pod's member was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Serve,
    /// Opens its disk read-only and reports; no vote, no serving.
    Inspect,
    /// Fills its blank disk from a bucket, and reports; no vote, no serving.
    Restore,
    /// Makes the disk of that member its own, under a new incarnation, and reports; no vote, no serving.
    Rewrite {
        from: MemberId,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    pub name: String,
    pub uid: String,
    pub version: String,
    pub cluster_id: String,
    pub member: MemberId,
    pub created: Timestamp,
    pub phase: PodPhase,
    /// Its member is Ready, and not by the word of a container that is about to be replaced.
    pub ready: bool,
    pub life: Life,
    pub owner: Owner,
    pub start: Start,
    /// Counted by the disruption budget.
    pub is_voter: bool,
    pub ip: Option<String>,
    pub node: Option<String>,
    pub zone: Option<String>,
    pub template_hash: String,
    pub renderer_revision: u32,
    pub image: String,
    /// The image that the spec named for it; none when it took the operator's.
    pub named_image: Option<String>,
    /// The member's container that is there, running or not.
    pub container: Option<String>,
    /// The member's, or the whole pod's.
    pub trouble: Option<Trouble>,
    /// Containers of the user's around the member, when there are any.
    pub app: Option<App>,
    /// The Secret that its member has credentials for backups from.
    pub backup_secret: Option<String>,
}

impl Pod {
    /// Whether its member's container runs, as far as the kubelet has said. A waiting or unscheduled one serves nobody.
    pub fn runs(&self) -> bool {
        self.phase == PodPhase::Running && self.trouble.is_none()
    }
}

/// The user's containers in a member's pod. Nothing about them says anything about the member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct App {
    /// What the spec named for them, by container.
    pub images: BTreeMap<String, String>,
    /// The containers that are there, running or not.
    pub containers: BTreeMap<String, String>,
    /// Why not all of them are Ready with the image that was named last.
    pub trouble: Option<String>,
}

/// Why a pod does not run, in the words of the scheduler or the kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    Unschedulable(String),
    Container(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    pub object: Object,
    pub min_available: u32,
    pub generation: i64,
    pub observed_generation: i64,
    pub disruptions_allowed: i32,
    /// Pods it selects, and how many of them are healthy: Ready, not on their way out.
    pub expected: usize,
    pub healthy: usize,
    /// Pods whose eviction was granted and that are not gone yet.
    pub disrupted: usize,
}

impl Budget {
    /// No eviction can be granted any more, and none that was granted is under way.
    pub fn is_closed_for_certain(&self, pods_counted: usize) -> bool {
        self.object.drift == Drift::None
            && self.min_available as usize >= pods_counted.max(self.expected)
            && self.observed_generation >= self.generation
            && self.disruptions_allowed == 0
            && self.disrupted == 0
    }

    /// Whether the voters may become these: it is closed for certain, counts each of them that has a pod, and
    /// a quorum of them has one that runs. A leader's word on who is alive is a little older.
    pub fn allows<'a>(
        &self,
        voters: &BTreeSet<MemberId>,
        pods: impl Iterator<Item = &'a Pod> + Clone,
    ) -> bool {
        let counted = pods.clone().filter(|pod| pod.is_voter).count();
        let mut theirs = pods.filter(|pod| voters.contains(&pod.member));
        let running = theirs
            .clone()
            .filter(|pod| pod.life == Life::Present && pod.phase == PodPhase::Running)
            .count();
        self.is_closed_for_certain(counted)
            && running * 2 > voters.len()
            && theirs.all(|pod| pod.is_voter)
    }

    /// Whether this voter may go down: it is closed for certain, and every other voter has a pod that runs and
    /// that it counts, Ready unless the one that goes is not Ready itself.
    pub fn spares<'a>(
        &self,
        member: MemberId,
        voters: &BTreeSet<MemberId>,
        pods: impl Iterator<Item = &'a Pod> + Clone,
    ) -> bool {
        let counted = pods.clone().filter(|pod| pod.is_voter).count();
        let is_ready = pods
            .clone()
            .any(|pod| pod.member == member && pod.life == Life::Present && pod.ready);
        let is_up = |voter: &MemberId| {
            pods.clone().any(|pod| {
                pod.member == *voter
                    && pod.life == Life::Present
                    && pod.runs()
                    && pod.is_voter
                    && (pod.ready || !is_ready)
            })
        };
        let mut others = voters.iter().filter(|voter| **voter != member);
        self.is_closed_for_certain(counted) && others.all(is_up)
    }

    /// Its status is about itself as it is, and counts nobody who has left: lower now, it grants no more
    /// than the voters can spare.
    pub fn has_settled(&self, voters: usize) -> bool {
        self.observed_generation >= self.generation && self.healthy <= voters
    }
}

/// What we know of Secrets from having made or checked them; they are never listed or watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    pub authority: Option<Authority>,
    /// When the certificate of the client port runs out. Absent: not checked yet.
    pub client_expires: Option<Timestamp>,
    /// Whether that certificate is good for an app beside a member, whatever it calls its own host.
    pub client_is_local: bool,
    pub member_expires: BTreeMap<MemberId, Timestamp>,
    /// Members whose certificate is known to be gone.
    pub withdrawn: BTreeSet<MemberId>,
    /// The Secret that the spec names for the client port, by that name. Absent: not read yet.
    pub client_secret: Option<(String, ClientSecret)>,
}

/// Whether a Secret of the user's can be the certificate of the client port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientSecret {
    Good,
    Missing,
    /// Why it cannot, in words.
    Invalid(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    pub cluster_id: String,
    /// Whether it goes with the cluster or stays with kept volumes.
    pub owner: Owner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// A status stream is open and showed a sign of life.
    Connected,
    /// We try to reach it and cannot.
    Silent,
    /// The leader speaks for it; what is here is the last we heard from itself.
    Unwatched,
}

/// One member's own words, as far as they reached us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub link: Link,
    pub report: Option<Report>,
}

impl Observed {
    pub fn volume_of(&self, member: MemberId) -> Option<&Volume> {
        self.volumes.values().find(|volume| volume.member == member)
    }

    pub fn pod_of(&self, member: MemberId) -> Option<&Pod> {
        self.pods.values().find(|pod| pod.member == member)
    }

    /// Its pod was evicted, or has ended, and the scheduler finds no node for the next one.
    pub fn is_without_node(&self, member: MemberId) -> bool {
        self.pod_of(member).is_some_and(|pod| {
            pod.node.is_none() && matches!(pod.trouble, Some(Trouble::Unschedulable(_)))
        })
    }

    /// Pods that carry the voter label: those that the budget counts.
    pub fn pods_counted(&self) -> usize {
        self.pods.values().filter(|pod| pod.is_voter).count()
    }

    /// When it was last heard.
    pub fn was_fenced(&self, member: MemberId) -> bool {
        let known = self.members.get(&member);
        known.is_some_and(|known| known.report.as_ref().is_some_and(|last| last.is_fenced))
    }

    pub fn is_any_fenced(&self) -> bool {
        self.members.keys().any(|member| self.was_fenced(*member))
    }

    /// What a member says about itself right now.
    pub fn report_of(&self, member: MemberId) -> Option<&Report> {
        self.members
            .get(&member)
            .filter(|member| member.link == Link::Connected)
            .and_then(|member| member.report.as_ref())
    }

    /// The leader's words: of all that claim to lead, the one with the highest term, and only when its
    /// configuration is committed and not older than the one we have recorded. Who leads under an older
    /// incarnation leads nobody any more.
    pub fn leader(
        &self,
        identity: Option<&crds::status::Identity>,
        recorded: Option<&crds::status::Membership>,
    ) -> Option<Leader<'_>> {
        let recorded = recorded.map_or(LogId::default(), |known| known.log_id);
        self.members
            .keys()
            .filter(|id| identity.is_none_or(|known| known.incarnation == id.incarnation()))
            .filter_map(|id| {
                let report = self.report_of(*id)?;
                let raft = report.raft.as_ref().filter(|raft| raft.leads)?;
                let is_current = raft.membership.is_committed && raft.membership.log_id >= recorded;
                is_current.then_some(Leader { id: *id, raft })
            })
            .max_by_key(|leader| leader.raft.term)
            .filter(Leader::has_quorum)
    }
}

/// A member that leads, with what it knows of the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Leader<'a> {
    pub id: MemberId,
    pub raft: &'a Raft,
}

impl Leader<'_> {
    /// Itself, or a peer that it reaches.
    pub fn is_alive(&self, member: MemberId) -> bool {
        member == self.id
            || self.raft.peers.get(&member).is_some_and(|peer| {
                matches!(peer.health, PeerHealth::CaughtUp | PeerHealth::Lagging)
            })
    }

    pub fn is_caught_up(&self, member: MemberId) -> bool {
        member == self.id
            || self
                .raft
                .peers
                .get(&member)
                .is_some_and(|peer| peer.health == PeerHealth::CaughtUp)
    }

    /// A leader that reaches no quorum is cut off; another may lead elsewhere.
    fn has_quorum(&self) -> bool {
        self.raft.membership.is_quorum(|voter| self.is_alive(voter))
    }
}
