//! Opens the member's disk before Raft may start: lock, stamp (made when the operator orders it), start
//! table, state.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};

use crate::config::Config;
use crate::member::{Member, Phase};
use crate::storage::codec::log_id;
use crate::storage::identity::{Content, Home, Identity, Volume};
use crate::storage::log::disk::SystemDisk;
use crate::storage::log::{Geometry, PurgedHook, end_process};
use crate::storage::log_store::{LogOptions, LogStore};
use crate::storage::snapshot::{self, SnapshotFile, SnapshotHandle, SnapshotIdentity};
use crate::storage::start::{Base, SnapshotFacts, SnapshotsFound, StartError, StartOptions, start};
use crate::storage::store::Store;
use crate::task::state::Bounds;

/// How often a volume that is in use is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// What opening came to.
pub enum Opened {
    Ready(Box<Disk>),
    /// A disk that is accepted but starts nothing.
    Idle(Phase),
}

/// An open disk. The volume's lock is held as long as this lives.
pub struct Disk {
    pub home: Home,
    pub log: LogStore,
    pub store: Arc<Store>,
    _volume: Volume,
}

/// An error is a disk that is refused, with the reason for people.
pub async fn open(member: &Arc<Member>) -> anyhow::Result<Opened> {
    let config = &member.config;
    let identity = identity(config);
    let volume = open_volume(member).await?;
    let home = match volume.content()? {
        Content::Stamped(home) => home,
        Content::Blank => {
            if !config.standalone {
                member.enter(Phase::Blank);
                member.format_ordered().await;
            }
            volume.format(
                identity.clone(),
                Geometry::for_budget(config.log_budget_bytes),
            )?
        }
    };
    let dir = home.snapshots_directory();
    let of_snapshots = of_snapshots(&identity);
    let files = snapshot::list(&dir)?;
    let found = found(&files, &of_snapshots, &dir)?;
    let options = StartOptions {
        log: LogOptions::default(),
        disk: SystemDisk,
        fatal: end_process(),
        purged: Some(clears_marker(dir.clone())),
    };
    let started = match start(&home, &identity, found, options).await {
        Ok(started) => started,
        Err(StartError::Removed) => return Ok(Opened::Idle(Phase::Removed)),
        Err(error) => return Err(anyhow!(error)),
    };
    if started.torn_frames > 0 {
        tracing::warn!(
            "an unacknowledged last frame was cut: the power failed while it was written"
        );
    }
    let from = base_file(&files, started.base);
    let (clear, base) = (started.clear_installing, started.base);
    let store = tokio::task::spawn_blocking(move || {
        let store = Store::open(&dir, of_snapshots, from.as_deref(), Bounds::default())?;
        if clear {
            store.snapshots().clear_installing()?;
        }
        io::Result::Ok(store)
    });
    let store = store
        .await
        .context("reading the snapshot")?
        .context("reading the snapshot")?;
    tracing::info!(?base, "disk accepted");
    Ok(Opened::Ready(Box::new(Disk {
        home,
        log: started.log,
        store,
        _volume: volume,
    })))
}

/// Takes the volume's lock. The container before this one may still be ending: its end is waited for.
pub async fn open_volume(member: &Member) -> anyhow::Result<Volume> {
    let mut said = false;
    loop {
        match Volume::open(&member.config.data_dir) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(%error, "waiting for the volume");
                }
                tokio::time::sleep(LOCK_RETRY).await;
            }
            opened => return opened.context("the volume"),
        }
    }
}

/// Who the arguments say that this member is.
pub fn identity(config: &Config) -> Identity {
    Identity {
        cluster_id: config.member.cluster_id.clone(),
        incarnation: config.member.incarnation,
        member_id: config.member.member_id,
        volume_uid: config.member.volume_uid.clone(),
    }
}

/// The store that this member's snapshots belong to.
pub fn of_snapshots(identity: &Identity) -> SnapshotIdentity {
    SnapshotIdentity {
        cluster_id: identity.cluster_id.clone(),
        incarnation: identity.incarnation,
    }
}

/// The file that the start table has chosen, of those listed newest first.
pub fn base_file(files: &[SnapshotFile], base: Base) -> Option<PathBuf> {
    let file = match base {
        Base::Empty | Base::LogFromStart => None,
        Base::NewestSnapshot => files.first(),
        Base::OlderSnapshot => files.get(1),
    };
    file.map(|file| file.path.clone())
}

/// Verifies the two newest files: the start table decides by what is good.
pub fn found(
    files: &[SnapshotFile],
    identity: &SnapshotIdentity,
    dir: &Path,
) -> io::Result<SnapshotsFound> {
    let facts = |file: &SnapshotFile| SnapshotFacts {
        log_id: log_id(file.position.term, file.position.index),
        bytes: file.bytes,
        good: SnapshotHandle::open(&file.path, identity).is_ok(),
    };
    Ok(SnapshotsFound {
        newest: files.first().map(facts),
        older: files.get(1).map(facts),
        installing: snapshot::installing(dir)?.map(|at| log_id(at.term, at.index)),
    })
}

/// An install is complete once the older log is purged: its marker goes then.
fn clears_marker(dir: PathBuf) -> PurgedHook {
    Arc::new(move |to| {
        if snapshot::installing(&dir)?.is_some_and(|at| at.index <= to.index) {
            snapshot::clear_installing_in(&dir)?;
        }
        Ok(())
    })
}
