//! The log and the snapshots of one member together: a cut beside an install, after a restart, and in a log
//! that has no room left.

#[path = "support/volume.rs"]
#[allow(dead_code, reason = "the damage trials use the rest")]
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::EntryPayload;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftStateMachine};
use taskstore::raft::certs::Authority;
use taskstore::raft::config::Timings;
use taskstore::raft::consensus::Role;
use taskstore::raft::engine;
use taskstore::raft::transport::peers::Peers;
use taskstore::raft::transport::tls::TlsStore;
use taskstore::raft::transport::{Me, Options};
use taskstore::storage::codec::log_id;
use taskstore::storage::identity::Identity;
use taskstore::storage::log::Geometry;
use taskstore::storage::log::disk::SystemDisk;
use taskstore::storage::log_store::LogOptions;
use taskstore::storage::machine::with_meta;
use taskstore::storage::types::{Entry, MemberName, Membership};
use tempfile::TempDir;
use tokio::sync::watch;
use volume::{Opened, PATIENCE, blanks};

const GEOMETRY: Geometry = Geometry {
    segment_bytes: 8 << 10,
    segments: 8,
};
const ALONE: u64 = (1 << 32) + 1;

/// A member that a test closes and opens again.
struct Member {
    directory: TempDir,
    opened: Opened<SystemDisk>,
    fatal: Arc<Mutex<Vec<String>>>,
}

impl Deref for Member {
    type Target = Opened<SystemDisk>;

    fn deref(&self) -> &Self::Target {
        &self.opened
    }
}

impl DerefMut for Member {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.opened
    }
}

impl Member {
    async fn new() -> Member {
        let directory = TempDir::new().unwrap();
        volume::format(directory.path(), &identity(), GEOMETRY);
        Member::open(directory).await
    }

    async fn restarted(self) -> Member {
        self.log.close();
        drop(self.opened);
        Member::open(self.directory).await
    }

    async fn open(directory: TempDir) -> Member {
        let fatal = Arc::new(Mutex::new(Vec::new()));
        let noted = fatal.clone();
        let hook = Arc::new(move |what: &'static str, error: &std::io::Error| {
            noted.lock().unwrap().push(format!("{what}: {error}"));
        });
        // No frame but those that a test asks for.
        let options = LogOptions {
            quiet: Duration::from_secs(3600),
            ..LogOptions::default()
        };
        let opened = volume::open(directory.path(), &identity(), SystemDisk, options, hook).await;
        Member {
            opened: opened.unwrap().unwrap(),
            directory,
            fatal,
        }
    }
}

fn identity() -> Identity {
    Identity {
        cluster_id: "c".into(),
        incarnation: 1,
        member_id: ALONE,
        volume_uid: "v".into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_a_cut_and_an_install_wait_for_no_append() {
    let mut leader = Member::new().await;
    leader.append(blanks(2, 0..40)).await.unwrap();
    leader.apply(blanks(2, 0..40)).await;
    leader.cut().await.expect("something new");
    let sent = with_meta(leader.store.snapshots().newest().unwrap()).unwrap();

    let mut member = Member::new().await;
    member.append(blanks(1, 0..20)).await.unwrap();
    let mut member = member.restarted().await;
    let entries = member.log.try_get_log_entries(..).await.unwrap();
    member.apply(entries).await;
    assert_eq!(member.cut().await, Some(log_id(1, 19)));
    let mut machine = member.machine();
    let install = machine.install_snapshot(&sent.meta, sent.snapshot);
    let installed = tokio::time::timeout(PATIENCE, install).await;
    installed.expect("no wait").unwrap();
    assert_eq!(member.applied(), Some(log_id(2, 39)));
    member.log.purge(log_id(2, 39)).await.unwrap();
    let flushed = member.log.flushed(log_id(2, 39));
    let flushed = tokio::time::timeout(PATIENCE, flushed).await;
    flushed.expect("what an install covers is durable").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_that_waits_for_its_flush_keeps_no_install_waiting() {
    let mut leader = Member::new().await;
    leader.append(blanks(2, 0..40)).await.unwrap();
    leader.apply(blanks(2, 0..40)).await;
    leader.cut().await.expect("something new");
    let sent = with_meta(leader.store.snapshots().newest().unwrap()).unwrap();

    let mut member = Member::new().await;
    // Applied before it is flushed, as openraft may.
    member.apply(blanks(1, 0..20)).await;
    let (store, log) = (member.store.clone(), member.log.clone());
    let (begun, mut waits) = tokio::sync::mpsc::unbounded_channel();
    let cut = tokio::spawn(async move {
        store
            .cut_snapshot(|log_id| {
                begun.send(()).unwrap();
                log.flushed(log_id)
            })
            .await
    });
    waits.recv().await.unwrap();
    let mut machine = member.machine();
    let install = machine.install_snapshot(&sent.meta, sent.snapshot);
    let installed = tokio::time::timeout(PATIENCE, install).await;
    installed.expect("no wait").unwrap();
    member.append(blanks(1, 0..20)).await.unwrap();
    let cut = tokio::time::timeout(PATIENCE, cut).await.expect("no wait");
    assert!(
        cut.unwrap().unwrap().is_none(),
        "what was installed is newer"
    );
    let newest = member.store.snapshots().newest().unwrap();
    assert_eq!(newest.position().index, 39);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_that_never_comes_is_an_error_and_a_truncated_entry_counts_for_none() {
    let mut member = Member::new().await;
    member.append(blanks(1, 0..20)).await.unwrap();
    member.log.truncate_after(Some(log_id(1, 9))).await.unwrap();
    let (log, waited_for) = (member.log.clone(), log_id(2, 10));
    let waits = tokio::spawn(async move { log.flushed(waited_for).await });
    member.append(blanks(2, 10..11)).await.unwrap();
    let flushed = tokio::time::timeout(PATIENCE, waits)
        .await
        .expect("no wait");
    flushed.unwrap().unwrap();
    let log = member.log.clone();
    let waits = tokio::spawn(async move { log.flushed(log_id(2, 11)).await });
    member.log.close();
    let ended = tokio::time::timeout(PATIENCE, waits)
        .await
        .expect("no wait");
    assert!(ended.unwrap().is_err(), "the log is closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_behind_a_snapshot_is_measured_alike_before_and_after_a_restart() {
    let mut member = Member::new().await;
    for index in 0..60 {
        member.append(blanks(1, index..index + 1)).await.unwrap();
    }
    let whole = member.log.bytes_from(0);
    let used = member.log.disk().unwrap().used_bytes;
    assert_eq!(whole, used);
    assert_eq!(member.log.bytes_from(60), 0, "nothing is behind the last");
    let half = member.log.bytes_from(40);
    assert!((20 * 512..whole).contains(&half), "{half} of {whole}");
    let member = member.restarted().await;
    // A restart adds at most the frame that the close wrote.
    for (first, before) in [(0, whole), (40, half), (60, 0)] {
        let after = member.log.bytes_from(first);
        assert!(
            (before..=before + 512).contains(&after),
            "from {first}: {before}, then {after}"
        );
    }
}

/// Fills the log until it refuses; what was acknowledged is committed, and the log says so. The first entry
/// makes it a cluster of one.
async fn full() -> (Member, u64) {
    let mut member = Member::new().await;
    let names = BTreeMap::from([(ALONE, MemberName("127.0.0.1".into()))]);
    let alone = Membership::new(vec![BTreeSet::from([ALONE])], names).unwrap();
    let first = Entry {
        log_id: log_id(1, 0),
        payload: EntryPayload::Membership(alone),
    };
    member.append(vec![first]).await.unwrap();
    let mut next = 1;
    while member.append(blanks(1, next..next + 1)).await.is_ok() {
        next += 1;
        let committed = Some(log_id(1, next - 1));
        member.log.save_committed(committed).await.unwrap();
    }
    let fatal = member.fatal.lock().unwrap().clone();
    assert!(fatal[0].starts_with("log budget"), "{fatal:?}");
    (member.restarted().await, next)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_log_was_full_makes_room_at_its_start() {
    let (mut member, next) = full().await;
    member.make_room().await;
    assert!(!member.log.disk().unwrap().is_high());
    // The last one or two entries were not yet known to be committed.
    let applied = member.applied().unwrap().index;
    assert!(applied + 3 >= next, "applied {applied} of {next}");
    for index in next..next + 20 {
        member.append(blanks(1, index..index + 1)).await.unwrap();
    }
    let mut member = member.restarted().await;
    assert_eq!(member.applied().unwrap().index, applied);
    let entries = member.log.try_get_log_entries(..).await.unwrap();
    assert_eq!(entries, blanks(1, applied + 1..next + 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_one_member_whose_log_was_full_leads_again() {
    let (mut member, _) = full().await;
    member.make_room().await;
    let tls = member.directory.path().join("tls");
    let authority = Authority::new("c").unwrap();
    authority.member(ALONE).unwrap().write_to(&tls).unwrap();
    let me = Me {
        cluster_id: "c".into(),
        incarnation: 1,
        member_id: ALONE,
        name: MemberName("127.0.0.1".into()),
    };
    let tls = Arc::new(TlsStore::load(&tls).unwrap());
    let peers = Peers::new(me, tls, Options::default());
    let (log, store) = (member.log.clone(), member.store.clone());
    let fenced = watch::channel(false).1;
    let consensus = engine::start(&peers, Timings::default(), log, store, fenced)
        .await
        .unwrap();
    let mut role = consensus.watch_role();
    let leads = role.wait_for(|role| matches!(role, Role::Leads { .. }));
    let leads = tokio::time::timeout(PATIENCE, leads).await;
    assert!(leads.is_ok_and(|role| role.is_ok()));
    consensus.shutdown().await;
    assert_eq!(*member.fatal.lock().unwrap(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_beside_a_full_log_leaves_the_room_behind_the_newest_snapshot() {
    let mut member = Member::new().await;
    member.append(blanks(1, 0..50)).await.unwrap();
    member.apply(blanks(1, 0..50)).await;
    member.cut().await.expect("something new");
    let mut next = 50;
    while member.append(blanks(1, next..next + 1)).await.is_ok() {
        next += 1;
        let committed = Some(log_id(1, next - 1));
        member.log.save_committed(committed).await.unwrap();
    }
    let mut member = member.restarted().await;
    // In the way of the next cut.
    std::fs::create_dir(member.store.snapshots().dir().join("cut.tmp")).unwrap();
    member.make_room().await;
    let state = member.log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(1, 49)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_with_room_is_left_as_it_is() {
    let mut member = Member::new().await;
    member.append(blanks(1, 0..50)).await.unwrap();
    member.make_room().await;
    assert_eq!(member.applied(), None);
    assert!(member.store.snapshots().newest().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn high_water_is_told_by_the_frame_that_reaches_it() {
    let mut member = Member::new().await;
    let log = member.log.clone();
    let told = tokio::spawn(async move { log.high_water_left(false).await });
    let mut next = 0;
    while !member.log.disk().unwrap().is_high() {
        member.append(blanks(1, next..next + 1)).await.unwrap();
        next += 1;
    }
    let told = tokio::time::timeout(PATIENCE, told).await.expect("told");
    assert!(told.unwrap());
    let left = GEOMETRY.usable_bytes() - member.log.disk().unwrap().used_bytes;
    assert!(
        left * 100 >= GEOMETRY.usable_bytes() * 15,
        "{left} bytes are left"
    );
    member.log.purge(log_id(1, next - 1)).await.unwrap();
    let left = member.log.high_water_left(true);
    assert!(tokio::time::timeout(PATIENCE, left).await.expect("told"));
}
