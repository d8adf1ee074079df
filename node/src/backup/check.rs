//! The canary: proves before the first backup that a destination can be written, read, written only once,
//! listed and deleted from, and names the right that is missing.

use bytes::Bytes;
use object_store::path::Path;

use super::bucket::{Bucket, Created};
use super::error::{Access, Error};
use super::layout::Lineage;

const CONTENT: &str = "A backup will be written here.\n";
const OTHER: &str = "This must never be seen.\n";

/// Why a destination is no place for backups.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// The rights, the bucket or the store itself: it stays so until somebody changes it.
    #[error("backups need the right to {missing}: {reason}")]
    Lacks { missing: Access, reason: String },
    /// No word on the destination.
    #[error(transparent)]
    Failed(Error),
}

/// Leaves nothing behind but when deleting is what fails. `unique` tells this check's object from all others.
pub async fn check(bucket: &Bucket, lineage: &Lineage, unique: &str) -> Result<(), Unfit> {
    let canary = lineage.folder().join(format!("check-{unique}"));
    let checked = write_and_read(bucket, lineage, &canary).await;
    let deleted = bucket.delete(&canary).await;
    checked?;
    deleted.map_err(|error| unfit(Access::Delete, error))?;
    // Without the right to list, S3 says "forbidden" of what is not there.
    match bucket.get(&canary, CONTENT.len() as u64).await {
        Err(Error::Missing { .. }) => Ok(()),
        Err(error) => Err(unfit(Access::List, error)),
        Ok(_) => Err(lacks(
            Access::Delete,
            format!("{} is still there", bucket.name_of(&canary)),
        )),
    }
}

async fn write_and_read(bucket: &Bucket, lineage: &Lineage, canary: &Path) -> Result<(), Unfit> {
    let content = Bytes::from_static(CONTENT.as_bytes());
    let bytes_max = content.len() as u64;
    bucket
        .put(canary, content.clone())
        .await
        .map_err(|error| unfit(Access::Write, error))?;
    let read = bucket
        .get(canary, bytes_max)
        .await
        .map_err(|error| unfit(Access::Read, error))?;
    if read != content {
        let reason = format!("{} reads as something else", bucket.name_of(canary));
        return Err(lacks(Access::Read, reason));
    }
    let again = bucket
        .create(canary, Bytes::from_static(OTHER.as_bytes()))
        .await
        .map_err(|error| unfit(Access::Create, error))?;
    if again == Created::Now {
        let reason = "the store overwrites what is there: it knows no conditional put";
        return Err(lacks(Access::Create, reason));
    }
    bucket
        .folders(&lineage.folder())
        .await
        .map_err(|error| unfit(Access::List, error))?;
    Ok(())
}

fn lacks(missing: Access, reason: impl Into<String>) -> Unfit {
    Unfit::Lacks {
        missing,
        reason: reason.into(),
    }
}

fn unfit(missing: Access, error: Error) -> Unfit {
    match error {
        Error::Unavailable { .. } | Error::Local(_) => Unfit::Failed(error),
        error => lacks(missing, error.to_string()),
    }
}
