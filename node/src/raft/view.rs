//! A configuration in plain values, as the operator and people see it.

use std::collections::{BTreeMap, BTreeSet};

use super::consensus::{RaftMetrics, log_term};
use crate::storage::types::StoredMembership;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MembershipView {
    /// Term and index of the entry it stands in; the guard of the next change.
    pub log_id: Option<(u64, u64)>,
    /// Every member's name.
    pub members: BTreeMap<u64, String>,
    pub voters: BTreeSet<u64>,
    /// The outgoing half of a joint configuration; empty when uniform.
    pub voters_outgoing: BTreeSet<u64>,
    pub learners: BTreeSet<u64>,
    pub committed: bool,
}

impl MembershipView {
    /// The effective configuration of a running member.
    pub fn of(metrics: &RaftMetrics) -> MembershipView {
        let effective = &metrics.membership_config;
        let committed = metrics.committed_membership_config.log_id() == effective.log_id();
        MembershipView::new(effective, committed)
    }

    pub fn new(stored: &StoredMembership, committed: bool) -> MembershipView {
        let configs = stored.membership().get_joint_config();
        MembershipView {
            log_id: stored
                .log_id()
                .as_ref()
                .map(|id| (log_term(id), id.index())),
            members: stored
                .nodes()
                .map(|(id, name)| (*id, name.0.clone()))
                .collect(),
            voters: configs.last().cloned().unwrap_or_default(),
            voters_outgoing: match configs.as_slice() {
                [outgoing, _] => outgoing.clone(),
                _ => BTreeSet::new(),
            },
            learners: stored.membership().learner_ids().collect(),
            committed,
        }
    }
}
