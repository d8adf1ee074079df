//! `--restore`: fills a blank volume from a bucket for a member of a later incarnation, which becomes its
//! cluster's only voter, and reports what it then holds. No vote, no serving.
//!
//! | The volume is | Done |
//! |---|---|
//! | blank | restored, then reported; refused for good, or tried again, it stays blank |
//! | the member's | reported: the restore is done |
//! | anything else, or damaged | reported as what it is; nothing is changed |
//!
//! It is cut off at any moment and run again: until the last rename the volume is blank.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use taskstore_api::v1;
use tokio::sync::watch;

use super::disk;
use super::inspect;
use crate::backup::error::Error;
use crate::backup::progress::{Noted, Progress};
use crate::backup::restore::{Facts, restore};
use crate::config::RestoreOrder;
use crate::member::{Member, Phase};
use crate::storage::identity::{Content, RESTORING, Volume};
use crate::storage::log::{Geometry, end_process};
use crate::storage::rewrite::{Successor, rewrite};
use crate::storage::start::StartError;

/// After a failure the next try waits, twice as long each time.
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);
const REPORT_PAUSE: Duration = Duration::from_secs(1);
/// What the volume was filled with; it stays.
const FACTS: &str = "facts.json";

/// Restores and reports. An error is no word on the disk: the next try may succeed.
pub async fn run(member: &Arc<Member>, order: &RestoreOrder) -> anyhow::Result<()> {
    let restored = async {
        let volume = Arc::new(disk::open_volume(member).await?);
        restore_and_look(member, &volume, order).await
    };
    inspect::enter(member, restored.await)
}

async fn restore_and_look(
    member: &Member,
    volume: &Arc<Volume>,
    order: &RestoreOrder,
) -> Result<Phase, StartError> {
    let mut pause = RETRY_PAUSE_MIN;
    while let Content::Blank = disk::content(volume).await? {
        member.enter(Phase::Blank);
        let Err(error) = fill_noting(member, volume, order).await else {
            break;
        };
        let is_refused = error.is_final();
        tracing::warn!(%error, is_refused, "the restore has failed");
        member.note_restore(v1::RestoreStatus {
            problem: error.to_string(),
            refused: is_refused,
            ..v1::RestoreStatus::default()
        });
        if is_refused {
            return Ok(Phase::Blank);
        }
        tokio::time::sleep(pause).await;
        pause = RETRY_PAUSE_MAX.min(2 * pause);
    }
    let facts = read_facts(&folder(volume))?;
    let phase = inspect::look(member, volume).await?;
    member.note_restore(v1::RestoreStatus {
        facts: facts.map(facts_message),
        ..v1::RestoreStatus::default()
    });
    Ok(phase)
}

async fn fill_noting(
    member: &Member,
    volume: &Arc<Volume>,
    order: &RestoreOrder,
) -> Result<(), Error> {
    let noted = Noted::default();
    let progress = noted.watch();
    let log = Geometry::for_budget(member.config.log_budget_bytes);
    let successor = disk::successor(&member.config, log);
    tokio::select! {
        filled = fill(volume, successor, order, &noted) => filled.map(drop),
        () = tell(member, progress) => Ok(()),
    }
}

/// Never ends: what is noted goes to whoever watches the member, in a measured way.
async fn tell(member: &Member, mut progress: watch::Receiver<Progress>) {
    loop {
        let now = *progress.borrow_and_update();
        member.note_restore(v1::RestoreStatus {
            bytes_done: now.bytes_done,
            bytes_total: now.bytes_total,
            ..v1::RestoreStatus::default()
        });
        tokio::time::sleep(REPORT_PAUSE).await;
        if progress.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Makes a blank volume that of the successor. Until this returns it is blank.
pub async fn fill(
    volume: &Arc<Volume>,
    successor: Successor,
    order: &RestoreOrder,
    noted: &Noted,
) -> Result<Facts, Error> {
    let folder = folder(volume);
    // Whatever an earlier try has left.
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => fs::create_dir(&folder)?,
    }
    let bucket = order.from.connect(&order.credentials).await?;
    let restored = restore(&bucket, &order.wanted, &folder, noted).await?;
    tracing::info!(facts = ?restored.facts, "the bucket is read");
    write_facts(&folder, &restored.facts)?;
    let (rescued, payloads) = (restored.rescued, restored.payloads);
    rewrite(volume, successor, rescued, payloads, end_process()).await?;
    Ok(restored.facts)
}

fn folder(volume: &Volume) -> PathBuf {
    volume.root().join(RESTORING)
}

fn write_facts(folder: &Path, facts: &Facts) -> io::Result<()> {
    let mut file = File::create_new(folder.join(FACTS))?;
    file.write_all(&serde_json::to_vec_pretty(facts)?)?;
    file.sync_all()?;
    File::open(folder)?.sync_all()
}

/// Of a volume that was filled. None: they were lost, and with them nothing that a member needs.
fn read_facts(folder: &Path) -> io::Result<Option<Facts>> {
    match fs::read(folder.join(FACTS)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        bytes => Ok(serde_json::from_slice(&bytes?).ok()),
    }
}

fn facts_message(facts: Facts) -> v1::RestoredFacts {
    v1::RestoredFacts {
        backup: facts.backup.to_string(),
        log_id: Some(v1::LogId {
            term: facts.log_id.term,
            index: facts.log_id.index,
        }),
        wall_time_ms: facts.wall_time_ms,
        state_hash: facts.state_hash,
        tasks: facts.tasks,
        cluster_id: facts.lineage.cluster_id,
        incarnation: facts.lineage.incarnation.into(),
    }
}

#[cfg(test)]
mod tests;
