//! What happens to a member while it is crashed.

use std::fs;
use std::io;

use super::history::SECOND_TERM;
use super::lab::{Lab, Report, scratch};
use super::member::{GEOMETRY, Rig};
use super::promises::{Life, Promises};
use super::restores::restore;
use super::rewrites::{rewrite, rewrite_of_an_image, rewrite_on_a_full_disk};
use super::volume::{Image, Tree};
use crate::storage::snapshot::list;
use crate::storage::step::Step;
use crate::storage::types::Vote;

/// Runs one scenario only.
pub const ONLY: &str = "CRASH_SCENARIO";

pub async fn run_all() -> Report {
    let rig = Rig::new();
    let mut report = Report::default();
    let only = std::env::var(ONLY).ok();
    macro_rules! run {
        ($($scenario:ident),* $(,)?) => {$(
            if only.as_deref().is_none_or(|only| only == stringify!($scenario)) {
                $scenario(&rig, &mut report).await;
            }
        )*};
    }
    run!(
        format,
        format_of_a_half_made_volume,
        first_frames,
        load,
        votes_and_truncations,
        cuts_on_a_bad_disk,
        transfer,
        transfer_nobody_needs,
        install_over_a_shorter_log,
        install_over_strays,
        install_from_elsewhere,
        torn_tail,
        bad_newest_snapshot,
        full_log,
        removal,
        image,
        rewrite,
        rewrite_of_an_image,
        rewrite_on_a_full_disk,
        restore,
    );
    report
}

async fn format(rig: &Rig, report: &mut Report) {
    let mut lab = Lab::blank(rig, "format");
    lab.promises.lock().unwrap().lives = vec![Life::Blank, Life::Member];
    lab.watch();
    rig.format_if_blank(lab.root()).unwrap();
    lab.promises.lock().unwrap().lives = vec![Life::Member];
    lab.start().await.stop();
    lab.finish(report).await;
}

async fn format_of_a_half_made_volume(rig: &Rig, report: &mut Report) {
    let mut first = Lab::blank(rig, "");
    first.watch();
    rig.format_if_blank(first.root()).unwrap();
    let recorded = first.recorded();
    let half = recorded.tree(Step::HomeRename, false);
    let ordered = Promises {
        lives: vec![Life::Blank, Life::Member],
        ..Promises::of(Life::Blank)
    };
    let mut lab = Lab::with(rig, "format of a half-made volume", half, ordered);
    lab.watch();
    rig.format_if_blank(lab.root()).unwrap();
    lab.finish(report).await;
}

/// The stamp says so once there are frames.
async fn first_frames(rig: &Rig, report: &mut Report) {
    let mut lab = Lab::formatted(rig, "first frames");
    lab.watch();
    let mut member = lab.start().await;
    member.vote(Vote::new_committed(1, 1)).await;
    member.agree(rig.history.slice(0..3)).await;
    member.stop();
    lab.start().await.stop();
    lab.finish(report).await;
}

/// Segments are used again, snapshots are cut and the log is purged behind the older one.
async fn load(rig: &Rig, report: &mut Report) {
    let mut lab = Lab::formatted(rig, "load");
    let recorder = lab.watch();
    let mut member = lab.start().await;
    let mut next = 0;
    while next < 130 {
        let count = 1 + next % 3;
        member.agree(rig.history.slice(next..next + count)).await;
        next += count;
        if next % 9 == 0 {
            member.cut().await.unwrap();
            member.purge_behind_the_older(&rig.history).await;
        }
    }
    member.stop();
    let begun = recorder.times(Step::NextSegmentSync);
    assert!(begun > GEOMETRY.segments as usize, "{begun} segments begun");
    lab.finish(report).await;
}

async fn votes_and_truncations(rig: &Rig, report: &mut Report) {
    let mut lab = Lab::formatted(rig, "votes and truncations");
    let mut member = lab.start().await;
    member.vote(Vote::new_committed(1, 1)).await;
    member.agree(rig.history.slice(0..SECOND_TERM)).await;
    lab.watch();
    member.append(rig.history.stray(3)).await;
    member.vote(Vote::new(2, 2)).await;
    member.vote(Vote::new_committed(2, 2)).await;
    let agreed = rig.history.id(SECOND_TERM - 1);
    member.truncate_after(agreed).await;
    member
        .agree(rig.history.slice(SECOND_TERM..SECOND_TERM + 4))
        .await;
    member.stop();
    lab.finish(report).await;
}

/// A full disk takes the ballast, another error only delays the cut.
async fn cuts_on_a_bad_disk(rig: &Rig, report: &mut Report) {
    let mut lab = Lab::formatted(rig, "cuts on a bad disk");
    let mut member = lab.start().await;
    member.agree(rig.history.slice(0..20)).await;
    member.cut().await.unwrap();
    let recorder = lab.watch();
    member.agree(rig.history.slice(20..24)).await;
    recorder.fail_once(Step::CutSync, io::ErrorKind::Other);
    member.cut().await.unwrap_err();
    recorder.fail_once(Step::CutWrite, io::ErrorKind::StorageFull);
    member.cut().await.unwrap();
    member.agree(rig.history.slice(24..28)).await;
    recorder.fail_once(Step::BallastReserve, io::ErrorKind::StorageFull);
    member.cut().await.unwrap();
    member.purge_behind_the_older(&rig.history).await;
    member.stop();
    lab.finish(report).await;
}

/// It breaks off, goes on after a restart, was damaged meanwhile, and begins anew.
async fn transfer(rig: &Rig, report: &mut Report) {
    let leader = scratch();
    let older = rig.history.snapshot(&leader.path().join("a"), 70).await;
    let sent = rig.history.snapshot(&leader.path().join("b"), 90).await;
    let mut lab = Lab::formatted(rig, "transfer");
    lab.sent = Some(sent.clone());
    let mut member = lab.start().await;
    member.agree(rig.history.slice(0..20)).await;
    lab.watch();
    assert!(member.receive(&older, 2).is_none());
    assert!(member.receive(&sent, 2).is_none());
    member.stop();
    let member = lab.start().await;
    assert!(member.receive(&sent, 2).is_none());
    member.stop();
    lab.finish(report).await;
}

async fn transfer_nobody_needs(rig: &Rig, report: &mut Report) {
    let leader = scratch();
    let sent = rig.history.snapshot(leader.path(), 90).await;
    let mut lab = Lab::formatted(rig, "transfer nobody needs");
    lab.sent = Some(sent.clone());
    let mut member = lab.start().await;
    member.agree(rig.history.slice(0..20)).await;
    assert!(member.receive(&sent, 2).is_none());
    member.stop();
    // Bytes that never reached the disk.
    let names = fs::read_dir(lab.snapshots_directory()).unwrap();
    let paths: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
    let half = paths
        .iter()
        .find(|path| path.extension().is_some_and(|is| is == "tmp"));
    let half = half.expect("a half transfer");
    let bytes = fs::read(half).unwrap().len();
    fs::write(half, vec![0; bytes]).unwrap();
    lab.watch();
    let member = lab.start().await;
    let received = member.receive(&sent, usize::MAX).expect("anew");
    drop(received);
    member.stop();
    lab.finish(report).await;
}

async fn install(rig: &Rig, name: &'static str, strays: u64, upto: u64, report: &mut Report) {
    let leader = scratch();
    let sent = rig.history.snapshot(leader.path(), upto).await;
    let mut lab = Lab::formatted(rig, name);
    lab.sent = Some(sent.clone());
    let mut member = lab.start().await;
    member.agree(rig.history.slice(0..30)).await;
    member.cut().await.unwrap();
    member.agree(rig.history.slice(30..SECOND_TERM)).await;
    if strays > 0 {
        member.append(rig.history.stray(strays)).await;
    }
    lab.watch();
    let received = member.receive(&sent, usize::MAX).expect("all of it");
    member.install(&rig.history, received).await;
    member.agree(rig.history.slice(upto + 1..upto + 4)).await;
    member.stop();
    lab.start().await.stop();
    lab.finish(report).await;
}

async fn install_over_a_shorter_log(rig: &Rig, report: &mut Report) {
    install(rig, "install over a shorter log", 0, 90, report).await;
}

async fn install_over_strays(rig: &Rig, report: &mut Report) {
    install(rig, "install over strays", 8, SECOND_TERM + 3, report).await;
}

/// A file of another folder is copied first.
async fn install_from_elsewhere(rig: &Rig, report: &mut Report) {
    let leader = scratch();
    let sent = rig.history.snapshot(leader.path(), 90).await;
    let mut lab = Lab::formatted(rig, "install from elsewhere");
    let mut member = lab.start().await;
    member.agree(rig.history.slice(0..SECOND_TERM)).await;
    lab.watch();
    member.install(&rig.history, sent).await;
    member.stop();
    lab.finish(report).await;
}

/// The first sectors of the last frame reached the disk, the others did not.
async fn torn_tail(rig: &Rig, report: &mut Report) {
    let mut first = Lab::formatted(rig, "");
    let mut member = first.start().await;
    member.agree(rig.history.slice(0..9)).await;
    let before = first.promises.lock().unwrap().clone();
    first.watch();
    member.append(rig.history.slice(9..20)).await;
    member.stop();
    let recorded = first.recorded();
    let (whole, not_yet) = (
        recorded.tree(Step::FrameWrite, true),
        recorded.tree(Step::FrameWrite, false),
    );
    let mut lab = Lab::with(rig, "torn tail", not_yet, before);
    let (path, new, old) = whole.changed(not_yet).remove(0);
    let mut torn = old.to_vec();
    let at = (0..new.len()).find(|at| new[*at] != old[*at]).unwrap() / 512 * 512;
    torn[at..at + 512].copy_from_slice(&new[at..at + 512]);
    fs::write(lab.root().join(path), torn).unwrap();
    lab.watch();
    lab.start().await.stop();
    lab.finish(report).await;
}

/// The newest snapshot does not verify, and there is one from before beside it.
async fn bad_newest_snapshot(rig: &Rig, report: &mut Report) {
    let mut lab = Lab::formatted(rig, "bad newest snapshot");
    let mut next = 0;
    for _ in 0..2 {
        let mut member = lab.start().await;
        for _ in 0..2 {
            member.agree(rig.history.slice(next..next + 10)).await;
            member.cut().await.unwrap();
            next += 10;
        }
        member.stop();
        let newest = list(&lab.snapshots_directory()).unwrap().remove(0);
        let mut bytes = fs::read(&newest.path).unwrap();
        bytes[100] ^= 1;
        fs::write(&newest.path, bytes).unwrap();
        fs::write(lab.snapshots_directory().join("cut.tmp"), b"half").unwrap();
    }
    let good = lab.promises.lock().unwrap().snapshots[0][1];
    lab.promises.lock().unwrap().snapshots = vec![vec![good]];
    lab.watch();
    lab.start().await.stop();
    lab.finish(report).await;
}

/// The start cuts a snapshot and purges before Raft would run.
async fn full_log(rig: &Rig, report: &mut Report) {
    let mut lab = Lab::formatted(rig, "full log");
    let mut member = lab.start().await;
    let mut next = 0;
    while !member.disk.log.disk().unwrap().is_high() {
        member.agree(rig.history.slice(next..next + 1)).await;
        next += 1;
    }
    member.stop();
    let twin = Lab::with(rig, "", &Tree::of(lab.root()), Promises::of(Life::Member));
    let cut = twin.start().await;
    let cut_to = cut.disk.store.snapshots().positions();
    assert_eq!(cut_to.len(), 1);
    cut.stop();
    lab.promises.lock().unwrap().snapshots.push(cut_to);
    lab.watch();
    let member = lab.start().await;
    assert!(!member.disk.log.disk().unwrap().is_high());
    member.stop();
    lab.finish(report).await;
}

async fn removal(rig: &Rig, report: &mut Report) {
    let mut lab = Lab::formatted(rig, "removal");
    let mut member = lab.start().await;
    member.agree(rig.history.slice(0..5)).await;
    lab.promises.lock().unwrap().lives = vec![Life::Member, Life::Removed];
    lab.watch();
    member.disk.home.mark_removed().unwrap();
    lab.promises.lock().unwrap().lives = vec![Life::Removed];
    member.stop();
    lab.finish(report).await;
}

/// Batches, a snapshot cut from the image, and a start from it.
async fn image(rig: &Rig, report: &mut Report) {
    let mut lab = Lab::formatted(rig, "image");
    lab.image = Image::Left;
    lab.watch();
    let mut next = 0;
    for _ in 0..2 {
        let mut member = lab.start().await;
        for _ in 0..2 {
            member.agree(rig.history.slice(next..next + 8)).await;
            member.keep().await;
            next += 8;
        }
        member.cut().await.unwrap();
        member.agree(rig.history.slice(next..next + 3)).await;
        next += 3;
        member.stop();
    }
    lab.finish(report).await;
}
