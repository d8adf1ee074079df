//! A backup's parts as one stream of bytes: fetched a few at a time, checked one by one against the manifest,
//! and proven as a whole on a thread of their own.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::bucket::Bucket;
use super::error::{Access, Error};
use super::manifest::{Manifest, Part};
use super::pace::Pace;
use super::progress::{Noted, Phase};
use crate::limits::BACKUP_PARTS_READ_AHEAD;
use crate::raft::transport::tls::sha256_hex;
use crate::storage::snapshot::audit;

/// Reads every part, checks its size and hash, and audits what they are together: that it is a whole
/// snapshot, whose rows hash to what the manifest says, and the one that the manifest describes. The bytes
/// go on into `sink`, which is given back. The error names the object that is wrong.
pub async fn prove<W: Write + Send + 'static>(
    bucket: &Bucket,
    manifest: &Manifest,
    sink: W,
    pace: &Pace,
    noted: &Noted,
) -> Result<W, Error> {
    noted.enter(Phase::Verifying, manifest.snapshot.bytes);
    let (sender, parts) = mpsc::channel(1);
    let audit = spawn_blocking(move || {
        let mut input = Assembled {
            parts,
            part: Bytes::new(),
            sink,
            failed: None,
        };
        let checked = audit(&mut input);
        (checked, input.failed, input.sink)
    });
    let mut fetched = futures::stream::iter(0..manifest.parts.len())
        .map(|number| fetch(bucket, manifest, &manifest.parts[number], pace))
        .buffered(BACKUP_PARTS_READ_AHEAD);
    while let Some(part) = fetched.try_next().await? {
        noted.add(part.len() as u64);
        if sender.send(part).await.is_err() {
            break;
        }
    }
    drop(sender);
    let (checked, failed, sink) = audit.await.map_err(io::Error::other)?;
    if let Some(error) = failed {
        return Err(Error::Local(error));
    }
    let object = bucket.name_of(&manifest.lineage.manifest(&manifest.name));
    checked
        .map_err(|error| format!("its parts are no good snapshot: {error}"))
        .and_then(|checked| manifest.check_snapshot(&checked))
        .map_err(|reason| Error::damaged(object, reason))?;
    Ok(sink)
}

async fn fetch(
    bucket: &Bucket,
    manifest: &Manifest,
    part: &Part,
    pace: &Pace,
) -> Result<Bytes, Error> {
    pace.turn(part.bytes).await;
    let path = manifest.lineage.part(&manifest.name, &part.name);
    let content = bucket.get(&path, part.bytes).await?;
    let object = bucket.name_of(&path);
    if content.len() as u64 != part.bytes {
        let reason = format!(
            "it has {} bytes, the manifest says {}",
            content.len(),
            part.bytes
        );
        return Err(Error::damaged(object, reason));
    }
    // A few milliseconds of hashing: not on the threads that carry heartbeats.
    let hashed = spawn_blocking(move || (sha256_hex(&content), content));
    let (sha256, content) = hashed
        .await
        .map_err(|error| Error::unavailable(Access::Read, &object, error))?;
    match sha256 == part.sha256 {
        true => Ok(content),
        false => Err(Error::damaged(
            object,
            "it does not have the hash that the manifest says",
        )),
    }
}

/// The parts one behind the other, copied to the sink as they are read.
struct Assembled<W> {
    parts: mpsc::Receiver<Bytes>,
    part: Bytes,
    sink: W,
    /// Why the sink took no more: no word on the backup.
    failed: Option<io::Error>,
}

impl<W: Write> Read for Assembled<W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.parts.blocking_recv() {
                Some(part) => self.part = part,
                None => return Ok(0),
            }
        }
        let bytes = buffer.len().min(self.part.len());
        self.part.copy_to_slice(&mut buffer[..bytes]);
        if let Err(error) = self.sink.write_all(&buffer[..bytes]) {
            let kind = error.kind();
            self.failed = Some(error);
            return Err(kind.into());
        }
        Ok(bytes)
    }
}
