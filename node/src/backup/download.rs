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
/// A file that is there already, or comes meanwhile, is an error: nothing of a user's is overwritten. One that
/// a download left unfinished when its process died counts as a user's, too.
pub async fn download(
    bucket: &Bucket,
    lineage: &Lineage,
    name: &BackupName,
    to: &Path,
    noted: &Noted,
) -> Result<Manifest, Error> {
    let manifest = read_manifest(bucket, lineage, name).await?;
    if to.try_exists()? {
        return Err(named(to)(io::ErrorKind::AlreadyExists.into()).into());
    }
    let partial = partial(to);
    let file = File::create_new(&partial).map_err(named(&partial))?;
    let file = BufWriter::with_capacity(BUFFER_BYTES, file);
    let proven = prove(bucket, &manifest, file, &Pace::new(None), noted).await;
    let placed = match proven {
        Ok(file) => {
            let (partial, to) = (partial.clone(), to.to_owned());
            let identity = lineage.identity();
            let placed = spawn_blocking(move || {
                let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.sync_all()?;
                SnapshotHandle::open(&partial, &identity)?;
                place(&partial, &to)
            });
            let placed = placed.await.map_err(io::Error::other).flatten();
            placed.map_err(Error::Local)
        }
        Err(error) => Err(error),
    };
    match placed {
        Ok(()) => Ok(manifest),
        Err(error) => {
            let _ = fs::remove_file(&partial);
            Err(error)
        }
    }
}

/// A second name for the file: unlike a rename it fails where there is one already.
fn place(partial: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(partial, to).map_err(named(to))?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
    let synced = fs::remove_file(partial)
        .and_then(|()| File::open(folder.unwrap_or(Path::new(".")))?.sync_all());
    if synced.is_err() {
        let _ = fs::remove_file(to);
    }
    synced
}

fn named(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn partial(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}
