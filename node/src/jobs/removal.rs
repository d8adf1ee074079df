//! Notices that this member was removed: a committed, uniform configuration without it. It then stamps a
//! tombstone and never starts again.
//!
//! Absence alone proves nothing: a new member has not yet been added to any configuration it knows. Only
//! a member that has seen itself in one can be removed.

use crate::raft::consensus::Consensus;

/// Returns once the removal is committed; never returns for a member that stays.
pub async fn removed(consensus: Consensus, member_id: u64) {
    let mut was_in = false;
    let mut watch = consensus.watch_metrics();
    loop {
        let metrics = watch.current();
        let committed = &metrics.committed_membership_config;
        let is_in = metrics.membership_config.get_node(&member_id).is_some();
        was_in |= is_in;
        let uniform = committed.get_joint_config().len() == 1;
        if was_in && !is_in && uniform && committed.get_node(&member_id).is_none() {
            return;
        }
        if !watch.changed().await {
            std::future::pending::<()>().await;
        }
    }
}
