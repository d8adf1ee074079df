//! One more member, which gets its state from the leader.

use anyhow::{Context, ensure};
use taskstore_api::v1;

use super::LocalStore;

impl LocalStore {
    /// Starts and formats it. Answers its index.
    pub async fn add_blank(&mut self) -> anyhow::Result<usize> {
        self.add(self.members.len() as u64 + 1)?;
        let index = self.members.len() - 1;
        self.format(&self.members[index]).await?;
        Ok(index)
    }

    /// Adds it to the store, and waits until it has caught up from a snapshot.
    pub async fn send_snapshot(&self, index: usize) -> anyhow::Result<()> {
        let leader = &self.members[self.leader().await?];
        let raft = self.status(leader).await?.raft.context("Raft runs not")?;
        let membership = raft.membership.unwrap_or_default();
        let learner = v1::Member {
            id: self.members[index].id,
            name: self.members[index].address.to_string(),
        };
        let add = v1::AddLearners {
            members: vec![learner],
        };
        let request = v1::ChangeMembershipRequest {
            change: Some(v1::change_membership_request::Change::AddLearners(add)),
            expected_membership: membership.log_id,
            expected_term: raft.term,
        };
        let mut admin = self.admin(leader).await?;
        admin.change_membership(request).await?;
        let status = self.ready(index).await?;
        let snapshot_index = status.raft.map_or(0, |raft| raft.snapshot_index);
        ensure!(snapshot_index > 0, "it was sent the log, not a snapshot");
        Ok(())
    }
}
