//! What a snapshot file must survive, and what it must refuse.

use std::collections::BTreeMap;
use std::io::Write;

use bytes::Bytes;

use super::*;
use crate::task::command::{Command, Create, NewTask, TaskState};
use crate::task::row::TaskRow;
use crate::task::state::Bounds;
use crate::task::tests::{START_MS, World, claim_of, complete, discard, fail, name, task};

fn identity() -> SnapshotIdentity {
    SnapshotIdentity {
        cluster_id: "c-1".into(),
        incarnation: 1,
    }
}

/// Every state, more than one block, a membership of some bytes.
fn world() -> World {
    let mut world = World::new();
    world.create("q", (0..40).map(|n| task(&format!("t{n}"))).collect());
    world.create(
        "p",
        vec![NewTask {
            payload: Bytes::from(vec![7; 300 << 10]),
            ..task("large")
        }],
    );
    world.create(
        "p",
        vec![NewTask {
            not_before_ms: START_MS + 5_000,
            ..task("later")
        }],
    );
    let claimed = world.claim(claim_of(&["q"], "c1", 8));
    let settles = [complete(), complete(), fail(), discard()];
    for (claimed, action) in claimed.iter().zip(settles) {
        world
            .settle(&claimed.task.id.to_string(), claimed.token, action)
            .expect("settled");
    }
    world
}

fn frozen(world: &World) -> Frozen {
    Frozen {
        position: Position {
            term: 3,
            index: world.index,
        },
        membership: b"members".to_vec(),
        tables: world.state.tables().clone(),
    }
}

/// The payloads that a test's world holds.
struct Held<'a>(&'a BTreeMap<u64, Bytes>);

impl PayloadSource for Held<'_> {
    fn payload(&mut self, row: &TaskRow) -> io::Result<Bytes> {
        let payload = self.0.get(&row.seq).cloned();
        payload.ok_or_else(|| bad("a payload that is not there"))
    }
}

fn folder() -> (tempfile::TempDir, Snapshots) {
    let dir = tempfile::tempdir().expect("a folder");
    let snapshots = open(dir.path());
    (dir, snapshots)
}

fn open(dir: &Path) -> Snapshots {
    let surveyed = survey(dir, &identity(), Look::Whole).expect("surveyed");
    Snapshots::open(dir, identity(), surveyed).expect("opened")
}

fn cut(snapshots: &Snapshots, world: &World) -> SnapshotHandle {
    let written = snapshots
        .write(&frozen(world), &mut Held(&world.payloads))
        .expect("written");
    snapshots.publish(written).expect("published")
}

#[test]
fn a_loaded_snapshot_is_the_state_it_was_cut_from_and_goes_on_like_it() {
    let (_dir, snapshots) = folder();
    let mut before = world();
    let handle = cut(&snapshots, &before);
    let loaded = load(&handle, Bounds::default()).expect("loaded");
    assert_eq!(loaded.state.hash(), before.state.hash());
    for (seq, payload) in &before.payloads {
        let read = loaded.places.read(&handle, *seq, payload.len());
        assert_eq!(read.expect("read").as_ref(), Some(payload));
    }
    let mut after = World {
        state: loaded.state,
        payloads: before.payloads.clone(),
        ..world()
    };
    for round in 0..30u64 {
        let create = Create {
            namespace: name("ns"),
            queue: name("q"),
            tasks: vec![task(&format!("n{round}"))],
        };
        let commands = vec![
            Command::Claim(claim_of(&["q", "p"], &format!("r{round}"), 3)),
            Command::Create(create),
        ];
        for world in [&mut before, &mut after] {
            world.lease_time_ms += round * 1_000;
            world.wall_time_ms += round * 400_000;
        }
        assert_eq!(before.apply(commands.clone()), after.apply(commands));
        assert_eq!(before.state.hash(), after.state.hash());
    }
    after.check();
}

#[test]
fn the_same_state_gives_the_same_bytes_also_after_a_load() {
    let (first_dir, first) = folder();
    let (second_dir, second) = folder();
    let one = cut(&first, &world());
    let loaded = load(&one, Bounds::default()).expect("loaded");
    let two = cut(
        &second,
        &World {
            state: loaded.state,
            ..world()
        },
    );
    assert_eq!(one.id, two.id);
    let bytes = |dir: &tempfile::TempDir| {
        fs::read(&list(dir.path()).expect("listed")[0].path).expect("read")
    };
    assert_eq!(bytes(&first_dir), bytes(&second_dir));
}

#[test]
fn the_format_is_the_one_agreed_on() {
    let (_dir, snapshots) = folder();
    // A change here is a new format number or a higher feature level, never only a new line.
    assert_eq!(
        cut(&snapshots, &world()).id,
        "240d7677e6038e842ba62581b9663d76"
    );
}

#[test]
fn every_flipped_bit_every_cut_and_every_added_byte_is_found() {
    let (dir, snapshots) = folder();
    let mut small = World::new();
    small.create("q", vec![task("a"), task("b")]);
    let handle = cut(&snapshots, &small);
    let good = handle.read_at(0, usize::MAX).expect("read");
    let path = dir.path().join("damaged");
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("written");
        SnapshotHandle::open(&path, &identity()).is_err()
    };
    assert!(!refused(&good));
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        assert!(refused(&bytes), "a bit flipped in byte {at}");
        assert!(refused(&good[..at]), "cut after {at} bytes");
    }
    let mut longer = good.clone();
    longer.push(0);
    assert!(refused(&longer));
}

#[test]
fn rows_that_do_not_belong_together_are_refused_even_when_their_bytes_are_whole() {
    let (_dir, snapshots) = folder();
    let whole = world();
    let mut lying = frozen(&whole);
    lying.tables.meta.feature_level = 2;
    let handle = snapshots
        .write(&lying, &mut Held(&whole.payloads))
        .expect("its bytes are whole");
    assert!(
        load(&handle, Bounds::default()).is_err(),
        "a level that is not known"
    );
    let mut lying = frozen(&whole);
    lying.tables.namespaces.clear();
    let handle = snapshots
        .write(&lying, &mut Held(&whole.payloads))
        .expect("its bytes are whole");
    assert!(
        load(&handle, Bounds::default()).is_err(),
        "queues without their namespace"
    );
    let none = BTreeMap::new();
    assert!(
        snapshots.write(&frozen(&whole), &mut Held(&none)).is_err(),
        "payloads that are nowhere"
    );
    assert!(!snapshots.dir().join(CUT_TEMPORARY).exists());
}

#[test]
fn a_snapshot_of_another_cluster_or_incarnation_is_refused() {
    let (dir, snapshots) = folder();
    cut(&snapshots, &world());
    let path = &list(dir.path()).expect("listed")[0].path;
    for other in [
        SnapshotIdentity {
            cluster_id: "c-2".into(),
            ..identity()
        },
        SnapshotIdentity {
            incarnation: 2,
            ..identity()
        },
    ] {
        let error = SnapshotHandle::open(path, &other).expect_err("refused");
        assert!(
            error
                .to_string()
                .contains("belongs to cluster c-1 incarnation 1"),
            "{error}"
        );
    }
}

#[test]
fn the_newest_two_are_kept_and_a_bad_newest_leaves_the_older_one() {
    let (dir, snapshots) = folder();
    let mut world = world();
    for _ in 0..3 {
        cut(&snapshots, &world);
        world.tick();
    }
    let files = list(dir.path()).expect("listed");
    let indexes: Vec<u64> = files.iter().map(|file| file.position.index).collect();
    assert_eq!(indexes, [world.index - 1, world.index - 2]);
    let mut bytes = fs::read(&files[0].path).expect("read");
    bytes[100] ^= 1;
    fs::write(&files[0].path, bytes).expect("written");
    fs::write(dir.path().join(CUT_TEMPORARY), b"half").expect("written");
    let again = open(dir.path());
    assert_eq!(
        again.newest().map(|handle| handle.position().index),
        Some(world.index - 2)
    );
    assert!(!dir.path().join(CUT_TEMPORARY).exists());
}

/// Takes so many bytes, then says that the disk is full.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error_wherever_it_happens_and_leaves_the_older_snapshot() {
    let (dir, snapshots) = folder();
    let mut world = world();
    let older = cut(&snapshots, &world);
    world.tick();
    let frozen = frozen(&world);
    for budget in (0..older.bytes as usize).step_by(8_000) {
        let error = write::encode(
            &frozen,
            &mut Held(&world.payloads),
            &identity(),
            Full(budget),
        )
        .expect_err("the disk is full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
    fs::create_dir(dir.path().join(CUT_TEMPORARY)).expect("made");
    assert!(
        snapshots
            .write(&frozen, &mut Held(&world.payloads))
            .is_err(),
        "a folder is in the way of the file"
    );
    assert_eq!(snapshots.newest().map(|handle| handle.id), Some(older.id));
}

#[test]
fn the_ballast_covers_one_snapshot_and_goes_for_one_on_a_full_disk() {
    let (dir, snapshots) = folder();
    let mut world = world();
    let path = dir.path().join(BALLAST);
    let reserved = || fs::metadata(&path).map(|ballast| ballast.len());
    let first = cut(&snapshots, &world);
    assert_eq!(reserved().expect("reserved"), first.bytes * 125 / 100);
    let full_until_it_is_gone = || match path.exists() {
        true => Err(io::Error::from(io::ErrorKind::StorageFull)),
        false => Ok(()),
    };
    snapshots
        .or_without_ballast(full_until_it_is_gone)
        .expect("there is room now");
    let still_full = || Err::<(), _>(io::Error::from(io::ErrorKind::StorageFull));
    assert!(snapshots.or_without_ballast(still_full).is_err());
    world.tick();
    let second = cut(&snapshots, &world);
    assert_eq!(reserved().expect("again"), second.bytes * 125 / 100);
    let broken = || Err::<(), _>(io::Error::other("not for want of space"));
    assert!(snapshots.or_without_ballast(broken).is_err());
    assert!(path.exists(), "it is kept for a full disk");
}

#[test]
fn a_broken_transfer_goes_on_where_it_stopped_also_after_a_restart() {
    let (_dir, leader) = folder();
    let handle = cut(&leader, &world());
    let (dir, follower) = folder();
    let mut receiver = SnapshotReceiver::begin(&follower, &handle.id, handle.bytes).expect("begun");
    receiver
        .write(0, &handle.read_at(0, 1_000).expect("read"))
        .expect("written");
    assert!(
        receiver.write(0, b"again").is_err(),
        "only the next chunk fits"
    );
    assert!(
        receiver
            .write(1_000, &vec![0; handle.bytes as usize])
            .is_err(),
        "more than announced"
    );
    drop(receiver);
    drop(follower);
    let follower = open(dir.path());
    let mut receiver = SnapshotReceiver::begin(&follower, &handle.id, handle.bytes).expect("begun");
    while receiver.received() < handle.bytes {
        let offset = receiver.received();
        receiver
            .write(offset, &handle.read_at(offset, 70_000).expect("read"))
            .expect("written");
    }
    let received = receiver.finish(&follower).expect("whole");
    let published = follower.publish(received).expect("published");
    assert_eq!(
        (published.id.as_str(), published.position()),
        (handle.id.as_str(), handle.position())
    );
    assert!(load(&published, Bounds::default()).is_ok());
}

#[test]
fn a_damaged_transfer_is_refused_and_starts_again_from_nothing() {
    let (_dir, leader) = folder();
    let handle = cut(&leader, &world());
    let (_dir, follower) = folder();
    let mut bytes = handle.read_at(0, usize::MAX).expect("read");
    bytes[2_000] ^= 4;
    let mut receiver = SnapshotReceiver::begin(&follower, &handle.id, handle.bytes).expect("begun");
    receiver.write(0, &bytes).expect("written");
    assert!(receiver.finish(&follower).is_err());
    assert_eq!(
        SnapshotReceiver::begin(&follower, &handle.id, handle.bytes)
            .expect("begun")
            .received(),
        0
    );
    let other_id = "0123456789abcdef0123456789abcdef";
    let mut receiver = SnapshotReceiver::begin(&follower, other_id, handle.bytes).expect("begun");
    receiver
        .write(0, &handle.read_at(0, usize::MAX).expect("read"))
        .expect("written");
    assert!(
        receiver.finish(&follower).is_err(),
        "whole, but not the one that was announced"
    );
    assert!(SnapshotReceiver::begin(&follower, "../../etc/passwd", 1).is_err());
}

/// A whole transfer from another folder, not yet installed.
fn received(snapshots: &Snapshots, handle: &SnapshotHandle) -> SnapshotHandle {
    let mut receiver = SnapshotReceiver::begin(snapshots, &handle.id, handle.bytes).expect("begun");
    if receiver.received() == 0 {
        let whole = handle.read_at(0, usize::MAX).expect("read");
        receiver.write(0, &whole).expect("written");
    }
    receiver.finish(snapshots).expect("whole")
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = paths(dir)
        .expect("listed")
        .iter()
        .map(|path| name_of(path).to_owned())
        .filter(|name| name != BALLAST)
        .collect();
    names.sort();
    names
}

#[test]
fn the_installing_marker_outlives_a_crash_and_goes_when_the_log_is_purged() {
    let (dir, snapshots) = folder();
    let handle = cut(&snapshots, &world());
    let position = handle.position();
    assert_eq!(installing(dir.path()).expect("read"), None);
    snapshots.mark_installing(&handle).expect("marked");
    assert_eq!(
        fs::read_to_string(dir.path().join(INSTALLING)).expect("read"),
        format!("3-{}", position.index),
        "the text is agreed on: a later version reads it"
    );
    let again = open(dir.path());
    assert_eq!(installing(dir.path()).expect("read"), Some(position));
    again.clear_installing().expect("cleared");
    assert_eq!(installing(dir.path()).expect("read"), None);
}

#[test]
fn an_install_needs_no_new_file_and_a_snapshot_nobody_needs_leaves_none() {
    let (_dir, leader) = folder();
    let sent = cut(&leader, &world());
    let (dir, follower) = folder();
    drop(received(&follower, &sent));
    assert_eq!(names(dir.path()), [""; 0], "it was not needed");

    let arrived = received(&follower, &sent);
    let second = received(&follower, &sent);
    drop(arrived);
    let before = names(dir.path());
    assert_eq!(before.len(), 2, "content and marker: {before:?}");
    let adopted = follower.adopt(&second).expect("adopted");
    follower.mark_installing(&adopted).expect("marked");
    follower.publish(adopted).expect("published");
    drop(second);
    assert_eq!(
        names(dir.path()),
        [file_name(sent.position()), INSTALLING.to_owned()]
    );
    assert_eq!(installing(dir.path()).expect("read"), Some(sent.position()));
}

#[test]
fn a_bad_file_is_put_aside_and_two_good_ones_are_kept_beside_it() {
    let (dir, snapshots) = folder();
    let mut world = world();
    let damage = |handle: &SnapshotHandle| {
        let path = dir.path().join(file_name(handle.position()));
        let mut bytes = fs::read(&path).expect("read");
        bytes[100] ^= 1;
        fs::write(&path, bytes).expect("written");
    };
    let mut cut_next = |snapshots: &Snapshots| {
        world.tick();
        cut(snapshots, &world)
    };
    let older = cut_next(&snapshots);
    let bad = cut_next(&snapshots);
    damage(&bad);
    let snapshots = open(dir.path());
    assert_eq!(snapshots.positions(), [older.position()]);
    let newer = cut_next(&snapshots);
    assert_eq!(
        snapshots.positions(),
        [newer.position(), older.position()],
        "the bad one is none of the two"
    );
    let aside = |handle: &SnapshotHandle| format!("{}.bad", file_name(handle.position()));
    assert_eq!(
        names(dir.path()),
        [
            file_name(older.position()),
            aside(&bad),
            file_name(newer.position())
        ]
    );
    damage(&newer);
    open(dir.path());
    assert_eq!(
        names(dir.path()),
        [file_name(older.position()), aside(&newer)],
        "one is enough to look at"
    );
}

#[test]
fn a_file_that_cannot_be_opened_now_is_not_taken_for_a_bad_one() {
    let (dir, snapshots) = folder();
    let path = dir
        .path()
        .join(file_name(cut(&snapshots, &world()).position()));
    fs::remove_file(&path).expect("removed");
    // As with too many open files: it may work next time.
    std::os::unix::fs::symlink(&path, &path).expect("a link to itself");
    assert!(survey(dir.path(), &identity(), Look::Whole).is_err());
}

#[test]
fn a_copy_for_a_snapshot_does_not_change_with_the_state() {
    let mut world = world();
    let copy = frozen(&world);
    let hash = copy.tables.rehash();
    let running = world.claim(claim_of(&["q"], "x", 20));
    for claimed in running {
        world
            .settle(&claimed.task.id.to_string(), claimed.token, complete())
            .expect("settled");
    }
    assert_eq!(copy.tables.rehash(), hash);
    assert_ne!(world.state.hash(), hash);
    assert_eq!(
        world.get("t20").map(|view| view.state),
        Some(TaskState::Completed)
    );
}
