//! Damage while a member runs: to what it keeps, to what it sends, and to what arrives.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use openraft::storage::{RaftLogStorage, RaftStateMachine};
use taskstore::storage::codec::log_id;
use taskstore::storage::log::disk::SystemDisk;
use taskstore::storage::machine::{Machine, with_meta};
use taskstore::storage::snapshot::{SnapshotHandle, SnapshotReceiver};
use tempfile::TempDir;

use crate::damage::{DAMAGES, Damage};
use crate::faults::scratch;
use crate::scene::{
    self, END, Files, Kind, LATER, SENT, SENT_END, Scene, TERM, grow, identity, identity_path,
    leader, snapshot_path,
};
use crate::snapshots::{Fates, Snapshot, kept, row};
use crate::tally::Tally;
use crate::trial::{self, Row, name};
use crate::volume::Opened;

const CHUNK_BYTES: usize = 5_000;

pub async fn trials(scenes: &[Scene], rng: &mut fastrand::Rng) -> Tally {
    let mut tally = Tally::default();
    let of_kind = |kind| scenes.iter().find(|scene| scene.kind == kind);
    let lagging = of_kind(Kind::PurgedBehindOlder).expect("all kinds are there");
    for scene in scenes {
        match scene.kind {
            Kind::TwoSnapshots | Kind::PurgedBehindOlder | Kind::PurgedBehindNewest => {
                for damage in DAMAGES.into_iter().flat_map(|damage| [damage; 4]) {
                    kept_ones(&mut tally, scene, damage, rng).await;
                }
            }
            // A follower, as it is after a leader's snapshot was installed.
            Kind::Installing => {
                for _ in 0..20 {
                    sent(&mut tally, (lagging, scene), rng).await;
                    arriving(&mut tally, (lagging, scene), rng).await;
                    arrived(&mut tally, (lagging, scene), rng).await;
                }
            }
            _ => {}
        }
        stamp(&mut tally, scene).await;
    }
    tally
}

async fn running(files: &Files) -> (TempDir, Opened<SystemDisk>) {
    let root = scene::written(files);
    let mut member = scene::open(root.path()).await.unwrap().unwrap();
    assert!(member.replay().await);
    // While the image is rebuilt the snapshot is its source: damage then ends the process.
    member.keep_image().await;
    (root, member)
}

/// The files of a member that ends.
fn ended(root: &TempDir, member: Opened<SystemDisk>) -> Files {
    member.log.close();
    drop(member);
    scene::read(root.path())
}

/// In the same file, that the member may have open.
fn hit(damage: Damage, root: &Path, path: &Path, scene: &Scene, rng: &mut fastrand::Rng) -> bool {
    let mut files = scene::read(root);
    let is_hit = damage.hit(path, &mut files, scene, rng);
    match files.get(path) {
        Some(bytes) => fs::write(root.join(path), bytes).unwrap(),
        None if is_hit => fs::remove_file(root.join(path)).unwrap(),
        None => {}
    }
    is_hit
}

/// A kept snapshot goes bad; the member works on, with or without another cut, and starts again.
async fn kept_ones(tally: &mut Tally, scene: &Scene, damage: Damage, rng: &mut fastrand::Rng) {
    let [newest, older] = kept(scene.kind).map(|index| snapshot_path(index.unwrap()));
    for hits in [[true, false], [false, true], [true, true]] {
        for cuts in [false, true] {
            let (root, mut member) = running(&scene.files).await;
            let mut fate = |is_hit: bool, path: &PathBuf| match is_hit
                && hit(damage, root.path(), path, scene, rng)
            {
                true if damage == Damage::Gone => Snapshot::Gone,
                true => Snapshot::Bad,
                false => Snapshot::Whole,
            };
            let fates = Fates {
                newest: fate(hits[0], &newest),
                older: fate(hits[1], &older),
                ..Fates::default()
            };
            grow(&mut member, END + 1..=LATER).await;
            let mut expected = row(scene.kind, fates);
            if let Row::Starts { end, .. } = &mut expected {
                *end = Some(LATER);
            }
            if cuts {
                assert_eq!(member.cut().await, Some(log_id(TERM, LATER)));
                let behind = member.store.snapshots().positions()[1];
                member.log.purge(log_id(TERM, behind.index)).await.unwrap();
                expected = Row::Starts {
                    base: Some(LATER),
                    end: Some(LATER),
                };
            }
            let files = ended(&root, member);
            let what = name(&[&"running", &damage, &fates, &cuts]);
            trial::run(tally, scene, &files, expected, &what).await;
        }
    }
}

/// Sends from where the receiver stands, up to `upto`.
fn send(sent: &SnapshotHandle, receiver: &mut SnapshotReceiver, upto: u64) -> io::Result<()> {
    while receiver.received() < upto {
        let (at, left) = (receiver.received(), upto - receiver.received());
        let chunk = sent.read_at(at, CHUNK_BYTES.min(left as usize))?;
        receiver.write(at, &chunk)?;
    }
    Ok(())
}

fn begin(sent: &SnapshotHandle, member: &Opened<SystemDisk>) -> SnapshotReceiver {
    SnapshotReceiver::begin(member.store.snapshots(), &sent.id, sent.bytes).unwrap()
}

/// The whole transfer, or the rest of it.
fn receive(sent: &SnapshotHandle, member: &Opened<SystemDisk>) -> io::Result<SnapshotHandle> {
    let mut receiver = begin(sent, member);
    send(sent, &mut receiver, sent.bytes)?;
    receiver.finish(member.store.snapshots())
}

async fn install(member: &Opened<SystemDisk>, arrived: SnapshotHandle) -> io::Result<()> {
    let with_meta = with_meta(arrived).unwrap();
    let mut machine = Machine::new(member.store.clone());
    machine
        .install_snapshot(&with_meta.meta, with_meta.snapshot)
        .await
}

/// Notes whether a bad snapshot was found out before it changed anything.
fn refused(tally: &mut Tally, is_refused: bool, what: &str) {
    let wrong = (!is_refused).then(|| format!("{what} was taken"));
    tally.note("refused", !is_refused, wrong);
}

/// As if no snapshot had ever come.
fn unmoved() -> Row {
    row(Kind::PurgedBehindOlder, Fates::default())
}

fn installed(index: u64) -> Row {
    Row::Starts {
        base: Some(index),
        end: Some(index),
    }
}

/// The leader's snapshot goes bad on its disk before it is sent. Nobody takes it, and the next cut is
/// taken.
async fn sent(tally: &mut Tally, (lagging, scene): (&Scene, &Scene), rng: &mut fastrand::Rng) {
    let (root, member) = running(&lagging.files).await;
    let leaders = scratch();
    let mut leader = leader(leaders.path(), &identity()).await;
    let bad = leader.store.snapshots().newest().unwrap();
    let damage = [Damage::Flip, Damage::ZeroedPage, Damage::Truncated][rng.usize(0..3)];
    hit(damage, leaders.path(), &snapshot_path(SENT), scene, rng);
    let is_taken = receive(&bad, &member).is_ok();
    let files = ended(&root, member);
    let what = name(&[&"sent", &damage, &is_taken]);
    trial::run(tally, scene, &files, unmoved(), &what).await;
    refused(tally, !is_taken, &what);

    grow(&mut leader, SENT + 1..=SENT_END).await;
    leader.cut().await.unwrap();
    let good = leader.store.snapshots().newest().unwrap();
    let (root, member) = running(&files).await;
    let arrived = receive(&good, &member).unwrap();
    install(&member, arrived).await.unwrap();
    let mut scene = scene.clone();
    scene
        .ends
        .insert(SENT_END, (good.header.state_hash, good.id.clone()));
    let files = ended(&root, member);
    trial::run(tally, &scene, &files, installed(SENT_END), "sent again").await;
}

/// What has arrived so far goes bad while the follower is down.
async fn arriving(tally: &mut Tally, (lagging, scene): (&Scene, &Scene), rng: &mut fastrand::Rng) {
    let (root, member) = running(&lagging.files).await;
    let leaders = scratch();
    let leader = leader(leaders.path(), &identity()).await;
    let sent = leader.store.snapshots().newest().unwrap();
    send(&sent, &mut begin(&sent, &member), rng.u64(1..sent.bytes)).unwrap();
    let mut files = ended(&root, member);
    let half = PathBuf::from(format!("store-1/snapshots/receive-{}.tmp", sent.id));
    let damages = [
        Damage::Flip,
        Damage::ZeroedPage,
        Damage::Truncated,
        Damage::Appended,
        Damage::Gone,
    ];
    let damage = damages[rng.usize(0..damages.len())];
    damage.hit(&half, &mut files, scene, rng);
    let what = name(&[&"arriving", &damage]);
    trial::run(tally, scene, &files, unmoved(), &what).await;

    let (root, member) = running(&files).await;
    // What is not the leader's is found out at the end, and asked for once more.
    let arrived = receive(&sent, &member).or_else(|_| receive(&sent, &member));
    let arrived = arrived.expect("a good transfer is taken");
    install(&member, arrived).await.unwrap();
    let files = ended(&root, member);
    trial::run(tally, scene, &files, installed(SENT), &what).await;
}

/// What has arrived and was verified goes bad before it is installed.
async fn arrived(tally: &mut Tally, (lagging, scene): (&Scene, &Scene), rng: &mut fastrand::Rng) {
    let (root, member) = running(&lagging.files).await;
    let leaders = scratch();
    let leader = leader(leaders.path(), &identity()).await;
    let sent = leader.store.snapshots().newest().unwrap();
    let arrived = receive(&sent, &member).unwrap();
    let path = PathBuf::from("store-1/snapshots/arrived-0.tmp");
    let damage = [Damage::Flip, Damage::ZeroedPage, Damage::Truncated][rng.usize(0..3)];
    assert!(hit(damage, root.path(), &path, scene, rng));
    let what = name(&[&"arrived", &damage]);
    let is_installed = install(&member, arrived).await.is_ok();
    let files = ended(&root, member);
    trial::run(tally, scene, &files, unmoved(), &what).await;
    refused(tally, !is_installed, &what);
}

/// The stamp is lost while the member runs: whatever changes it writes it anew, otherwise the next start
/// finds it out.
async fn stamp(tally: &mut Tally, scene: &Scene) {
    for is_written in [false, true] {
        let root = scene::written(&scene.files);
        let member = scene::open(root.path()).await.unwrap().unwrap();
        fs::write(root.path().join(identity_path()), b"").unwrap();
        if is_written {
            member.home.mark_removed().unwrap();
        }
        let expected = match is_written {
            true => Row::Removed,
            false => Row::Damaged("the identity file"),
        };
        let files = ended(&root, member);
        trial::run(tally, scene, &files, expected, "the stamp is lost").await;
    }
}
