//! Consensus as the service sees it: propose, confirm leadership for a read, know who leads. openraft's
//! own types end here.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::impls::ProgressResponder;
use tokio::sync::watch;

use super::membership::{self, Change, ChangeError, Changed, Guard};
use super::view::MembershipView;
use crate::storage::machine::Machine;
use crate::storage::types::{
    EntryBytes, LogId, MemberName, Outcomes, StoredMembership, TypeConfig,
};

/// The engine over our log and state machine.
pub type Raft = openraft::Raft<TypeConfig, Machine>;
/// Everything the engine tells about itself.
pub type RaftMetrics = openraft::RaftMetrics<TypeConfig>;

/// How long a founder waits for the configuration of another one that was asked first.
const INITIALIZE_PATIENCE: Duration = Duration::from_secs(3);

/// Who leads, as this member knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// This member leads and has applied its own first entry of the term, so its state is current.
    Leads { term: u64 },
    /// Another member leads, or none is known.
    Follows { leader: Option<u64> },
}

/// Why a proposal has no outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProposeError {
    /// Nothing was appended: safe to send elsewhere.
    NotLeader,
    /// It was appended and may or may not be committed.
    Unknown(String),
}

/// Why nobody can take over from this member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoSuccessor {
    /// It may do so in a moment.
    NotYet(String),
    Never(String),
}

/// The metrics as they change.
pub struct MetricsWatch(WatchReceiverOf<TypeConfig, RaftMetrics>);

impl MetricsWatch {
    /// The metrics now; only what comes after them is a change.
    pub fn current(&mut self) -> RaftMetrics {
        self.0.borrow_and_update().clone()
    }

    /// Waits until they differ from the last `current`. False once the engine has ended.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// A handle on the running engine.
#[derive(Clone)]
pub struct Consensus {
    raft: Arc<Raft>,
    role: watch::Receiver<Role>,
}

impl Consensus {
    /// Wraps a running engine and follows its role until it ends.
    pub fn new(raft: Raft) -> Consensus {
        let (sender, role) = watch::channel(Role::Follows { leader: None });
        let raft = Arc::new(raft);
        tokio::spawn(follow_role(raft.clone(), sender));
        Consensus { raft, role }
    }

    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    pub fn role(&self) -> Role {
        *self.role.borrow()
    }

    /// A watch on the role; a change is seen within a message of the engine.
    pub fn watch_role(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// Whether this member asks for votes when it misses a leader. It votes in any case.
    pub fn stand_for_election(&self, stands: bool) {
        self.raft.runtime_config().elect(stands);
    }

    pub fn metrics(&self) -> RaftMetrics {
        self.raft.metrics().borrow_watched().clone()
    }

    /// Follows the metrics. Hold it across a loop: a new one has a change to tell at once.
    pub fn watch_metrics(&self) -> MetricsWatch {
        MetricsWatch(self.raft.metrics())
    }

    /// Appends an entry if this member still leads in `term`. The future is the entry's outcome; it is
    /// handed over once the engine has the entry, so that calls keep their order.
    pub async fn propose(
        &self,
        term: u64,
        entry: EntryBytes,
    ) -> Result<impl Future<Output = Result<Outcomes, ProposeError>> + Send + 'static, ProposeError>
    {
        let leader = self.raft.as_leader().map_err(|_| ProposeError::NotLeader)?;
        if leader.term() != term {
            return Err(ProposeError::NotLeader);
        }
        let (responder, outcome) = ProgressResponder::complete_only();
        self.raft
            .write(entry)
            .with_leader(leader.to_committed_leader_id())
            .responder(responder)
            .await
            .map_err(|_| ProposeError::NotLeader)?;
        Ok(async move {
            match outcome.await {
                Ok(Ok(response)) => Ok(response.data),
                Ok(Err(ClientWriteError::ForwardToLeader(_))) => Err(ProposeError::NotLeader),
                Ok(Err(error)) => Err(ProposeError::Unknown(error.to_string())),
                Err(_) => Err(ProposeError::Unknown("the member stopped".into())),
            }
        })
    }

    /// Returns once a quorum has confirmed that this member leads and everything committed before the call
    /// is applied: a read after that is linearizable.
    pub async fn confirm_leadership(&self) -> Result<(), ProposeError> {
        match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(_) => Err(ProposeError::NotLeader),
        }
    }

    /// Waits until this member has applied what the cluster had committed. False once the engine ended.
    pub async fn recovered(&self) -> bool {
        self.raft.wait_for_recovery(None).await.is_ok()
    }

    /// Tells the engine that a newer snapshot file is there. It is gone only when the member stops.
    pub async fn learn_of_snapshot(&self) {
        let _ = self.raft.trigger().snapshot().await;
    }

    /// Lets the log go up to `index`, inclusive.
    pub async fn purge(&self, index: u64) {
        if self
            .metrics()
            .purged
            .as_ref()
            .map_or(0, |log_id| log_id.index())
            < index
        {
            let _ = self.raft.trigger().purge_log(index).await;
        }
    }

    /// The last index that every follower holds; none while this member does not lead.
    pub fn slowest_follower(&self) -> Option<u64> {
        let metrics = self.metrics();
        let replication = metrics.replication.as_ref()?;
        replication
            .values()
            .map(|matched| matched.as_ref().map_or(0, |log_id| log_id.index()))
            .min()
    }

    /// Returns with the reason once the engine has ended, by `shutdown` or because its storage failed.
    pub async fn ended(&self) -> String {
        let mut metrics = self.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_watched().running_state {
                return fatal.to_string();
            }
            if metrics.changed().await.is_err() {
                return "the engine is gone".into();
            }
        }
    }

    pub async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
    }

    /// Hands leadership to `to`, a successor, and waits until this member no longer leads. The engine takes
    /// no proposals from here on and sends no heartbeats: should `to` fail, the others elect.
    pub async fn hand_over(&self, to: u64, patience: Duration) -> bool {
        if self.raft.trigger().transfer_leader(to).await.is_err() {
            return false;
        }
        let mut role = self.watch_role();
        let gone = role.wait_for(|role| !matches!(role, Role::Leads { .. }));
        tokio::time::timeout(patience, gone)
            .await
            .is_ok_and(|role| role.is_ok())
    }

    /// Fixes the first configuration. An identical repeat, here or on another founder, changes nothing.
    pub async fn initialize(&self, voters: BTreeMap<u64, String>) -> Result<(), ChangeError> {
        let members: BTreeMap<u64, MemberName> = voters
            .into_iter()
            .map(|(id, name)| (id, MemberName(name)))
            .collect();
        match self.raft.initialize(members.clone()).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(error)) => {
                // Another founder was asked first: its configuration is here, or follows its vote.
                let known = self.first_membership().await;
                let same = known.is_some_and(|known| {
                    known
                        .nodes()
                        .map(|(id, name)| (*id, name.clone()))
                        .collect::<BTreeMap<_, _>>()
                        == members
                });
                match same {
                    true => Ok(()),
                    false => Err(ChangeError::Refused(error.to_string())),
                }
            }
            Err(RaftError::Fatal(fatal)) => Err(ChangeError::Unknown(fatal.to_string())),
        }
    }

    /// The configuration this member knows, waited for a little.
    async fn first_membership(&self) -> Option<Arc<StoredMembership>> {
        let mut watch = self.watch_metrics();
        let known = async {
            loop {
                let membership = watch.current().membership_config;
                if membership.log_id().is_some() {
                    return Some(membership);
                }
                if !watch.changed().await {
                    return None;
                }
            }
        };
        tokio::time::timeout(INITIALIZE_PATIENCE, known)
            .await
            .ok()
            .flatten()
    }

    /// Changes the membership if (term, index) of the effective configuration and the term still hold.
    /// Answers with the configuration that is now committed, or still joint.
    pub async fn change_membership(
        &self,
        change: Change,
        expected: Option<(u64, u64)>,
        term: u64,
    ) -> Result<MembershipView, ChangeError> {
        let membership = expected.map(|(term, index)| LogId::new_term_index(term, index));
        match membership::change(&self.raft, change, Guard { membership, term }).await? {
            Changed::Uniform(stored) => Ok(MembershipView::new(&stored, true)),
            Changed::Joint(stored) => Ok(MembershipView::new(&stored, false)),
        }
    }

    /// The name of a member of the effective configuration.
    pub fn name_of(&self, member_id: u64) -> Option<MemberName> {
        self.raft
            .metrics()
            .borrow_watched()
            .membership_config
            .get_node(&member_id)
            .cloned()
    }

    /// The voter that takes over: `to`, or the one whose log is furthest along by the leader's own view.
    /// It was `heard` lately and holds the log up to `at_least`.
    pub fn successor(
        &self,
        to: Option<u64>,
        heard: &BTreeSet<u64>,
        at_least: u64,
    ) -> Result<u64, NoSuccessor> {
        let metrics = self.metrics();
        let (true, Some(replication)) = (metrics.state.is_leader(), &metrics.replication) else {
            return Err(NoSuccessor::Never("this member does not lead".into()));
        };
        let matched = replication
            .iter()
            .map(|(id, matched)| (*id, matched.as_ref().map_or(0, |log_id| log_id.index())))
            .collect();
        let mut voters: BTreeSet<u64> =
            metrics.membership_config.membership().voter_ids().collect();
        voters.remove(&metrics.id);
        successor_of(&voters, &matched, to, heard, at_least)
    }
}

/// `voters` are the others; `matched` is how far each one's log goes.
fn successor_of(
    voters: &BTreeSet<u64>,
    matched: &BTreeMap<u64, u64>,
    to: Option<u64>,
    heard: &BTreeSet<u64>,
    at_least: u64,
) -> Result<u64, NoSuccessor> {
    let matched = |voter: u64| matched.get(&voter).copied().unwrap_or(0);
    let candidate = match to {
        Some(to) if !voters.contains(&to) => {
            let reason = format!("member {to} is no other voter");
            return Err(NoSuccessor::Never(reason));
        }
        Some(to) if !heard.contains(&to) => {
            let reason = format!("member {to} was not heard lately");
            return Err(NoSuccessor::NotYet(reason));
        }
        Some(to) => to,
        None if voters.is_empty() => {
            let reason = "there is no other voter".into();
            return Err(NoSuccessor::Never(reason));
        }
        None => voters
            .intersection(heard)
            .copied()
            .max_by_key(|voter| matched(*voter))
            .ok_or_else(|| NoSuccessor::NotYet("no other voter was heard lately".into()))?,
    };
    let behind = at_least.saturating_sub(matched(candidate));
    match behind {
        0 => Ok(candidate),
        _ => Err(NoSuccessor::NotYet(format!(
            "member {candidate} is {behind} entries behind"
        ))),
    }
}

/// Turns the engine's metrics into `Role` until the engine ends.
async fn follow_role(raft: Arc<Raft>, sender: watch::Sender<Role>) {
    let mut metrics = raft.metrics();
    loop {
        let role = role_of(&metrics.borrow_watched());
        sender.send_if_modified(|old| std::mem::replace(old, role) != role);
        if metrics.changed().await.is_err() {
            sender.send_replace(Role::Follows { leader: None });
            return;
        }
    }
}

fn role_of(metrics: &RaftMetrics) -> Role {
    if !metrics.state.is_leader() || metrics.running_state.is_err() {
        return Role::Follows {
            leader: metrics
                .current_leader
                .filter(|leader| *leader != metrics.id),
        };
    }
    let applied_term = metrics.last_applied.as_ref().map(log_term);
    match applied_term == Some(metrics.current_term) {
        true => Role::Leads {
            term: metrics.current_term,
        },
        false => Role::Follows { leader: None },
    }
}

/// The term of the leader that wrote the entry at `log_id`.
pub fn log_term(log_id: &LogId) -> u64 {
    log_id.committed_leader_id().term
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_is_another_voter_that_is_there_and_holds_the_whole_log() {
        let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
        let matched = BTreeMap::from([(1, 50), (2, 48), (3, 50), (4, 50)]);
        let choose = |to: Option<u64>, heard: &[u64], at_least| {
            successor_of(&set(&[2, 3]), &matched, to, &set(heard), at_least)
        };
        assert_eq!(choose(None, &[2, 3, 4], 50), Ok(3));
        assert_eq!(choose(Some(2), &[2, 3], 48), Ok(2));
        assert_eq!(choose(None, &[2], 48), Ok(2), "the better one is away");
        for (to, why) in [(1, "itself"), (4, "a learner"), (9, "nobody knows it")] {
            let refused = choose(Some(to), &[1, 2, 3, 4, 9], 0);
            assert!(matches!(refused, Err(NoSuccessor::Never(_))), "{why}");
        }
        let none = successor_of(&set(&[]), &matched, None, &set(&[]), 0);
        assert!(
            matches!(none, Err(NoSuccessor::Never(_))),
            "one voter alone"
        );
        for (to, heard, why) in [
            (Some(2), &[2, 3][..], "it lags"),
            (Some(3), &[2], "silent"),
            (None, &[], "all are silent"),
        ] {
            let refused = choose(to, heard, 50);
            assert!(matches!(refused, Err(NoSuccessor::NotYet(_))), "{why}");
        }
    }
}
