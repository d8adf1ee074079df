//! `--inspect`: opens the volume without changing anything on it, and reports what it holds: stamp, last
//! configuration, last log id. No vote, no serving. The operator adopts kept volumes by these reports.

use std::sync::Arc;

use anyhow::Context;
use taskstore_api::v1;

use super::disk;
use crate::member::running::membership_message;
use crate::member::{Member, Phase};
use crate::raft::inspect;
use crate::storage::identity::{Content, Volume};
use crate::storage::log::disk::ReadOnlyDisk;
use crate::storage::snapshot::Look;
use crate::storage::start::{Decision, StartError, decide, facts_of, read_log};

/// Reads the volume and notes the report, or that the disk would be refused. An error is no word on the
/// disk.
pub async fn run(member: &Arc<Member>) -> anyhow::Result<()> {
    let looked = async {
        let volume = Arc::new(disk::open_volume(member).await?);
        look(member, &volume).await
    };
    enter(member, looked.await)
}

/// Notes what a look at the volume came to.
pub fn enter(member: &Member, looked: Result<Phase, StartError>) -> anyhow::Result<()> {
    let phase = match looked {
        Ok(phase) => phase,
        Err(StartError::Damaged(reason)) => Phase::Damaged(reason),
        Err(StartError::Removed) => Phase::Removed,
        Err(StartError::Io(error)) => return Err(error).context("the disk"),
    };
    member.enter(phase);
    Ok(())
}

/// Reads the volume as that of the member the arguments name, and notes the report.
pub async fn look(member: &Member, volume: &Arc<Volume>) -> Result<Phase, StartError> {
    let home = match disk::content(volume).await? {
        Content::Stamped(home) => home,
        Content::Blank => return Ok(Phase::Blank),
    };
    let stamp = home.stamp();
    let identity = disk::identity(&member.config);
    // The image is left alone: sled writes when it opens.
    let of_snapshots = disk::of_snapshots(&identity);
    let (surveyed, found) = disk::survey(&home, &of_snapshots, None, Look::Whole).await?;
    let read = read_log(&home, ReadOnlyDisk).await?;
    let decision = decide(&stamp, &identity, facts_of(&read), found);
    let (recovered, base) = match (decision, read) {
        (Decision::Removed, _) => return Err(StartError::Removed),
        (Decision::Damaged(reason), _) | (_, Err(reason)) => {
            return Err(StartError::Damaged(reason));
        }
        (Decision::Start { base, .. }, Ok(recovered)) => (recovered, base),
    };
    let from = disk::base_of(&surveyed, base);
    let report = inspect::read(recovered, from.as_ref()).await?;
    let is_empty = report.membership.log_id.is_none();
    member.note_inspected(
        v1::RaftStatus {
            term: report.term,
            membership: Some(membership_message(&report.membership)),
            last_log_index: report.last_log_index,
            last_log_term: report.last_log_term,
            committed_index: report.committed_index,
            ..v1::RaftStatus::default()
        },
        stamp.is_initialized,
    );
    Ok(match is_empty {
        true => Phase::Empty,
        false => Phase::Recovering,
    })
}
