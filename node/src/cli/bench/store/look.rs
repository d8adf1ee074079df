//! What the members hold: memory, disk, and what they have written.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::LocalStore;
use crate::cli::bench::scrape::ImageGauges;
use crate::config::Ports;
use crate::process::{self, Memory};
use crate::storage::snapshot::{SnapshotHandle, SnapshotIdentity, list, load};
use crate::task::state::Bounds;

/// For the image to hold all there is, and a snapshot under way to be done.
const REST_TIMEOUT: Duration = Duration::from_secs(300);
const REST_LOOK: Duration = Duration::from_millis(200);
/// Nothing was written for so long: at rest.
const REST: Duration = Duration::from_secs(3);

/// Disk space that is taken, reserved log included.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct DiskUse {
    pub log_bytes: u64,
    pub snapshot_bytes: u64,
    pub image_bytes: u64,
}

impl DiskUse {
    pub fn bytes(self) -> u64 {
        self.log_bytes + self.snapshot_bytes + self.image_bytes
    }
}

impl LocalStore {
    pub fn memory(&self, index: usize) -> anyhow::Result<Memory> {
        Ok(process::memory(self.pid(index)?)?)
    }

    /// By all members, since each was started.
    pub fn written_bytes(&self) -> anyhow::Result<u64> {
        let written = |index| Ok(process::written_bytes(self.pid(index)?)?);
        (0..self.members.len()).map(written).sum()
    }

    pub fn disk(&self, index: usize) -> anyhow::Result<DiskUse> {
        let home = self.home(index)?;
        Ok(DiskUse {
            log_bytes: taken(&home.join("log"))?,
            snapshot_bytes: taken(&home.join("snapshots"))?,
            image_bytes: taken(&home.join("image"))?,
        })
    }

    /// Of a member that does not run.
    pub fn remove_image(&self, index: usize) -> anyhow::Result<()> {
        Ok(fs::remove_dir_all(self.home(index)?.join("image"))?)
    }

    pub fn health_addresses(&self) -> Vec<String> {
        let port = Ports::default().health;
        let of = |address| format!("{address}:{port}");
        self.members
            .iter()
            .map(|member| of(member.address))
            .collect()
    }

    /// Waits until images, logs and snapshots are written, and answers how long that took.
    pub async fn rest(&self) -> anyhow::Result<Duration> {
        let addresses = self.health_addresses();
        let begin = Instant::now();
        let (mut since, mut before) = (begin, None);
        while since.elapsed() < REST {
            if begin.elapsed() > REST_TIMEOUT {
                bail!("the members do not come to rest");
            }
            let gauges = ImageGauges::of(&addresses).await?;
            let now = (gauges.dirty_bytes == 0).then_some(self.written_bytes()?);
            if now.is_none() || now != before {
                (since, before) = (Instant::now(), now);
            }
            sleep(REST_LOOK).await;
        }
        Ok(since - begin)
    }

    /// Memory that the member's rows take, and nothing else: they are loaded here, from a snapshot.
    pub async fn rows_bytes(&self, index: usize) -> anyhow::Result<u64> {
        self.snapshot(index).await?;
        let identity = SnapshotIdentity {
            cluster_id: self.cluster_id.clone(),
            incarnation: super::INCARNATION,
        };
        let newest = list(&self.home(index)?.join("snapshots"))?;
        let path = newest.first().context("there is no snapshot")?.path.clone();
        let measured = tokio::task::spawn_blocking(move || {
            let handle = SnapshotHandle::open(&path, &identity)?;
            let own = std::process::id();
            let before = process::memory(own)?.anonymous_bytes;
            let loaded = load(&handle, Bounds::default())?;
            drop(loaded.places);
            let after = process::memory(own)?.anonymous_bytes;
            drop(loaded.state);
            io::Result::Ok(after.saturating_sub(before))
        });
        Ok(measured.await??)
    }

    fn pid(&self, index: usize) -> anyhow::Result<u32> {
        let pid = self.members[index].process.id();
        pid.context("a member has ended")
    }

    /// The folder in use.
    fn home(&self, index: usize) -> anyhow::Result<PathBuf> {
        let volume = self.data_dir(self.members[index].id);
        let current = fs::read_to_string(volume.join("CURRENT"))?;
        Ok(volume.join(current.trim()))
    }
}

fn taken(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(of) if of.is_dir() => taken(&entry.path())?,
            Ok(of) => of.blocks() * 512,
            // It went meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}
