//! What runs once the disk is accepted: Raft and the service, and what they tell about themselves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use taskstore_api::v1;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::raft::consensus::{Consensus, NoSuccessor, RaftMetrics, Role, log_term};
use crate::raft::transport::peers::Peers;
use crate::raft::view::MembershipView;
use crate::service::Service;
use crate::service::request::Error;
use crate::service::snapshots::Snapshots;
use crate::storage::identity::Home;
use crate::storage::log_store::LogStore;
use crate::storage::store::Store;
use crate::task::command::{Command, Outcome, ReserveMembers};

/// A follower is behind by more than this many entries: lagging, not caught up.
const LAG_ENTRIES_MAX: u64 = 1_000;
/// A follower that has not answered for this long is unreachable; a leader that was not heard, none.
pub const SILENT_FOR: Duration = Duration::from_millis(1_500);
/// How long a reservation may wait for the log.
const RESERVE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a hand-over waits for the successor's log.
const SUCCESSOR_PATIENCE: Duration = Duration::from_secs(1);
const SUCCESSOR_PAUSE: Duration = Duration::from_millis(20);

/// Why nobody took over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandOverError {
    /// Nothing was begun.
    #[error("{0}")]
    Refused(String),
    #[error("member {0} did not take over in time")]
    NotInTime(u64),
}

/// What runs once the disk is accepted.
pub struct Running {
    pub consensus: Consensus,
    pub service: Arc<Service>,
    pub state: Arc<Store>,
    pub home: Home,
    pub log: LogStore,
    pub peers: Arc<Peers>,
    pub snapshots: Snapshots,
    /// The leader, as long as this member follows one and hears it.
    pub heard_leader: watch::Receiver<Option<u64>>,
    /// While this member ships its log: up to which index it has. The log is purged behind it.
    pub shipped: watch::Sender<Option<u64>>,
}

impl Running {
    /// Whether this member has ever written to its log: it has voted, or has been reached by a leader.
    pub fn initialized(&self) -> bool {
        self.home.stamp().is_initialized
    }

    /// Numbers for new members, above every id in any configuration this leader has applied.
    pub async fn reserve_members(
        &self,
        operation_id: String,
        count: u32,
    ) -> Result<Vec<u64>, Error> {
        let metrics = self.consensus.metrics();
        let above = metrics
            .membership_config
            .nodes()
            .map(|(id, _)| *id)
            .max()
            .unwrap_or(0);
        let command = Command::ReserveMembers(ReserveMembers {
            operation_id,
            count,
            above,
        });
        match self
            .service
            .propose(command, Instant::now() + RESERVE_PATIENCE)
            .await?
        {
            Outcome::Reserved(Ok(ids)) => Ok(ids),
            Outcome::Reserved(Err(rejection)) => Err(Error::Rejected(rejection)),
            other => Err(Error::OutcomeUnknown {
                reason: format!("answered with {other:?}"),
            }),
        }
    }

    /// Hands leadership to `to`, or to the voter whose log is furthest along, and waits until this member
    /// no longer leads. Begun only with a voter that was heard lately and holds the whole log: the engine
    /// takes no proposals meanwhile.
    pub async fn hand_over(
        &self,
        to: Option<u64>,
        patience: Duration,
    ) -> Result<u64, HandOverError> {
        let deadline = Instant::now() + SUCCESSOR_PATIENCE;
        let at_least = self.consensus.metrics().last_log_index.unwrap_or(0);
        let successor = loop {
            // Who is fenced would only hand over again.
            let heard = self.peers.heard(SILENT_FOR).into_iter();
            let heard = heard.filter(|(id, heard)| to == Some(*id) || heard.facts.ready);
            let heard = heard.map(|(id, _)| id).collect();
            match self.consensus.successor(to, &heard, at_least) {
                Ok(successor) => break successor,
                Err(NoSuccessor::NotYet(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(SUCCESSOR_PAUSE).await;
                }
                Err(NoSuccessor::NotYet(reason) | NoSuccessor::Never(reason)) => {
                    return Err(HandOverError::Refused(reason));
                }
            }
        };
        match self.consensus.hand_over(successor, patience).await {
            true => Ok(successor),
            false => Err(HandOverError::NotInTime(successor)),
        }
    }

    /// Index of the last applied entry, and the store's clock.
    pub fn applied(&self) -> (u64, u64) {
        let applied = self.state.progress().borrow().applied;
        let wall_time_ms = self.state.read(|state| state.tables().meta.wall_time_ms);
        (applied.map_or(0, |applied| applied.index), wall_time_ms)
    }

    /// Brings the gauges up to date; called when they are read.
    pub fn set_gauges(&self, metrics: &Metrics) {
        let gauges = &metrics.gauges;
        let raft = self.raft_status();
        gauges.term.set(raft.term);
        gauges.leader.set(raft.leader_id);
        gauges.leads.set(u64::from(raft.leads));
        gauges.last_log_index.set(raft.last_log_index);
        gauges.committed_index.set(raft.committed_index);
        gauges.applied_index.set(raft.applied_index);
        gauges.snapshot_index.set(raft.snapshot_index);
        gauges.image_lag_entries.set(self.state.image_lag_entries());
        gauges.image_dirty_bytes.set(self.state.image_dirty_bytes());
        gauges.feature_level.set(u64::from(raft.feature_level));
        gauges
            .proposals_waiting
            .set(self.service.proposer().waiting() as u64);
        gauges.forwards.set(self.peers.forwards());
        gauges.waiters.set(self.service.waiters());
        let (queues, payload_bytes, tasks) = self.state.read(|state| {
            let mut tasks = [0; 6];
            let mut queues = 0;
            for (_, _, stats) in state.queues(0) {
                queues += 1;
                let counts = [
                    stats.scheduled,
                    stats.available,
                    stats.running,
                    stats.retryable,
                    stats.completed,
                    stats.discarded,
                ];
                tasks
                    .iter_mut()
                    .zip(counts)
                    .for_each(|(sum, count)| *sum += count);
            }
            (queues, state.payload_bytes(), tasks)
        });
        gauges.queues.set(queues);
        gauges.payload_bytes.set(payload_bytes);
        let names = [
            "scheduled",
            "available",
            "running",
            "retryable",
            "completed",
            "discarded",
        ];
        for (name, count) in names.into_iter().zip(tasks) {
            metrics.set_tasks(name, count);
        }
    }

    /// Raft's part of the status: positions, configuration and, on the leader, the other members.
    pub fn raft_status(&self) -> v1::RaftStatus {
        let metrics = self.consensus.metrics();
        let leads = matches!(self.consensus.role(), Role::Leads { .. });
        let (state_hash, feature_level) = self
            .state
            .read(|state| (format!("{:032x}", state.hash()), state.feature_level()));
        let membership = MembershipView::of(&metrics);
        let last = self.log.last();
        let index = |log_id: &Option<crate::storage::types::LogId>| {
            log_id.as_ref().map_or(0, |id| id.index())
        };
        let heard = *self.heard_leader.borrow();
        let leader = metrics
            .current_leader
            .filter(|leader| *leader == metrics.id || Some(*leader) == heard);
        v1::RaftStatus {
            term: metrics.current_term,
            leader_id: leader.unwrap_or(0),
            leads,
            membership: Some(membership_message(&membership)),
            last_log_index: index(&last),
            last_log_term: last.as_ref().map_or(0, log_term),
            committed_index: index(&metrics.cluster_committed),
            applied_index: index(&metrics.last_applied),
            snapshot_index: index(&metrics.snapshot),
            peers: if leads {
                self.peers(&metrics)
            } else {
                Vec::new()
            },
            state_hash,
            feature_level,
        }
    }

    fn peers(&self, metrics: &RaftMetrics) -> Vec<v1::PeerStatus> {
        let Some(replication) = &metrics.replication else {
            return Vec::new();
        };
        let last = metrics.last_log_index.unwrap_or(0);
        let heard = self.peers.heard(SILENT_FOR);
        replication
            .iter()
            .filter(|(id, _)| **id != metrics.id)
            .map(|(id, matched)| {
                let behind =
                    last.saturating_sub(matched.as_ref().map_or(0, |log_id| log_id.index()));
                let said = heard.get(id);
                let health = match (said, behind > LAG_ENTRIES_MAX) {
                    (None, _) => v1::PeerHealth::Unreachable,
                    (Some(_), true) => v1::PeerHealth::Lagging,
                    (Some(_), false) => v1::PeerHealth::CaughtUp,
                };
                v1::PeerStatus {
                    member_id: *id,
                    health: health.into(),
                    lag_entries: rounded_lag(behind),
                    ready: said.is_some_and(|heard| heard.facts.ready),
                }
            })
            .collect()
    }
}

/// Lag that is within normal load shows as 0; beyond, the next power of two.
fn rounded_lag(entries: u64) -> u64 {
    if entries <= LAG_ENTRIES_MAX {
        0
    } else {
        entries.next_power_of_two()
    }
}

/// The wire form of a configuration.
pub fn membership_message(view: &MembershipView) -> v1::Membership {
    v1::Membership {
        log_id: view.log_id.map(|(term, index)| v1::LogId { term, index }),
        members: view
            .members
            .iter()
            .map(|(id, name)| v1::Member {
                id: *id,
                name: name.clone(),
            })
            .collect(),
        voters: view.voters.iter().copied().collect(),
        voters_outgoing: view.voters_outgoing.iter().copied().collect(),
        learners: view.learners.iter().copied().collect(),
        committed: view.committed,
    }
}
