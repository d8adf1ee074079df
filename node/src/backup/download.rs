//! Brings a backup to the local disk as the snapshot file it was cut from: proven on its way, and again from
//! the disk.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use super::bucket::Bucket;
use super::error::Error;
use super::layout::{BackupName, Lineage};
use super::manifest::Manifest;
use super::pace::Pace;
use super::parts::prove;
use super::progress::Noted;
use super::verify::read_manifest;
use crate::storage::snapshot::SnapshotHandle;

const BUFFER_BYTES: usize = 256 << 10;

/// The file is whole and on the disk when this returns; before, and after an error, there is none at `to`.
/// A file that is there already is an error: nothing of a user's is overwritten.
pub async fn download(
    bucket: &Bucket,
    lineage: &Lineage,
    name: &BackupName,
    to: &Path,
    noted: &Noted,
) -> Result<(Manifest, SnapshotHandle), Error> {
    let manifest = read_manifest(bucket, lineage, name).await?;
    if to.try_exists()? {
        let reason = format!("{} is there already", to.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, reason).into());
    }
    let partial = partial(to);
    let file = BufWriter::with_capacity(BUFFER_BYTES, File::create(&partial)?);
    let proven = prove(bucket, &manifest, file, &Pace::new(None), noted).await;
    let (identity, path) = (lineage.identity(), to.to_owned());
    let placed = match proven {
        Ok(file) => {
            let partial = partial.clone();
            let placed = spawn_blocking(move || {
                let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.sync_all()?;
                fs::rename(&partial, &path)?;
                let folder = path
                    .parent()
                    .filter(|folder| !folder.as_os_str().is_empty());
                File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
                SnapshotHandle::open(&path, &identity)
            });
            placed
                .await
                .map_err(io::Error::other)?
                .map_err(Error::Local)
        }
        Err(error) => Err(error),
    };
    match placed {
        Ok(handle) => Ok((manifest, handle)),
        Err(error) => {
            let _ = fs::remove_file(&partial);
            Err(error)
        }
    }
}

fn partial(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}
