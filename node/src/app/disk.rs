//! Opens the member's disk before Raft may start: lock, stamp (made when the operator orders it), start
//! table, state.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::config::Config;
use crate::member::{Member, Phase};
use crate::metrics::Metrics;
use crate::storage::codec::log_id;
use crate::storage::files::is_damage;
use crate::storage::identity::{Content, Home, Identity, Volume};
use crate::storage::image;
use crate::storage::log::disk::SystemDisk;
use crate::storage::log::{self, Geometry, PurgedHook, end_process};
use crate::storage::log_store::{LogOptions, LogStore};
use crate::storage::rewrite::Successor;
use crate::storage::room::make_room;
use crate::storage::snapshot::{self, Look, SnapshotHandle, SnapshotIdentity, Snapshots, Surveyed};
use crate::storage::start::{
    Base, FoundOnDisk, SnapshotFacts, StartError, StartOptions, begin, decide, facts_of, read_log,
};
use crate::storage::store::{Origin, Store};
use crate::storage::types::MemberName;
use crate::task::state::Bounds;

/// How often a volume that is in use is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// What opening came to.
pub enum Opened {
    Ready(Box<Disk>),
    /// A disk on which no Raft is started: a removed member's, or a damaged one.
    Idle(Phase),
}

/// An open disk. The volume's lock is held as long as this lives.
pub struct Disk {
    pub home: Home,
    pub log: LogStore,
    pub store: Arc<Store>,
    _volume: Arc<Volume>,
}

/// An error is no word on what the disk holds: the next try may succeed.
pub async fn open(member: &Arc<Member>, metrics: &Arc<Metrics>) -> anyhow::Result<Opened> {
    match open_disk(member, metrics).await {
        Ok(disk) => Ok(Opened::Ready(Box::new(disk))),
        Err(StartError::Damaged(reason)) => Ok(Opened::Idle(Phase::Damaged(reason))),
        Err(StartError::Removed) => Ok(Opened::Idle(Phase::Removed)),
        Err(StartError::Io(error)) => Err(error).context("the disk"),
    }
}

async fn open_disk(member: &Arc<Member>, metrics: &Arc<Metrics>) -> Result<Disk, StartError> {
    let config = &member.config;
    let identity = identity(config);
    let volume = Arc::new(open_volume(member).await?);
    let home = match content(&volume).await? {
        Content::Stamped(home) => home,
        Content::Blank => {
            if !config.standalone {
                member.enter(Phase::Blank);
                member.format_ordered().await;
            }
            let (volume, identity) = (volume.clone(), identity.clone());
            let geometry = Geometry::for_budget(config.log_budget_bytes);
            blocking(move || Ok(volume.format(identity, geometry)?)).await?
        }
    };
    let flush_seconds = metrics.log_flush_seconds.clone();
    let options = StartOptions {
        log: LogOptions::default(),
        disk: SystemDisk,
        fatal: end_process(),
        purged: Some(clears_marker(home.snapshots_directory())),
        wrote: Some(Arc::new(move |took| {
            flush_seconds.observe(took.as_secs_f64())
        })),
    };
    let mut loaded = load(&home, &identity, options).await?;
    finish_switch(&volume, &home).await?;
    if loaded.torn_frames > 0 {
        metrics.log_torn_frames.inc_by(loaded.torn_frames.into());
        tracing::warn!(
            "an unacknowledged last frame was cut: the power failed while it was written"
        );
    }
    make_room(&mut loaded.log, &loaded.store).await?;
    tracing::info!(base = ?loaded.base, "disk accepted");
    Ok(Disk {
        home,
        log: loaded.log,
        store: loaded.store,
        _volume: volume,
    })
}

/// A stamped disk, as the start table has it.
pub struct Loaded<D: log::disk::Disk> {
    pub log: LogStore<D>,
    pub store: Arc<Store>,
    pub base: Base,
    pub torn_frames: u32,
}

/// Reads log, image and snapshots, decides, and loads the state.
pub async fn load<D: log::disk::Disk>(
    home: &Home,
    identity: &Identity,
    options: StartOptions<D>,
) -> Result<Loaded<D>, StartError> {
    let of_snapshots = of_snapshots(identity);
    let read = read_log(home, options.disk.clone()).await?;
    let image = open_image(home, &of_snapshots).await?;
    let look = match image {
        Some(_) => Look::Ends,
        None => Look::Whole,
    };
    let (mut surveyed, found) = survey(home, &of_snapshots, image.as_deref(), look).await?;
    let mut decision = decide(&home.stamp(), identity, facts_of(&read), found);
    if look == Look::Ends && !decision.starts_from(Base::Image) {
        let (whole, found) = survey(home, &of_snapshots, image.as_deref(), Look::Whole).await?;
        decision = decide(&home.stamp(), identity, facts_of(&read), found);
        surveyed = whole;
    }
    let fatal = options.fatal.clone();
    let started = begin(home, read, decision, options).await?;
    let (base, clear) = (started.base, started.clear_installing);
    let origin = origin_of(base, image, &surveyed);
    let (dir, image_dir) = (home.snapshots_directory(), home.image_directory());
    let store = blocking(move || {
        let snapshots = Snapshots::open(&dir, of_snapshots, surveyed)?;
        let store = Store::with(snapshots, &image_dir, origin, Bounds::default(), fatal)
            .map_err(|error| of_read("reading the snapshot", error))?;
        if clear {
            store.snapshots().clear_installing()?;
        }
        Ok(store)
    });
    Ok(Loaded {
        log: started.log,
        store: store.await?,
        base,
        torn_frames: started.torn_frames,
    })
}

/// What a volume holds, read off the async threads.
pub async fn content(volume: &Arc<Volume>) -> Result<Content, StartError> {
    let volume = volume.clone();
    blocking(move || Ok(volume.content()?)).await
}

/// A rewrite of the identity that was cut off after its switch is brought to its end: the directory in use was
/// found good.
pub async fn finish_switch(volume: &Arc<Volume>, home: &Home) -> Result<(), StartError> {
    let (volume, home) = (volume.clone(), home.clone());
    blocking(move || Ok(volume.finish_switch(&home)?)).await
}

/// Takes the volume's lock. The container before this one may still be ending: its end is waited for.
pub async fn open_volume(member: &Member) -> Result<Volume, StartError> {
    let mut said = false;
    loop {
        let root = member.config.data_dir.clone();
        match blocking(move || Ok(Volume::open(&root)?)).await {
            Err(StartError::Io(error)) if error.kind() == io::ErrorKind::ResourceBusy => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(%error, "waiting for the volume");
                }
                tokio::time::sleep(LOCK_RETRY).await;
            }
            opened => return opened,
        }
    }
}

/// Probes and signals are answered meanwhile.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StartError> + Send + 'static,
) -> Result<T, StartError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

pub fn of_read(doing: &str, error: io::Error) -> StartError {
    match is_damage(&error) {
        true => StartError::Damaged(format!("{doing}: {error}")),
        false => error.into(),
    }
}

/// Who the arguments say that this member is.
pub fn identity(config: &Config) -> Identity {
    let member = &config.member;
    Identity {
        cluster_id: member.cluster_id.clone(),
        incarnation: member.incarnation,
        member_id: member.member_id,
        volume_uid: member.volume_uid.clone(),
    }
}

/// What a restore or a rewrite makes of a volume: this member's, with a log as it was told.
pub fn successor(config: &Config, log: Geometry) -> Successor {
    Successor {
        identity: identity(config),
        name: MemberName(config.member.name.clone()),
        log,
    }
}

/// The store that this member's snapshots belong to.
pub fn of_snapshots(identity: &Identity) -> SnapshotIdentity {
    SnapshotIdentity {
        cluster_id: identity.cluster_id.clone(),
        incarnation: identity.incarnation,
    }
}

/// The file that the start table has chosen, of those surveyed.
pub fn base_of(surveyed: &[Surveyed], base: Base) -> Option<SnapshotHandle> {
    let file = match base {
        Base::Empty | Base::LogFromStart | Base::Image => None,
        Base::NewestSnapshot => surveyed.first(),
        Base::OlderSnapshot => surveyed.get(1),
    };
    file.and_then(|file| file.good.clone())
}

/// What the state is loaded from.
pub fn origin_of(base: Base, image: Option<Box<image::Opened>>, surveyed: &[Surveyed]) -> Origin {
    match (base, image, base_of(surveyed, base)) {
        (Base::Image, Some(image), _) => Origin::Image(image),
        (_, _, Some(snapshot)) => Origin::Snapshot(snapshot),
        _ => Origin::Nothing,
    }
}

/// The image, loaded, if it is good.
pub async fn open_image(
    home: &Home,
    identity: &SnapshotIdentity,
) -> Result<Option<Box<image::Opened>>, StartError> {
    let (dir, identity) = (home.image_directory(), identity.clone());
    blocking(move || Ok(image::open(&dir, &identity, Bounds::default())?.map(Box::new))).await
}

/// Looks at the newest two snapshots: the start table decides by what is good.
pub async fn survey(
    home: &Home,
    identity: &SnapshotIdentity,
    image: Option<&image::Opened>,
    look: Look,
) -> Result<(Vec<Surveyed>, FoundOnDisk), StartError> {
    let (dir, identity) = (home.snapshots_directory(), identity.clone());
    let image = image.map(|image| image.header.position);
    blocking(move || {
        let surveyed = snapshot::survey(&dir, &identity, look)?;
        let installing =
            snapshot::installing(&dir).map_err(|error| of_read("the installing marker", error))?;
        let facts = |one: &Surveyed| SnapshotFacts {
            log_id: log_id(one.file.position.term, one.file.position.index),
            bytes: one.file.bytes,
            good: one.good.is_some(),
        };
        let found = FoundOnDisk {
            newest: surveyed.first().map(facts),
            older: surveyed.get(1).map(facts),
            installing: installing.map(|at| log_id(at.term, at.index)),
            image: image.map(|at| log_id(at.term, at.index)),
        };
        Ok((surveyed, found))
    })
    .await
}

/// An install is complete once the older log is purged: its marker goes then.
pub fn clears_marker(dir: PathBuf) -> PurgedHook {
    Arc::new(move |to| {
        if snapshot::installing(&dir)?.is_some_and(|at| at.index <= to.index) {
            snapshot::clear_installing_in(&dir)?;
        }
        Ok(())
    })
}
