//! `--inspect`: opens the volume without changing anything on it, and reports what it holds: stamp, last
//! configuration, last log id. No vote, no serving. The operator adopts kept volumes by these reports.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use taskstore_api::v1;

use super::disk;
use crate::member::running::membership_message;
use crate::member::{Member, Phase};
use crate::raft::inspect;
use crate::storage::identity::Content;
use crate::storage::log::disk::ReadOnlyDisk;
use crate::storage::log::recovery::recover;
use crate::storage::snapshot;
use crate::storage::start::{Decision, LogFacts, decide};

/// Reads the volume and notes the report. An error is a disk that would be refused.
pub async fn run(member: &Arc<Member>) -> anyhow::Result<()> {
    let volume = disk::open_volume(member).await?;
    let home = match volume.content()? {
        Content::Stamped(home) => home,
        Content::Blank => {
            member.enter(Phase::Blank);
            return Ok(());
        }
    };
    let stamp = home.stamp();
    let identity = disk::identity(&member.config);
    let dir = home.snapshots_directory();
    let files = snapshot::list(&dir)?;
    let of_snapshots = disk::of_snapshots(&identity);
    let found = disk::found(&files, &of_snapshots, &dir)?;
    let log_directory = home.log_directory();
    let (geometry, salt) = (stamp.log, stamp.identity.salt());
    let recovered =
        tokio::task::spawn_blocking(move || recover(&log_directory, geometry, salt, ReadOnlyDisk))
            .await?;
    let facts = match &recovered {
        Ok(recovered) => Ok(LogFacts {
            frames: recovered.frames,
            range: recovered.range,
        }),
        Err(error) => Err(error.to_string()),
    };
    let (base, _) = match decide(&stamp, &identity, facts, found) {
        Decision::Damaged(reason) => return Err(anyhow!(reason)),
        Decision::Removed => {
            member.enter(Phase::Removed);
            return Ok(());
        }
        Decision::Start { base, install } => (base, install),
    };
    let recovered = recovered.context("the log")?;
    let from = disk::base_file(&files, base);
    let report = inspect::read(recovered, from.as_deref(), &of_snapshots)
        .await
        .context("the log")?;
    let is_empty = report.membership.log_id.is_none();
    member.note_inspected(
        v1::RaftStatus {
            term: report.term,
            membership: Some(membership_message(&report.membership)),
            last_log_index: report.last_log_index,
            committed_index: report.committed_index,
            ..v1::RaftStatus::default()
        },
        stamp.is_initialized,
    );
    member.enter(if is_empty {
        Phase::Empty
    } else {
        Phase::Recovering
    });
    Ok(())
}
