//! What a bucket holds: lineages, and the backups of one.

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;

use super::bucket::Bucket;
use super::error::Error;
use super::layout::{BackupName, Lineage};
use super::manifest::Manifest;
use super::verify::read_manifest;
use crate::limits::BACKUP_MANIFESTS_IN_FLIGHT;

/// One name under a lineage's backups.
#[derive(Debug)]
pub struct Listed {
    pub name: BackupName,
    pub state: State,
}

#[derive(Debug)]
pub enum State {
    /// It has a manifest, good by itself.
    Complete(Box<Manifest>),
    /// It never got one, or is half deleted: no backup.
    Unfinished {
        /// When something was last written there.
        modified_ms: u64,
    },
    /// Its manifest is wrong. Nothing deletes it without being told its name.
    Unreadable(Error),
}

/// Every life of every store in the bucket, in order.
pub async fn lineages(bucket: &Bucket) -> Result<Vec<Lineage>, Error> {
    let mut found = Vec::new();
    for cluster_id in bucket.folders(&Path::default()).await? {
        let folder = Path::from(cluster_id.as_str());
        for incarnation in bucket.folders(&folder).await? {
            let lineage = incarnation
                .parse()
                .ok()
                .and_then(|incarnation| Lineage::new(&cluster_id, incarnation).ok());
            // Somebody else's folder.
            let Some(lineage) = lineage else { continue };
            found.push(lineage);
        }
    }
    found.sort();
    Ok(found)
}

/// The backups of a lineage, oldest first by the log; what is no whole backup stands at the end. A manifest that cannot
/// be reached now is an error, not a missing backup.
pub async fn backups(bucket: &Bucket, lineage: &Lineage) -> Result<Vec<Listed>, Error> {
    let names = bucket.folders(&lineage.backups()).await?;
    let names: Vec<BackupName> = names
        .iter()
        .filter_map(|name| BackupName::parse(name).ok())
        .collect();
    let mut listed: Vec<Listed> = futures::stream::iter(names)
        .map(|name| look(bucket, lineage, name))
        .buffered(BACKUP_MANIFESTS_IN_FLIGHT)
        .try_filter_map(|listed| async { Ok(listed) })
        .try_collect()
        .await?;
    listed.sort_by_key(|listed| match &listed.state {
        State::Complete(manifest) => (0, manifest.log_id.index, manifest.created_at_ms),
        State::Unreadable(_) => (1, 0, 0),
        State::Unfinished { .. } => (2, 0, 0),
    });
    Ok(listed)
}

/// None: the listing was older than the deletion.
async fn look(
    bucket: &Bucket,
    lineage: &Lineage,
    name: BackupName,
) -> Result<Option<Listed>, Error> {
    let state = match read_manifest(bucket, lineage, &name).await {
        Ok(manifest) => State::Complete(Box::new(manifest)),
        Err(Error::Missing { .. }) => {
            let objects = bucket.objects(&lineage.backup(&name)).await?;
            match objects.iter().map(|found| found.modified_ms).max() {
                Some(modified_ms) => State::Unfinished { modified_ms },
                None => return Ok(None),
            }
        }
        Err(error @ (Error::Damaged { .. } | Error::Newer { .. } | Error::Foreign { .. })) => {
            State::Unreadable(error)
        }
        Err(error) => return Err(error),
    };
    Ok(Some(Listed { name, state }))
}
