//! Proves a backup that is in a bucket, from the bucket alone: the manifest, every part, and the snapshot
//! that they are together.

use std::io;

use super::bucket::Bucket;
use super::error::Error;
use super::layout::{BackupName, Lineage};
use super::manifest::Manifest;
use super::pace::Pace;
use super::parts::prove;
use super::progress::Noted;
use crate::limits::BACKUP_MANIFEST_BYTES_MAX;

/// The manifest of this name, checked by itself.
pub async fn read_manifest(
    bucket: &Bucket,
    lineage: &Lineage,
    name: &BackupName,
) -> Result<Manifest, Error> {
    let path = lineage.manifest(name);
    let bytes = bucket.get(&path, BACKUP_MANIFEST_BYTES_MAX).await?;
    Manifest::decode(&bytes, &bucket.name_of(&path), lineage, name)
}

/// Needs neither disk nor the memory for the state. The error names the object that is wrong.
pub async fn verify(
    bucket: &Bucket,
    lineage: &Lineage,
    name: &BackupName,
    noted: &Noted,
) -> Result<Manifest, Error> {
    let manifest = read_manifest(bucket, lineage, name).await?;
    prove(bucket, &manifest, io::sink(), &Pace::new(None), noted).await?;
    Ok(manifest)
}
