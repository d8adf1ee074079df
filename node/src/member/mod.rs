//! The member as the operator sees it: its phase, its identity, and, once Raft runs, its part in it.

pub mod backups;
pub mod changes;
pub mod running;
pub mod shipping;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use taskstore_api::v1;
use tokio::sync::{Notify, watch};

use self::backups::Backups;
use self::running::Running;
use self::shipping::Shipping;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::process;
use crate::raft::transport::tls::TlsStore;
use crate::raft::transport::wire::Facts;
use crate::storage::log_store::LogDisk;
use crate::task::state::FEATURE_LEVEL_KNOWN;

/// How long the order to format waits for a member that still looks at its volume.
const FORMAT_PATIENCE: Duration = Duration::from_secs(10);

/// Where a member stands. It only moves forward, except that a stop can come at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// The volume is empty and unstamped: waits for `format`.
    Blank,
    /// Stamped, nothing in it: waits for `initialize` or a leader.
    Empty,
    /// Reads its log, or has not caught up since its start.
    Recovering,
    Serving,
    Stopping,
    /// Refuses its own disk. Raft is not started.
    Damaged(String),
    /// Learned of its removal. It never starts again.
    Removed,
}

/// Whether a member takes requests. A latch: once ready, no election, lost leader or load clears it; only
/// stopping does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// With what is waited for, for people.
    NotReady(String),
}

/// One member.
pub struct Member {
    pub config: Config,
    pub tls: Arc<TlsStore>,
    pub backups: Backups,
    pub shipping: Shipping,
    phase: watch::Sender<Phase>,
    own: watch::Sender<Facts>,
    /// A latch, see `Readiness`.
    has_caught_up: AtomicBool,
    fenced: watch::Sender<bool>,
    fencing: Mutex<()>,
    readiness: watch::Sender<Readiness>,
    log_disk: Mutex<Option<LogDisk>>,
    running: OnceLock<Arc<Running>>,
    inspected: OnceLock<(v1::RaftStatus, bool)>,
    format_asked: Notify,
    restore: watch::Sender<Option<v1::RestoreStatus>>,
}

impl Member {
    pub fn new(config: Config, tls: Arc<TlsStore>) -> Member {
        let own = Facts {
            ready: false,
            disk_high_water: false,
            feature_level_max: FEATURE_LEVEL_KNOWN,
            version: env!("CARGO_PKG_VERSION").into(),
        };
        Member {
            config,
            tls,
            backups: Backups::default(),
            shipping: Shipping::default(),
            phase: watch::channel(Phase::Recovering).0,
            own: watch::channel(own).0,
            has_caught_up: AtomicBool::new(false),
            fenced: watch::channel(false).0,
            fencing: Mutex::default(),
            readiness: watch::channel(Readiness::NotReady("starting".into())).0,
            log_disk: Mutex::default(),
            running: OnceLock::new(),
            inspected: OnceLock::new(),
            format_asked: Notify::new(),
            restore: watch::channel(None).0,
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    pub fn watch_phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub fn enter(&self, phase: Phase) {
        tracing::info!(?phase, "member phase");
        self.phase.send_replace(phase);
        self.tell_readiness();
    }

    /// What the readiness probe and the operator are told: the latch, until the stop, and not while fenced.
    fn is_ready(&self) -> bool {
        self.own.borrow().ready && *self.phase.borrow() != Phase::Stopping
    }

    fn tell_readiness(&self) {
        self.readiness.send_replace(match self.is_ready() {
            true => Readiness::Ready,
            false => Readiness::NotReady(match *self.fenced.borrow() {
                true => "the member is fenced".into(),
                false => format!("the member is {}", self.phase_name()),
            }),
        });
    }

    pub fn watch_readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    pub fn phase_name(&self) -> &'static str {
        match &*self.phase.borrow() {
            Phase::Blank => "blank",
            Phase::Empty => "empty",
            Phase::Recovering => "recovering",
            Phase::Serving => "serving",
            Phase::Stopping => "stopping",
            Phase::Damaged(_) => "damaged",
            Phase::Removed => "removed",
        }
    }

    /// What this member tells the others. Ready is a latch: caught up once since start; not while fenced. It
    /// outlives the order to stop: a leader that hands over still serves what reaches it through the others.
    pub fn watch_own(&self) -> watch::Receiver<Facts> {
        self.own.subscribe()
    }

    pub fn set_ready(&self, ready: bool) {
        self.has_caught_up.store(ready, Ordering::Relaxed);
        self.retell();
    }

    pub fn watch_fenced(&self) -> watch::Receiver<bool> {
        self.fenced.subscribe()
    }

    /// Already stamped on the disk.
    pub fn set_fenced(&self, is_fenced: bool) {
        self.fenced.send_replace(is_fenced);
        self.retell();
    }

    /// Stamps it first. An error is of the disk; a member without one cannot be fenced. Done as a whole, one order
    /// after the other, whether or not the caller waits: disk and memory say the same.
    pub async fn fence(self: &Arc<Self>, is_fenced: bool) -> Result<(), String> {
        let Some(running) = self.running() else {
            return Err(format!("the member is {}", self.phase_name()));
        };
        let member = self.clone();
        let stamped = tokio::task::spawn_blocking(move || {
            let _one = member.fencing.lock();
            running.home.mark_fenced(is_fenced)?;
            tracing::info!(is_fenced, "fence");
            member.set_fenced(is_fenced);
            io::Result::Ok(())
        });
        let stamped = stamped.await.map_err(|error| error.to_string())?;
        stamped.map_err(|error| format!("the stamp cannot be written: {error}"))
    }

    fn retell(&self) {
        let ready = self.has_caught_up.load(Ordering::Relaxed) && !*self.fenced.borrow();
        self.own
            .send_if_modified(|own| std::mem::replace(&mut own.ready, ready) != ready);
        self.tell_readiness();
    }

    pub fn set_log_disk(&self, disk: LogDisk) {
        *self.log_disk.lock().unwrap_or_else(PoisonError::into_inner) = Some(disk);
    }

    /// Brings the gauges up to date; called when they are read.
    pub fn set_gauges(&self, metrics: &Metrics) {
        let gauges = &metrics.gauges;
        let own = self.own.borrow().clone();
        gauges.ready.set(u64::from(self.is_ready()));
        gauges.disk_high_water.set(u64::from(own.disk_high_water));
        if let Ok(memory) = process::memory(std::process::id()) {
            gauges.resident_bytes.set(memory.resident_bytes);
        }
        if let Some(disk) = *self.log_disk.lock().unwrap_or_else(PoisonError::into_inner) {
            gauges.log_bytes.set(disk.budget_bytes);
            gauges.log_live_bytes.set(disk.used_bytes);
        }
        if let Some(running) = self.running() {
            running.set_gauges(metrics);
            let (applied_index, wall_time_ms) = running.applied();
            let shipped = self.shipping.shipped();
            let last = shipped.as_ref().and_then(|shipped| shipped.last);
            gauges
                .log_shipped_index
                .set(last.map_or(0, |last| last.index));
            let unshipped_ms = shipped.map(|is| is.unshipped_ms(applied_index, wall_time_ms));
            gauges.log_unshipped_ms.set(unshipped_ms.unwrap_or(0));
        }
    }

    pub fn set_disk_high_water(&self, high: bool) {
        self.own
            .send_if_modified(|own| std::mem::replace(&mut own.disk_high_water, high) != high);
    }

    pub fn running(&self) -> Option<Arc<Running>> {
        self.running.get().cloned()
    }

    /// Notes what `--inspect` has found, and whether the volume was ever written to.
    pub fn note_inspected(&self, raft: v1::RaftStatus, is_initialized: bool) {
        let _ = self.inspected.set((raft, is_initialized));
    }

    /// Notes how far the restore into this volume has come.
    pub fn note_restore(&self, status: v1::RestoreStatus) {
        self.restore.send_replace(Some(status));
    }

    pub fn watch_restore(&self) -> watch::Receiver<Option<v1::RestoreStatus>> {
        self.restore.subscribe()
    }

    pub fn set_running(&self, running: Arc<Running>) {
        let _ = self.running.set(running);
    }

    /// Accepts the order to stamp the blank volume, if it means this member and this volume. A member that
    /// has just started looks at its volume first: the order waits for that.
    pub async fn format(&self, asked: &v1::Identity) -> Result<(), String> {
        let own = self.identity();
        if *asked != own {
            return Err(format!("format is for {asked:?}, this member is {own:?}"));
        }
        let mut phase = self.watch_phase();
        let looked = phase.wait_for(|phase| *phase != Phase::Recovering);
        // In time, or not blank: a member that goes on recovering has a log.
        let _ = tokio::time::timeout(FORMAT_PATIENCE, looked).await;
        match &*phase.borrow_and_update() {
            Phase::Blank => {}
            Phase::Empty => return Ok(()),
            other => return Err(format!("the volume is not blank: the member is {other:?}")),
        }
        self.format_asked.notify_one();
        let left_blank = phase.wait_for(|phase| *phase != Phase::Blank).await;
        match left_blank.as_deref() {
            Ok(Phase::Damaged(reason)) => Err(reason.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err("the member is stopping".into()),
        }
    }

    /// Waits until `format` is ordered.
    pub async fn format_ordered(&self) {
        self.format_asked.notified().await;
    }

    pub fn identity(&self) -> v1::Identity {
        let args = &self.config.member;
        v1::Identity {
            cluster_id: args.cluster_id.clone(),
            incarnation: args.incarnation.into(),
            member_id: args.member_id,
            volume_uid: args.volume_uid.clone(),
        }
    }

    pub fn status(&self) -> v1::MemberStatus {
        let phase = self.phase();
        let running = self.running();
        let own = self.own.borrow().clone();
        let tls = self.tls.current();
        v1::MemberStatus {
            identity: Some(self.identity()),
            phase: phase_message(&phase).into(),
            version: own.version,
            feature_level_max: own.feature_level_max,
            damage: match phase {
                Phase::Damaged(reason) => reason,
                _ => String::new(),
            },
            initialized: match (&running, self.inspected.get()) {
                (Some(running), _) => running.initialized(),
                (None, inspected) => inspected.is_some_and(|(_, is_initialized)| *is_initialized),
            },
            ready: self.is_ready(),
            raft: match &running {
                Some(running) => Some(running.raft_status()),
                None => self.inspected.get().map(|(raft, _)| raft.clone()),
            },
            certificate_sha256: tls.certificate_sha256.clone(),
            bundle_sha256: tls.bundle_sha256.clone(),
            disk_high_water: own.disk_high_water,
            fenced: *self.fenced.borrow(),
            restore: self.restore.borrow().clone(),
        }
    }
}

fn phase_message(phase: &Phase) -> v1::MemberPhase {
    match phase {
        Phase::Blank => v1::MemberPhase::Blank,
        Phase::Empty => v1::MemberPhase::Empty,
        Phase::Recovering => v1::MemberPhase::Recovering,
        Phase::Serving => v1::MemberPhase::Serving,
        Phase::Stopping => v1::MemberPhase::Stopping,
        Phase::Damaged(_) => v1::MemberPhase::Damaged,
        Phase::Removed => v1::MemberPhase::Removed,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::MemberIdentity;
    use crate::raft::certs::Authority;

    fn member() -> Member {
        let dir = tempfile::tempdir().expect("a folder");
        let id = (1 << 32) + 1;
        let issued = Authority::new("c").and_then(|authority| authority.member(id));
        issued
            .expect("a certificate")
            .write_to(dir.path())
            .expect("written");
        let tls = TlsStore::load(dir.path()).expect("loaded");
        let identity = MemberIdentity {
            cluster_id: "c".into(),
            incarnation: 1,
            member_id: id,
            volume_uid: "v".into(),
            name: "m".into(),
        };
        let config = Config::new(PathBuf::new(), identity, PathBuf::new());
        Member::new(config, Arc::new(tls))
    }

    #[tokio::test]
    async fn an_order_to_format_waits_for_the_look_at_the_volume() {
        let member = Arc::new(member());
        let asked = member.identity();
        let order = {
            let member = member.clone();
            tokio::spawn(async move { member.format(&asked).await })
        };
        tokio::task::yield_now().await;
        member.enter(Phase::Blank);
        member.format_ordered().await;
        member.enter(Phase::Empty);
        order.await.expect("no panic").expect("formatted");
    }

    #[test]
    fn a_stopping_member_is_not_ready_whatever_it_was() {
        let member = member();
        let readiness = member.watch_readiness();
        member.set_ready(true);
        member.enter(Phase::Serving);
        assert_eq!(*readiness.borrow(), Readiness::Ready);
        assert!(member.status().ready);
        member.enter(Phase::Stopping);
        let reason = "the member is stopping".to_string();
        assert_eq!(*readiness.borrow(), Readiness::NotReady(reason));
        assert!(!member.status().ready);
        assert!(
            member.watch_own().borrow().ready,
            "the others still send what they have for it"
        );
    }

    #[test]
    fn a_fenced_member_is_ready_for_nobody_until_it_is_taken_back() {
        let member = member();
        let readiness = member.watch_readiness();
        member.enter(Phase::Serving);
        member.set_fenced(true);
        member.set_ready(true);
        let reason = "the member is fenced".to_string();
        assert_eq!(*readiness.borrow(), Readiness::NotReady(reason));
        let status = member.status();
        assert_eq!((status.fenced, status.ready), (true, false));
        assert!(
            !member.watch_own().borrow().ready,
            "nobody hands over to it"
        );
        member.set_fenced(false);
        assert_eq!(*readiness.borrow(), Readiness::Ready);
        assert!(member.watch_own().borrow().ready, "it had caught up");
    }
}
