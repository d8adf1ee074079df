//! Writes one backup: parts, read back, then the manifest. Whatever happens on the way, what is there
//! afterwards is a whole backup or none.
//!
//! The same order may be given again, to this member or another one, also while the first still works: the
//! manifest is created only if there is none, and whoever comes second reports the one that is there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tokio::task::spawn_blocking;

use super::bucket::{Bucket, Created};
use super::error::{Access, Error};
use super::layout::{BackupName, Lineage, part_name};
use super::manifest::{Creator, Described, FORMAT, Manifest, ManifestRef, Part, Snapshot};
use super::pace::Pace;
use super::parts::prove;
use super::progress::{Noted, Phase};
use super::verify::read_manifest;
use crate::limits::{BACKUP_MS_MAX, BACKUP_PART_BYTES, BACKUP_PARTS_IN_FLIGHT, BACKUP_PARTS_MAX};
use crate::raft::transport::tls::sha256_hex;
use crate::storage::snapshot::SnapshotHandle;
use crate::storage::snapshot::format::FORMAT as SNAPSHOT_FORMAT;

/// What to write, beside the snapshot.
#[derive(Debug, Clone)]
pub struct Order {
    pub name: BackupName,
    pub previous: Option<ManifestRef>,
    pub created_at_ms: u64,
    pub created_by: Creator,
    /// None: as fast as it goes. Reading back is bound in the same way.
    pub bytes_per_second_max: Option<u64>,
}

/// The backup of this name, if it is finished.
pub async fn find(
    bucket: &Bucket,
    lineage: &Lineage,
    name: &BackupName,
) -> Result<Option<Manifest>, Error> {
    match read_manifest(bucket, lineage, name).await {
        Ok(manifest) => Ok(Some(manifest)),
        Err(Error::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the snapshot under the lineage that it belongs to. The manifest that is answered is in the bucket:
/// this one's, or that of the same order given before.
pub async fn write(
    bucket: &Bucket,
    snapshot: &SnapshotHandle,
    order: &Order,
    noted: &Noted,
) -> Result<Manifest, Error> {
    let longest = Duration::from_millis(BACKUP_MS_MAX);
    let written = tokio::time::timeout(longest, try_write(bucket, snapshot, order, noted));
    written.await.unwrap_or_else(|_| {
        let hours = longest.as_secs() / 3600;
        let reason = format!("it was not finished within {hours} hours");
        Err(Error::unavailable(
            Access::Write,
            order.name.as_str(),
            reason,
        ))
    })
}

async fn try_write(
    bucket: &Bucket,
    snapshot: &SnapshotHandle,
    order: &Order,
    noted: &Noted,
) -> Result<Manifest, Error> {
    let lineage = Lineage::of(&snapshot.header.identity)?;
    if let Some(manifest) = find(bucket, &lineage, &order.name).await? {
        return Ok(manifest);
    }
    let pace = Pace::new(order.bytes_per_second_max);
    let parts = upload(bucket, &lineage, snapshot, order, &pace, noted).await?;
    let manifest = describe(lineage, snapshot, order, parts)?.sealed();
    prove(bucket, &manifest, std::io::sink(), &pace, noted).await?;
    finish(bucket, manifest).await
}

async fn upload(
    bucket: &Bucket,
    lineage: &Lineage,
    snapshot: &SnapshotHandle,
    order: &Order,
    pace: &Pace,
    noted: &Noted,
) -> Result<Vec<Part>, Error> {
    let count = usize::try_from(snapshot.bytes.div_ceil(BACKUP_PART_BYTES)).unwrap_or(usize::MAX);
    if count > BACKUP_PARTS_MAX {
        let bound = format!("would have {count} parts, the bound is {BACKUP_PARTS_MAX}");
        return Err(Error::invalid("snapshot", bound));
    }
    noted.enter(Phase::Uploading, snapshot.bytes);
    let snapshot = Arc::new(snapshot.clone());
    futures::stream::iter(0..count)
        .map(|number| {
            let snapshot = snapshot.clone();
            async move {
                let name = part_name(&snapshot.id, number);
                let (content, sha256) = read_part(snapshot, number).await?;
                let bytes = content.len() as u64;
                pace.turn(bytes).await;
                bucket
                    .put(&lineage.part(&order.name, &name), content)
                    .await?;
                noted.add(bytes);
                Ok(Part {
                    name,
                    bytes,
                    sha256,
                })
            }
        })
        .buffered(BACKUP_PARTS_IN_FLIGHT)
        .try_collect()
        .await
}

async fn read_part(snapshot: Arc<SnapshotHandle>, number: usize) -> Result<(Bytes, String), Error> {
    let read = spawn_blocking(move || {
        let offset = number as u64 * BACKUP_PART_BYTES;
        let content = snapshot.read_at(offset, BACKUP_PART_BYTES as usize)?;
        let sha256 = sha256_hex(&content);
        Ok((Bytes::from(content), sha256))
    });
    read.await.map_err(std::io::Error::other)?
}

fn describe(
    lineage: Lineage,
    snapshot: &SnapshotHandle,
    order: &Order,
    parts: Vec<Part>,
) -> Result<Manifest, Error> {
    let described = Described::of(&snapshot.header)
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))?;
    Ok(Manifest {
        format: FORMAT,
        name: order.name.clone(),
        lineage,
        created_at_ms: order.created_at_ms,
        created_by: order.created_by.clone(),
        log_id: described.log_id,
        wall_time_ms: described.wall_time_ms,
        membership: described.membership,
        feature_level: described.feature_level,
        snapshot: Snapshot {
            format: SNAPSHOT_FORMAT,
            id: snapshot.id.clone(),
            bytes: snapshot.bytes,
            state_hash: described.state_hash,
        },
        counts: described.counts,
        parts,
        previous: order.previous.clone(),
        checksum: String::new(),
    })
}

/// The last step. Whatever the create said, what counts is the manifest that is there: an answer may be lost
/// after the write, and another member may have been faster.
async fn finish(bucket: &Bucket, manifest: Manifest) -> Result<Manifest, Error> {
    let path = manifest.lineage.manifest(&manifest.name);
    let created = bucket.create(&path, manifest.encode().into()).await;
    let found = find(bucket, &manifest.lineage, &manifest.name).await?;
    match (created, found) {
        (_, Some(found)) if found == manifest => Ok(manifest),
        (_, Some(found)) => {
            if found.snapshot.id != manifest.snapshot.id {
                drop_parts(bucket, &manifest).await;
            }
            Ok(found)
        }
        (Err(error), None) => Err(error),
        (Ok(Created::Now | Created::Before), None) => Err(Error::unavailable(
            Access::Read,
            bucket.name_of(&path),
            "it was created and is not there",
        )),
    }
}

/// Parts that no manifest will ever name. They go with the backup at the latest.
async fn drop_parts(bucket: &Bucket, manifest: &Manifest) {
    let paths = manifest
        .parts
        .iter()
        .map(|part| manifest.lineage.part(&manifest.name, &part.name));
    if let Err(error) = bucket.delete_all(paths.collect()).await {
        tracing::warn!(%error, "parts of a second attempt stay until the backup is deleted");
    }
}
