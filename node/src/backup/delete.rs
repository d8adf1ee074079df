//! Deletes a backup: the manifest first, then everything else under its name.
//!
//! In this order a deletion that is cut off leaves parts that nothing lists as a backup; the other way round
//! it would leave a manifest whose parts are gone, and a restore would find out. Deleting again goes on.

use super::bucket::Bucket;
use super::error::Error;
use super::layout::{BackupName, Lineage};
use super::list::{Listed, State, backups};
use super::retention::{Held, Keep, expendable};

/// Nothing of this name is there on return. It need not be good, or finished.
pub async fn delete(bucket: &Bucket, lineage: &Lineage, name: &BackupName) -> Result<(), Error> {
    bucket.delete(&lineage.manifest(name)).await?;
    let found = bucket.objects(&lineage.backup(name)).await?;
    let paths = found.into_iter().map(|found| found.path).collect();
    bucket.delete_all(paths).await
}

/// Deletes what a lineage need not keep, oldest first, and answers the names.
pub async fn prune(
    bucket: &Bucket,
    lineage: &Lineage,
    keep: &Keep,
    now_ms: u64,
) -> Result<Vec<BackupName>, Error> {
    let listed = backups(bucket, lineage).await?;
    let held: Vec<Held> = listed.iter().filter_map(held).collect();
    let names = expendable(&held, keep, now_ms);
    for name in &names {
        delete(bucket, lineage, name).await?;
    }
    Ok(names)
}

fn held(listed: &Listed) -> Option<Held> {
    let (at_ms, is_complete) = match &listed.state {
        State::Complete(manifest) => (manifest.created_at_ms, true),
        State::Unfinished { modified_ms } => (*modified_ms, false),
        State::Unreadable(_) => return None,
    };
    Some(Held {
        name: listed.name.clone(),
        at_ms,
        is_complete,
    })
}
