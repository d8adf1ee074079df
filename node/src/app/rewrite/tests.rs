//! Volumes of every kind that are given to a new member, and those that are not.

use std::fs;
use std::io;
use std::path::Path;

use crate::app::crashes::history::{MEMBER, SECOND_TERM};
use crate::app::crashes::lab::Lab;
use crate::app::crashes::member::{Driver, GEOMETRY, Rig};
use crate::app::crashes::rewrites::{NEW_MEMBER, is_rewritten};
use crate::app::crashes::volume::Tree;
use crate::storage::identity::Volume;
use crate::storage::image;
use crate::storage::snapshot::list;
use crate::storage::step::Step;
use crate::storage::types::Vote;
use crate::task::state::Bounds;

const SNAPSHOTS: &str = "store-1/snapshots";
const IMAGE: &str = "store-1/image";

/// Agrees on so many entries in all.
async fn upto(rig: &Rig, member: &mut Driver, count: u64) {
    let next = member.last().await.map_or(0, |last| last.index + 1);
    member.agree(rig.history.slice(next..count)).await;
}

/// Two snapshots, the log purged behind the older one, the image at the end.
async fn used(rig: &Rig) -> Lab<'_> {
    let lab = Lab::formatted(rig, "");
    let mut member = lab.start().await;
    for count in [10, 20, 30] {
        upto(rig, &mut member, count).await;
        if count < 30 {
            member.cut().await.unwrap();
        }
    }
    member.purge_behind_the_older(&rig.history).await;
    member.keep().await;
    member.stop();
    lab
}

/// Rewrites, and checks what the new member then has and what was reported.
async fn rewritten(rig: &Rig, root: &Path, last: u64, voted: u64) {
    let member = rig.rewrite(root, MEMBER, NEW_MEMBER).await.unwrap();
    let last = rig.history.id(last);
    let status = member.status();
    assert!(status.initialized);
    let identity = status.identity.unwrap();
    assert_eq!((identity.incarnation, identity.member_id), (2, NEW_MEMBER));
    let raft = status.raft.unwrap();
    assert_eq!(
        (raft.term, raft.last_log_index, raft.last_log_term),
        (voted + 1, last.index, last.leader_id.term)
    );
    let membership = raft.membership.unwrap();
    assert!(membership.committed && membership.voters_outgoing.is_empty());
    assert_eq!(
        (membership.voters, membership.learners),
        (vec![NEW_MEMBER], vec![])
    );
    assert_eq!(membership.members[0].name, "m-2");
    is_rewritten(rig, root, last, voted).await.unwrap();
}

/// The former member still has everything.
async fn is_as_before(rig: &Rig, root: &Path, last: u64) {
    let mut former = rig.start_as(root, MEMBER).await.unwrap();
    former.apply_all().await.unwrap();
    let last = rig.history.id(last);
    assert_eq!(former.applied(), Some(last));
    assert_eq!(former.hash(), rig.history.hash(Some(last)));
    assert_eq!(former.task_without_payload().await, None);
    former.stop();
}

/// Refused with these words, and nothing on the volume is changed.
async fn refused(rig: &Rig, root: &Path, from: u64, words: &str) {
    let before = Tree::of(root).id();
    let refused = rig.rewrite(root, from, NEW_MEMBER).await.err();
    let refused = refused.unwrap_or_else(|| panic!("not refused, expected {words:?}"));
    assert!(refused.contains(words), "{refused}");
    assert_eq!(Tree::of(root).id(), before, "{words}");
}

fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_comes_from_the_image_from_a_snapshot_or_from_the_log_alone() {
    let rig = Rig::new();
    let lab = used(&rig).await;
    rewritten(&rig, lab.root(), 29, 1).await;

    let lab = used(&rig).await;
    fs::remove_dir_all(lab.root().join(IMAGE)).unwrap();
    rewritten(&rig, lab.root(), 29, 1).await;

    let lab = used(&rig).await;
    fs::remove_dir_all(lab.root().join(IMAGE)).unwrap();
    damage(&list(&lab.root().join(SNAPSHOTS)).unwrap()[0].path);
    rewritten(&rig, lab.root(), 29, 1).await;

    let lab = used(&rig).await;
    for snapshot in list(&lab.root().join(SNAPSHOTS)).unwrap() {
        damage(&snapshot.path);
    }
    rewritten(&rig, lab.root(), 29, 1).await;

    let lab = Lab::formatted(&rig, "");
    let mut member = lab.start().await;
    upto(&rig, &mut member, SECOND_TERM + 5).await;
    member.stop();
    fs::remove_dir_all(lab.root().join(IMAGE)).unwrap();
    rewritten(&rig, lab.root(), SECOND_TERM + 4, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_enough_where_the_log_holds_nothing_behind_it() {
    let rig = Rig::new();
    let lab = Lab::formatted(&rig, "");
    let mut member = lab.start().await;
    upto(&rig, &mut member, 21).await;
    member.cut().await.unwrap();
    member.purge(rig.history.id(20)).await;
    member.vote(Vote::new(7, 3)).await;
    member.stop();
    fs::remove_dir_all(lab.root().join(IMAGE)).unwrap();
    rewritten(&rig, lab.root(), 20, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaders_snapshot_that_was_being_installed_counts_as_installed() {
    let rig = Rig::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let sent = rig.history.snapshot(elsewhere.path(), 50).await;
    let lab = used(&rig).await;
    let member = lab.start().await;
    let received = member.receive(&sent, usize::MAX).unwrap();
    let snapshots = member.disk.store.snapshots();
    snapshots.mark_installing(&received).unwrap();
    snapshots.publish(received).unwrap();
    member.stop();
    rewritten(&rig, lab.root(), 50, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_knows_to_be_committed_is_kept_but_not_for_the_former_member() {
    let rig = Rig::new();
    let mut lab = used(&rig).await;
    let mut member = lab.start().await;
    member.append(rig.history.slice(30..40)).await;
    member.stop();
    // Half way the former member may be started again: others may yet know better about its tail.
    let recorder = lab.watch();
    recorder.fail_once(Step::HomeRename, io::ErrorKind::Other);
    let refused = rig.rewrite(lab.root(), MEMBER, NEW_MEMBER).await;
    assert!(refused.is_err());
    drop(lab.recorded());
    let former = rig.start_as(lab.root(), MEMBER).await.unwrap();
    let known = rig.history.id(29);
    assert_eq!(former.applied(), Some(known));
    assert_eq!(former.hash(), rig.history.hash(Some(known)));
    former.stop();
    rewritten(&rig, lab.root(), 39, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_may_be_repeated_and_followed_by_another() {
    let rig = Rig::new();
    let lab = used(&rig).await;
    for _ in 0..2 {
        rewritten(&rig, lab.root(), 29, 1).await;
    }
    let before = Tree::of(lab.root()).id();
    rig.rewrite(lab.root(), MEMBER, NEW_MEMBER).await.unwrap();
    assert_eq!(Tree::of(lab.root()).id(), before, "nothing is left to do");
    let third = (4 << 32) + 2;
    let member = rig.rewrite(lab.root(), NEW_MEMBER, third).await.unwrap();
    let raft = member.status().raft.unwrap();
    assert_eq!((raft.term, raft.last_log_index), (3, 29));
    let mut member = rig.start_as(lab.root(), third).await.unwrap();
    assert_eq!(member.disk.home.stamp().log, GEOMETRY);
    assert_eq!(member.last().await, Some(rig.history.id(29)));
    member.stop();
    refused(&rig, lab.root(), MEMBER, "stamped with incarnation 4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_meant_and_whatever_is_damaged_is_left_alone() {
    let rig = Rig::new();
    let lab = Lab::blank(&rig, "");
    drop(Volume::open(lab.root()).unwrap());
    refused(&rig, lab.root(), MEMBER, "Blank").await;

    let lab = used(&rig).await;
    refused(&rig, lab.root(), MEMBER + 1, "member id").await;
    let segment = lab.root().join("store-1/log/segment-0000");
    let whole = fs::read(&segment).unwrap();
    let at = whole.iter().position(|byte| *byte != 0).unwrap() + 40;
    let mut bad = whole.clone();
    bad[at] ^= 1;
    fs::write(&segment, bad).unwrap();
    refused(&rig, lab.root(), MEMBER, "segment 0").await;
    fs::write(&segment, whole).unwrap();
    is_as_before(&rig, lab.root(), 29).await;
    fs::remove_dir_all(lab.root().join(IMAGE)).unwrap();
    for snapshot in list(&lab.root().join(SNAPSHOTS)).unwrap() {
        damage(&snapshot.path);
    }
    refused(&rig, lab.root(), MEMBER, "no good snapshot").await;

    let lab = used(&rig).await;
    let member = lab.start().await;
    member.disk.home.mark_removed().unwrap();
    member.stop();
    refused(&rig, lab.root(), MEMBER, "Removed").await;

    let lab = Lab::formatted(&rig, "");
    refused(&rig, lab.root(), MEMBER, "holds no entry").await;
    let mut member = lab.start().await;
    member.vote(Vote::new(1, 1)).await;
    member.stop();
    refused(&rig, lab.root(), MEMBER, "holds no entry").await;

    for (from, to, words) in [
        (MEMBER, MEMBER, "rewrite-from must be"),
        (NEW_MEMBER, MEMBER, "rewrite-from must be"),
        (1, MEMBER, "rewrite-from must be"),
        (1 << 32, NEW_MEMBER, "rewrite-from must be"),
    ] {
        let refused = rig.rewrite(lab.root(), from, to).await.err().unwrap();
        assert!(refused.contains(words), "{from} {to}: {refused}");
    }
}

async fn has_no_room(rig: &Rig, root: &Path) {
    let refused = rig.rewrite(root, MEMBER, NEW_MEMBER).await.err();
    let said = refused.expect("it is refused");
    assert!(
        said.contains("has no room for a second directory"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_everything_goes_that_can_be_had_again_and_then_nothing_more() {
    let rig = Rig::new();
    let mut lab = used(&rig).await;
    let recorder = lab.watch();
    let full = io::ErrorKind::StorageFull;
    recorder.fail_once(Step::SegmentFill, full);
    recorder.fail_once(Step::CutWrite, full);
    has_no_room(&rig, lab.root()).await;
    let left = list(&lab.root().join(SNAPSHOTS)).unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].position.index, 19);
    assert!(!lab.root().join(IMAGE).exists());
    assert!(
        !lab.root().join("store-2.rewriting").exists(),
        "its space is free"
    );
    recorder.fail_once(Step::CutWrite, full);
    has_no_room(&rig, lab.root()).await;
    assert_eq!(fs::read_dir(lab.root().join(SNAPSHOTS)).unwrap().count(), 1);
    drop(lab.recorded());
    is_as_before(&rig, lab.root(), 29).await;
    rewritten(&rig, lab.root(), 29, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_the_only_base_outlives_a_full_disk() {
    let rig = Rig::new();
    let mut lab = used(&rig).await;
    for snapshot in list(&lab.root().join(SNAPSHOTS)).unwrap() {
        damage(&snapshot.path);
    }
    let recorder = lab.watch();
    recorder.fail_once(Step::CutWrite, io::ErrorKind::StorageFull);
    has_no_room(&rig, lab.root()).await;
    assert_eq!(recorder.times(Step::SpareImageRemove), 0);
    drop(lab.recorded());
    rewritten(&rig, lab.root(), 29, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_the_image_has_lost_is_in_the_snapshot_at_the_next_try() {
    let rig = Rig::new();
    let lab = used(&rig).await;
    let directory = lab.root().join(IMAGE);
    let of_snapshots = rig.snapshot_identity();
    let opened = image::open(&directory, &of_snapshots, Bounds::default());
    let opened = opened.unwrap().expect("a good image");
    let tables = opened.state.tables().clone();
    let mut rows = tables.tasks.values();
    let unfinished = rows.find(|row| row.finished_ms().is_none());
    let seq = unfinished.expect("some are not finished").seq;
    opened.db.put_payload(seq, b"another").unwrap();
    opened.db.flush().unwrap();
    drop(opened);
    let refused = rig.rewrite(lab.root(), MEMBER, NEW_MEMBER).await.err();
    assert!(refused.unwrap().contains("the image is made anew"));
    rewritten(&rig, lab.root(), 29, 1).await;
}
