//! Deletes a backup: the manifest first, then everything else under its name.
//!
//! In this order a deletion that is cut off leaves parts that nothing lists as a backup; the other way round
//! it would leave a manifest whose parts are gone, and a restore would find out. Deleting again goes on.

use super::bucket::Bucket;
use super::error::Error;
use super::layout::{BackupName, Lineage};
use super::list::{Listed, State, backups};
use super::log::ship;
use super::retention::{Held, Keep, expendable, expendable_segments};

/// Nothing of this name is there on return. It need not be good, or finished.
pub async fn delete(bucket: &Bucket, lineage: &Lineage, name: &BackupName) -> Result<(), Error> {
    bucket.delete(&lineage.manifest(name)).await?;
    let found = bucket.objects(&lineage.backup(name)).await?;
    let paths = found.into_iter().map(|found| found.path).collect();
    bucket.delete_all(paths).await
}

/// What became of a lineage's backups.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub deleted: Vec<BackupName>,
    pub kept: Vec<BackupName>,
}

/// Deletes what a lineage need not keep, oldest first; then the segments of the log that no backup needs any
/// more.
pub async fn prune(
    bucket: &Bucket,
    lineage: &Lineage,
    keep: &Keep,
    now_ms: u64,
) -> Result<Pruned, Error> {
    let listed = backups(bucket, lineage).await?;
    let held: Vec<Held> = listed.iter().filter_map(held).collect();
    let deleted = expendable(&held, keep, now_ms);
    for name in &deleted {
        delete(bucket, lineage, name).await?;
    }
    let kept = listed
        .iter()
        .filter(|listed| !deleted.contains(&listed.name));
    prune_log(bucket, lineage, kept.clone()).await?;
    let kept = kept.map(|listed| listed.name.clone()).collect();
    Ok(Pruned { deleted, kept })
}

/// Keeps all while nobody can say what a backup needs, or there is none.
async fn prune_log(
    bucket: &Bucket,
    lineage: &Lineage,
    kept: impl Iterator<Item = &Listed>,
) -> Result<(), Error> {
    let mut oldest = None;
    for listed in kept {
        match &listed.state {
            State::Complete(manifest) => {
                let index = manifest.log_id.index;
                oldest = Some(oldest.map_or(index, |oldest: u64| oldest.min(index)));
            }
            State::Unreadable(_) => return Ok(()),
            State::Unfinished { .. } => {}
        }
    }
    let Some(oldest) = oldest else { return Ok(()) };
    let first_indexes = ship::first_indexes(bucket, lineage).await?;
    let paths = expendable_segments(&first_indexes, oldest)
        .iter()
        .map(|first_index| ship::path(lineage, *first_index));
    bucket.delete_all(paths.collect()).await
}

fn held(listed: &Listed) -> Option<Held> {
    let (index, at_ms, is_complete) = match &listed.state {
        State::Complete(manifest) => (manifest.log_id.index, manifest.created_at_ms, true),
        State::Unfinished { modified_ms } => (0, *modified_ms, false),
        State::Unreadable(_) => return None,
    };
    Some(Held {
        name: listed.name.clone(),
        index,
        at_ms,
        is_complete,
    })
}
