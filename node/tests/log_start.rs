//! The log and the start of a member on real files: what a restart finds, reads of old entries, an install
//! that was cut off.

#[path = "support/started.rs"]
mod start;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use start::start;
use taskstore::storage::codec::log_id;
use taskstore::storage::identity::{Content, Home, Identity, Volume};
use taskstore::storage::log::disk::SystemDisk;
use taskstore::storage::log::{FatalHook, Geometry};
use taskstore::storage::log_store::{LogOptions, LogStore};
use taskstore::storage::start::{
    Base, FoundOnDisk, SnapshotFacts, StartError, StartOptions, Started,
};
use taskstore::storage::types::{Entry, EntryBytes, TypeConfig, Vote};
use tempfile::TempDir;

const GEOMETRY: Geometry = Geometry {
    segment_bytes: 64 << 10,
    segments: 16,
};

fn identity() -> Identity {
    Identity {
        cluster_id: "c".into(),
        incarnation: 1,
        member_id: 3,
        volume_uid: "v".into(),
    }
}

fn panics() -> FatalHook {
    Arc::new(|what, error| panic!("{what}: {error}"))
}

fn options(ring_bytes_max: usize) -> StartOptions<SystemDisk> {
    let log = LogOptions {
        ring_bytes_max,
        ..LogOptions::default()
    };
    StartOptions {
        log,
        disk: SystemDisk,
        fatal: panics(),
        purged: None,
        wrote: None,
    }
}

fn home(root: &Path) -> Home {
    let volume = Volume::open(root).unwrap();
    match volume.content().unwrap() {
        Content::Blank => volume.format(identity(), GEOMETRY).unwrap(),
        Content::Stamped(home) => home,
    }
}

async fn started(home: &Home, found: FoundOnDisk) -> Started<SystemDisk> {
    start(home, &identity(), found, options(64 << 20))
        .await
        .unwrap()
}

fn entry(term: u64, index: u64) -> Entry {
    let payload = Bytes::from(vec![index as u8; (index % 700) as usize]);
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(EntryBytes(payload)),
    }
}

async fn append(log: &mut LogStore, term: u64, indexes: std::ops::Range<u64>) {
    let (done, on_disk) = TypeConfig::oneshot();
    log.append(
        indexes.map(|index| entry(term, index)),
        IOFlushed::signal(done),
    )
    .await
    .unwrap();
    on_disk.await.unwrap().unwrap();
}

fn good(term: u64, index: u64) -> Option<SnapshotFacts> {
    Some(SnapshotFacts {
        log_id: log_id(term, index),
        bytes: 1,
        good: true,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_answer_finds_the_stamp_on_the_disk() {
    let root = TempDir::new().unwrap();
    let home = home(root.path());
    let mut member = started(&home, FoundOnDisk::default()).await;
    assert_eq!(
        (member.base, home.stamp().is_initialized),
        (Base::Empty, false)
    );
    member.log.save_vote(&Vote::new(1, 3)).await.unwrap();
    assert!(
        home.stamp().is_initialized,
        "a frame that holds only a vote is a frame"
    );
    drop(member);
    let member = started(&home, FoundOnDisk::default()).await;
    assert_eq!(member.base, Base::LogFromStart);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stamped_volume_with_an_empty_log_or_of_another_member_does_not_start() {
    let root = TempDir::new().unwrap();
    let home = home(root.path());
    home.mark_initialized().unwrap();
    let refused = start(&home, &identity(), FoundOnDisk::default(), options(1 << 20)).await;
    assert!(matches!(refused.err(), Some(StartError::Damaged(_))));
    let other = Identity {
        volume_uid: "w".into(),
        ..identity()
    };
    let refused = start(&home, &other, FoundOnDisk::default(), options(1 << 20)).await;
    assert!(
        matches!(refused.err(), Some(StartError::Damaged(reason)) if reason.contains("volume UID"))
    );
    home.mark_removed().unwrap();
    let refused = start(&home, &identity(), FoundOnDisk::default(), options(1 << 20)).await;
    assert!(matches!(refused.err(), Some(StartError::Removed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_finds_committed_as_it_was_noted_but_never_beyond_the_entries() {
    let root = TempDir::new().unwrap();
    let home = home(root.path());
    let mut member = started(&home, FoundOnDisk::default()).await;
    append(&mut member.log, 1, 0..10).await;
    member.log.save_committed(Some(log_id(1, 7))).await.unwrap();
    drop(member);
    let mut member = started(&home, FoundOnDisk::default()).await;
    assert_eq!(
        member.log.read_committed().await.unwrap(),
        Some(log_id(1, 7))
    );
    member
        .log
        .save_committed(Some(log_id(1, 99)))
        .await
        .unwrap();
    assert_eq!(
        member.log.read_committed().await.unwrap(),
        Some(log_id(1, 9))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_install_that_was_cut_off_is_finished_and_drops_the_older_log() {
    let root = TempDir::new().unwrap();
    let home = home(root.path());
    let mut member = started(&home, FoundOnDisk::default()).await;
    // Entries of term 2 were never committed; the snapshot is of term 3 and ends before them.
    append(&mut member.log, 1, 0..20).await;
    append(&mut member.log, 2, 20..60).await;
    drop(member);
    let found = FoundOnDisk {
        newest: good(3, 40),
        older: None,
        installing: Some(log_id(3, 40)),
        image: None,
    };
    let mut member = started(&home, found).await;
    assert!(member.clear_installing);
    assert_eq!(member.base, Base::NewestSnapshot);
    let state = member.log.get_log_state().await.unwrap();
    assert_eq!(
        (state.last_purged_log_id, state.last_log_id),
        (Some(log_id(3, 40)), Some(log_id(3, 40)))
    );
    append(&mut member.log, 3, 41..45).await;
    drop(member);
    let found = FoundOnDisk {
        installing: None,
        ..found
    };
    let mut member = started(&home, found).await;
    let entries = member.log.try_get_log_entries(..).await.unwrap();
    assert_eq!(
        entries,
        (41..45).map(|index| entry(3, index)).collect::<Vec<_>>()
    );
    drop(member);
    let lost = FoundOnDisk {
        newest: good(3, 45),
        ..found
    };
    assert!(matches!(
        start(&home, &identity(), lost, options(1 << 20))
            .await
            .err(),
        Some(StartError::Damaged(_))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_purge_point_and_the_time_of_each_flush_are_told() {
    let root = TempDir::new().unwrap();
    let home = home(root.path());
    let told = Arc::new(Mutex::new(Vec::new()));
    let noted = told.clone();
    let purged = Arc::new(move |to| {
        noted.lock().unwrap().push(to);
        Ok(())
    });
    let flushes = Arc::new(AtomicU64::new(0));
    let counted = flushes.clone();
    let options = StartOptions {
        purged: Some(purged),
        wrote: Some(Arc::new(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        })),
        ..options(1 << 20)
    };
    let mut member = start(&home, &identity(), FoundOnDisk::default(), options)
        .await
        .unwrap();
    append(&mut member.log, 1, 0..9).await;
    member.log.purge(log_id(1, 4)).await.unwrap();
    assert_eq!(*told.lock().unwrap(), [log_id(1, 4)]);
    // An empty frame may follow each of the two.
    assert!((2..=4).contains(&flushes.load(Ordering::Relaxed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mark_of_the_last_frame_keeps_its_golden_bytes() {
    let root = TempDir::new().unwrap();
    let home = home(root.path());
    let mut member = started(&home, FoundOnDisk::default()).await;
    member.log.save_vote(&Vote::new(1, 3)).await.unwrap();
    member.log.close();
    let file = std::fs::read(home.log_directory().join("synced")).unwrap();
    // Of frame 2, the empty one behind the vote, in generation 1.
    let golden = concat!("01000000", "0200000000000000", "00000000", "e798586d");
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!((file.len(), file[0]), (8192, 1));
    assert!(file[1..492].iter().all(|byte| *byte == 0));
    assert_eq!(hex(&file[492..512]), golden);
    assert!(file[512..].iter().all(|byte| *byte == 0));
}

/// A ring of 8 KiB, so that nearly everything is read from the files while the log is appended to,
/// truncated and purged, its segments going round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_every_entry_once_and_whole_while_the_log_goes_round() {
    let root = TempDir::new().unwrap();
    let home = home(root.path());
    let mut member = start(&home, &identity(), FoundOnDisk::default(), options(8 << 10))
        .await
        .unwrap();
    let last = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..3u64)
        .map(|reader| {
            let (mut log, last) = (member.log.clone(), last.clone());
            tokio::spawn(async move {
                let mut read = 0;
                loop {
                    let end = last.load(Ordering::Acquire);
                    if end == u64::MAX {
                        return read;
                    }
                    let start = end.saturating_sub(fastrand::u64(0..400 + reader));
                    let entries = match reader {
                        0 => log.try_get_log_entries(start..end).await.unwrap(),
                        1 => log.limited_get_log_entries(start, end).await.unwrap(),
                        _ => {
                            let stream = log.entries_stream(start..end).await;
                            futures::TryStreamExt::try_collect(stream).await.unwrap()
                        }
                    };
                    let Some(first) = entries.first().map(|entry| entry.log_id.index) else {
                        let state = log.get_log_state().await.unwrap();
                        let purged = state.last_purged_log_id.map_or(0, |id| id.index + 1);
                        assert!(start == end || purged >= end, "{start}..{end} is there");
                        tokio::task::yield_now().await;
                        continue;
                    };
                    for (found, index) in entries.iter().zip(first..) {
                        assert_eq!(*found, entry(found.log_id.leader_id.term, index));
                    }
                    // Only the limited reader may stop early.
                    let stopped = first + entries.len() as u64;
                    assert!(
                        first >= start && (stopped == end || reader == 1 && stopped < end),
                        "{start}..{end}: {first}..{stopped}"
                    );
                    read += entries.len();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let (mut next, mut term) = (0, 1);
    for round in 0..400u64 {
        append(&mut member.log, term, next..next + 1 + round % 23).await;
        next += 1 + round % 23;
        if round % 50 == 49 {
            // Readers only ask for what stays.
            append(&mut member.log, term, next..next + 5).await;
            member
                .log
                .truncate_after(Some(log_id(term, next - 1)))
                .await
                .unwrap();
            term += 1;
        }
        last.store(next, Ordering::Release);
        if round % 20 == 19 {
            member
                .log
                .purge(log_id(term - u64::from(round % 50 == 49), next - 100))
                .await
                .unwrap();
        }
    }
    last.store(u64::MAX, Ordering::Release);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    let state = member.log.get_log_state().await.unwrap();
    let found = member.log.try_get_log_entries(..).await.unwrap();
    assert_eq!(
        found.len() as u64,
        next - 1 - state.last_purged_log_id.unwrap().index
    );
    drop(member);
    let newest = state.last_log_id.map(|log_id| SnapshotFacts {
        log_id,
        bytes: 1,
        good: true,
    });
    let found_snapshots = FoundOnDisk {
        newest,
        ..FoundOnDisk::default()
    };
    let mut member = started(&home, found_snapshots).await;
    assert_eq!(member.log.try_get_log_entries(..).await.unwrap(), found);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limited_reads_stop_at_the_cap_but_give_at_least_one_entry() {
    let root = TempDir::new().unwrap();
    let volume = Volume::open(root.path()).unwrap();
    let home = volume
        .format(identity(), Geometry::for_budget(48 << 20))
        .unwrap();
    let mut member = started(&home, FoundOnDisk::default()).await;
    let large = |index: u64, bytes: usize| Entry {
        log_id: log_id(1, index),
        payload: EntryPayload::Normal(EntryBytes(Bytes::from(vec![1; bytes]))),
    };
    let (done, on_disk) = TypeConfig::oneshot();
    let entries = vec![
        large(0, 4_000_000),
        large(1, 600_000),
        large(2, 600_000),
        large(3, 10),
    ];
    member
        .log
        .append(entries, IOFlushed::signal(done))
        .await
        .unwrap();
    on_disk.await.unwrap().unwrap();
    let too_large = vec![large(4, 5 << 20)];
    assert!(
        member
            .log
            .append(too_large, IOFlushed::noop())
            .await
            .is_err()
    );
    for from_files in [false, true] {
        if from_files {
            drop(member);
            member = started(&home, FoundOnDisk::default()).await;
        }
        let mut counts = Vec::new();
        for start in 0..4 {
            counts.push(
                member
                    .log
                    .limited_get_log_entries(start, 4)
                    .await
                    .unwrap()
                    .len(),
            );
        }
        assert_eq!(counts, [1, 1, 2, 1], "from files: {from_files}");
        assert_eq!(member.log.try_get_log_entries(0..4).await.unwrap().len(), 4);
    }
}
