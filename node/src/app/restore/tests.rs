//! Volumes that are filled from a bucket up to any entry and any moment, and buckets that are refused.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::app::crashes::lab::{Lab, scratch};
use crate::app::crashes::member::Rig;
use crate::app::crashes::restores::{Written, is_restored, lineage};
use crate::app::crashes::rewrites::NEW_MEMBER;
use crate::backup::drill::{Drilled, drill, is_same};
use crate::backup::layout::{BackupName, Lineage};
use crate::backup::log::replay::Upto;
use crate::storage::step::Step;
use crate::storage::types::wall_time_ms_of;

/// Restores, and checks that the state is that of this entry.
async fn restored(rig: &Rig, order: &RestoreOrder, index: u64) -> Facts {
    let volume = scratch();
    let facts = rig.restore(volume.path(), order).await.unwrap();
    let last = rig.history.id(index);
    assert_eq!(
        (facts.log_id.term, facts.log_id.index),
        (last.leader_id.term, index)
    );
    let hash = format!("{:032x}", rig.history.hash(Some(last)));
    assert_eq!(facts.state_hash, hash);
    is_restored(rig, volume.path(), index).await.unwrap();
    facts
}

/// Refused with these words; the volume is blank as before.
async fn refused(rig: &Rig, order: &RestoreOrder, words: &str) {
    let volume = scratch();
    let refused = rig.restore(volume.path(), order).await.unwrap_err();
    assert!(refused.is_final(), "{refused}");
    assert!(refused.to_string().contains(words), "{refused}");
    let opened = Volume::open(volume.path()).unwrap();
    assert!(matches!(opened.content(), Ok(Content::Blank)));
}

fn named(order: RestoreOrder, name: &str) -> RestoreOrder {
    let mut order = order;
    order.wanted.backup = Some(BackupName::parse(name).unwrap());
    order
}

fn wall_time_ms(rig: &Rig, index: u64) -> u64 {
    let entry = &rig.history.entries[index as usize];
    wall_time_ms_of(entry).unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_begins_with_what_was_there_at_any_entry_and_at_any_moment() {
    let rig = Rig::new();
    let written = Written::new(&rig.history, &[20, 70], 100).await;
    assert_eq!(
        restored(&rig, &written.order(Upto::Latest), 100)
            .await
            .backup
            .as_str(),
        "b-2"
    );
    for (index, backup) in [
        (20, "b-1"),
        (21, "b-1"),
        (60, "b-1"),
        (69, "b-1"),
        (70, "b-2"),
        (99, "b-2"),
    ] {
        let facts = restored(&rig, &written.order(Upto::Index(index)), index).await;
        assert_eq!(facts.backup.as_str(), backup);
        let moment_ms = wall_time_ms(&rig, index);
        let order = written.order(Upto::WallTimeMs(moment_ms));
        assert_eq!(restored(&rig, &order, index).await.wall_time_ms, moment_ms);
    }
    // An older backup leads to the same end.
    restored(&rig, &named(written.order(Upto::Latest), "b-1"), 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_restored_is_refused_by_name_and_nothing_is_touched() {
    let rig = Rig::new();
    let written = Written::new(&rig.history, &[20, 70], 100).await;
    let latest = || written.order(Upto::Latest);
    let mut other = latest();
    other.wanted.lineage = Lineage::new("c", 2).unwrap();
    refused(&rig, &other, "a backup in ").await;
    refused(
        &rig,
        &named(latest(), "b-3"),
        "/b-3/manifest.json is not there",
    )
    .await;
    refused(
        &rig,
        &written.order(Upto::Index(19)),
        "index must be at least",
    )
    .await;
    refused(
        &rig,
        &written.order(Upto::Index(101)),
        "101.segment is not there",
    )
    .await;
    let early = Upto::WallTimeMs(wall_time_ms(&rig, 20) - 1);
    refused(&rig, &written.order(early), "time must be at least").await;
    let beyond = Upto::WallTimeMs(wall_time_ms(&rig, 69));
    refused(
        &rig,
        &named(written.order(beyond), "b-2"),
        "time must be at least",
    )
    .await;

    let log = written.path().join("c/1/log");
    let hole = log.join("00000000000000000077.segment");
    let kept = fs::read(&hole).expect("a segment starts there");
    fs::remove_file(&hole).unwrap();
    refused(&rig, &latest(), "77.segment is not there").await;
    let mut bad = kept.clone();
    bad[40] ^= 1;
    fs::write(&hole, bad).unwrap();
    refused(&rig, &latest(), "77.segment is damaged").await;
    restored(&rig, &written.order(Upto::Index(76)), 76).await;
    fs::write(&hole, kept).unwrap();

    // What only the newest backup has is not passed over in silence.
    let manifest = written.path().join("c/1/backups/b-2/manifest.json");
    let kept = fs::read(&manifest).unwrap();
    fs::write(&manifest, b"{}").unwrap();
    refused(&rig, &latest(), "/b-2/manifest.json").await;
    restored(&rig, &named(latest(), "b-1"), 100).await;
    fs::write(&manifest, kept).unwrap();
    let part = parts(&written).pop().unwrap();
    let mut bytes = fs::read(&part).unwrap();
    bytes[100] ^= 1;
    fs::write(&part, bytes).unwrap();
    refused(&rig, &latest(), ".part is damaged").await;
}

/// Of the second backup.
fn parts(written: &Written) -> Vec<PathBuf> {
    let backup = written.path().join("c/1/backups/b-2");
    let folders = fs::read_dir(backup)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut folders = folders.filter(|path| path.is_dir());
    let folder = folders.next().expect("the parts");
    let parts = fs::read_dir(folder).unwrap();
    parts.map(|entry| entry.unwrap().path()).collect()
}

/// Leaves nothing behind.
async fn drilled(written: &Written) -> Result<Drilled, Error> {
    let order = written.order(Upto::Latest);
    let bucket = order.from.connect(&order.credentials).await.unwrap();
    let folder = scratch();
    let drilled = drill(&bucket, &lineage(), folder.path(), &Noted::default()).await;
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
    drilled
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_tells_what_a_restore_gives_and_what_it_was_compared_with() {
    let rig = Rig::new();
    let written = Written::new(&rig.history, &[20, 70], 100).await;
    let came_of_it = drilled(&written).await.unwrap();
    let compared = came_of_it.compared.map(|name| name.to_string());
    assert_eq!((compared.as_deref(), came_of_it.gap), (Some("b-1"), None));
    let last = rig.history.id(100);
    let hash = format!("{:032x}", rig.history.hash(Some(last)));
    assert_eq!(came_of_it.restorable.state_hash, hash);

    let only = Written::new(&rig.history, &[20], 41).await;
    let came_of_it = drilled(&only).await.unwrap();
    assert_eq!((came_of_it.compared, came_of_it.gap), (None, None));

    // Without a log there is nothing to compare.
    let other = Written::new(&rig.history, &[20, 69], 100).await;
    let place = "c/1/backups/b-2";
    fs::remove_dir_all(other.path().join("c/1/log")).unwrap();
    let came_of_it = drilled(&other).await.unwrap();
    let gap = came_of_it.gap.expect("there is no log");
    assert!(gap.ends_with("21.segment"), "{gap}");
    let manifest = fs::read(written.path().join(place).join("manifest.json")).unwrap();
    let mut lying: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    lying["snapshot"]["state_hash"] = "0".repeat(32).into();
    fs::write(
        written.path().join(place).join("manifest.json"),
        serde_json::to_vec_pretty(&lying).unwrap(),
    )
    .unwrap();
    let refused = drilled(&written).await.unwrap_err().to_string();
    assert!(
        refused.contains("b-2/manifest.json is damaged"),
        "{refused}"
    );
}

#[test]
fn a_log_that_leads_to_another_state_is_told_from_one_that_leads_to_the_same() {
    let rig = Rig::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let written = runtime.block_on(Written::new(&rig.history, &[20, 70], 100));
    let order = written.order(Upto::Index(70));
    let named = named(order, "b-1");
    let volume = scratch();
    let facts = runtime
        .block_on(rig.restore(volume.path(), &named))
        .unwrap();
    let backup = &written.backups[1];
    assert_eq!(is_same(&facts, backup), Ok(()));
    for change in [
        |facts: &mut Facts| facts.tasks += 1,
        |facts: &mut Facts| facts.log_id.term += 1,
        |facts: &mut Facts| facts.state_hash.replace_range(..1, "x"),
    ] {
        let mut other = facts.clone();
        change(&mut other);
        let told = is_same(&other, backup).unwrap_err();
        assert!(
            told.contains("the log behind b-1 leads to another state"),
            "{told}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_that_fails_at_its_last_step_leaves_a_blank_volume() {
    let rig = Rig::new();
    let written = Written::new(&rig.history, &[20], 41).await;
    for step in [Step::HomeRename, Step::CurrentReplace, Step::CutWrite] {
        let mut lab = Lab::blank(&rig, "failing");
        let recorder = lab.watch();
        recorder.fail_once(step, io::ErrorKind::StorageFull);
        let order = written.order(Upto::Latest);
        let failed = rig.restore(lab.root(), &order).await.unwrap_err();
        assert!(!failed.is_final(), "{failed}");
        lab.recorded();
        let opened = Volume::open(lab.root()).unwrap();
        assert!(matches!(opened.content(), Ok(Content::Blank)), "{step:?}");
        drop(opened);
        rig.restore(lab.root(), &order).await.unwrap();
        is_restored(&rig, lab.root(), 41).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_reports_what_it_was_filled_with_also_when_it_is_started_again() {
    let rig = Rig::new();
    let written = Written::new(&rig.history, &[20], 41).await;
    let volume = scratch();
    let mut config = rig.config_of(volume.path(), NEW_MEMBER);
    config.log_budget_bytes = crate::limits::LOG_BUDGET_BYTES_MIN;
    config.restore = Some(written.order(Upto::Index(99)));
    let run = async |config: &crate::config::Config| {
        config.validate().unwrap();
        let member = rig.member(config.clone());
        let order = config.restore.clone().unwrap();
        super::run(&member, &order).await.unwrap();
        (member.phase(), member.status())
    };
    let (phase, status) = run(&config).await;
    let told = status.restore.unwrap();
    assert_eq!((phase, told.refused), (Phase::Blank, true));
    assert!(
        told.problem.contains("42.segment is not there"),
        "{}",
        told.problem
    );
    config.restore = Some(written.order(Upto::Latest));
    for _ in 0..2 {
        let (phase, status) = run(&config).await;
        assert_eq!((phase, status.initialized), (Phase::Recovering, true));
        let voters = status.raft.unwrap().membership.unwrap().voters;
        assert_eq!(voters, [NEW_MEMBER]);
        let facts = status.restore.unwrap().facts.unwrap();
        let index = facts.log_id.unwrap().index;
        assert_eq!((facts.backup.as_str(), index), ("b-1", 41));
    }
    config.restore.as_mut().unwrap().wanted.lineage = Lineage::new("c", 2).unwrap();
    let same = config.validate().unwrap_err();
    assert!(same.contains("an incarnation below 2"), "{same}");
    assert_eq!(lineage().incarnation, 1);
}
