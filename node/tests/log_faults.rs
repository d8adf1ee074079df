//! The fault table of the log, on files: whatever happens to them, no acknowledged entry is lost in
//! silence, and each case ends as it must: whole, torn and cut, or damage.

#[path = "support/faults.rs"]
#[allow(dead_code, reason = "the power cuts of a cluster use the rest")]
mod faults;
#[path = "support/log_model.rs"]
mod log_model;
#[path = "support/started.rs"]
mod start;
#[path = "support/tally.rs"]
#[allow(dead_code, reason = "the other damage trials use the rest")]
mod tally;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use faults::{Fail, FaultDisk, Image, read_image, scratch, write_image};
use log_model::{Driver, End, Model, Operation, SALT, open_and_compare};
use openraft::EntryPayload;
use openraft::storage::RaftLogStorage;
use start::start;
use tally::Tally;
use taskstore::storage::codec::log_id;
use taskstore::storage::identity::{Identity, Volume};
use taskstore::storage::log::disk::SystemDisk;
use taskstore::storage::log::frame::{Found, check, sectors_at};
use taskstore::storage::log::recovery::recover;
use taskstore::storage::log::sector::{SECTOR_BYTES, SECTOR_DATA_BYTES, Sector, classify};
use taskstore::storage::log::{Geometry, LogHooks};
use taskstore::storage::log_store::{LogOptions, LogStore};
use taskstore::storage::start::{FoundOnDisk, StartOptions};
use taskstore::storage::types::{Entry, EntryBytes, Vote};

const GEOMETRY: Geometry = Geometry {
    segment_bytes: 8 << 10,
    segments: 8,
};
/// A purge this close to the end keeps a log of this size from filling up.
const USED_BYTES_MAX: u64 = 4 * (8 << 10);
const NEVER: Duration = Duration::from_secs(3600);

fn seed() -> u64 {
    tally::seed("LOG_FAULTS_SEED")
}

/// How the log's trials ended.
#[derive(Default)]
struct Ends(Tally);

impl Ends {
    fn note(&mut self, name: &str, end: End, expected: &[&str]) {
        let row = match &end {
            End::Holds { torn_frames: 0, .. } => "whole",
            End::Holds { .. } => "torn",
            End::Damage(_) => "damage",
            End::Silent(_) => "silent",
        };
        let wrong = || format!("{name}: {end:?}, expected {expected:?}");
        let wrong = (!expected.contains(&row)).then(wrong);
        self.0.note(row, row == "silent", wrong);
    }

    fn finish(self, what: &str) {
        let Tally {
            trials,
            silent,
            rows,
            ..
        } = &self.0;
        println!("log faults: trials={trials} silent={silent} ({what}: {rows:?})");
        self.0.check();
    }
}

async fn random_operations(
    driver: &mut Driver,
    rng: &mut fastrand::Rng,
    count: usize,
) -> std::io::Result<()> {
    for _ in 0..count {
        let mut term = driver.term;
        let mut operation = driver.state().random(rng, &mut term);
        if driver.log.disk()?.used_bytes > USED_BYTES_MAX
            && let Some(last) = driver.state().last
        {
            operation = Operation::Purge(last);
        }
        driver.term = term;
        driver.run(operation).await?;
        if rng.bool() {
            driver.acked().await?;
        }
    }
    driver.acked().await
}

/// A log over several segments with every kind of frame, closed with or without a last empty frame.
async fn reference(rng: &mut fastrand::Rng, quiet: Duration, is_closed: bool) -> (Image, Model) {
    let directory = scratch();
    let disk = FaultDisk::new(directory.path(), 0, 0);
    let options = LogOptions {
        quiet,
        mark_every: NEVER,
        ..LogOptions::default()
    };
    let mut driver = Driver::new(directory.path(), GEOMETRY, disk, options);
    random_operations(&mut driver, rng, 40).await.unwrap();
    let entries = driver.state().random_entries(rng, driver.term);
    driver.run(Operation::Append(entries)).await.unwrap();
    driver.acked().await.unwrap();
    let state = driver.state().clone();
    if is_closed {
        driver.log.close();
    }
    (read_image(directory.path()), state)
}

/// A frame in use: segment file, first sector, sectors.
#[derive(Debug, Clone, Copy)]
struct At {
    slot: usize,
    sector: usize,
    sectors: usize,
}

/// All frames that the newest one says are in use, in order.
fn frames(image: &Image) -> Vec<At> {
    let mut frames = Vec::new();
    let mut oldest = 1;
    let mut generations = BTreeMap::new();
    for (slot, bytes) in image.split_last().unwrap().1.iter().enumerate() {
        if let Sector::Good { generation, .. } = classify(&bytes[..SECTOR_BYTES], SALT) {
            generations.insert(generation, slot);
        }
    }
    for (generation, slot) in &generations {
        let mut sector = 0;
        while sector < GEOMETRY.sectors() {
            let rest = &image[*slot][sector * SECTOR_BYTES..];
            let Sector::Good { sequence, .. } = classify(&rest[..SECTOR_BYTES], SALT) else {
                break;
            };
            let sectors = sectors_at(rest, SALT);
            let Found::Frame { header, .. } =
                check(&rest[..sectors * SECTOR_BYTES], SALT, *generation, sequence)
            else {
                break;
            };
            oldest = header.oldest;
            frames.push((
                *generation,
                At {
                    slot: *slot,
                    sector,
                    sectors,
                },
            ));
            sector += sectors;
        }
    }
    frames
        .into_iter()
        .filter(|(generation, _)| *generation >= oldest)
        .map(|(_, at)| at)
        .collect()
}

fn sector_mut(image: &mut Image, slot: usize, sector: usize) -> &mut [u8] {
    &mut image[slot][sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES]
}

async fn compare(image: &Image, state: &Model) -> End {
    let directory = write_image(image);
    open_and_compare(directory.path(), GEOMETRY, 0, std::slice::from_ref(state)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_at_any_frame_loses_an_acknowledged_entry_in_silence() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let mut tally = Ends::default();
    let mut stale_seen = 0;
    for _ in 0..3 {
        let (image, state) = reference(&mut rng, Duration::from_millis(20), true).await;
        tally.note("untouched", compare(&image, &state).await, &["whole"]);
        let frames = frames(&image);
        let last = frames.len() - 1;
        let (zeros, stale) = unused(&image, &frames);
        stale_seen += stale.len();
        for (number, at) in frames.iter().enumerate() {
            let name = |what: &str| format!("{what} at {at:?}, frame {number} of {last}");
            for sector in at.sector..at.sector + at.sectors {
                let mut flipped = image.clone();
                sector_mut(&mut flipped, at.slot, sector)[rng.usize(0..SECTOR_BYTES)] ^=
                    1 << rng.u32(0..8);
                tally.note(
                    &name("bit flip"),
                    compare(&flipped, &state).await,
                    &["damage"],
                );

                let mut zeroed = image.clone();
                sector_mut(&mut zeroed, at.slot, sector).fill(0);
                tally.note(
                    &name("zeroed sector"),
                    compare(&zeroed, &state).await,
                    &["damage"],
                );

                let other = frames[rng.usize(0..frames.len())];
                let (slot, with) = (other.slot, other.sector + rng.usize(0..other.sectors));
                if (slot, with) != (at.slot, sector) {
                    let mut swapped = image.clone();
                    let mine = sector_mut(&mut swapped, at.slot, sector).to_vec();
                    let theirs = sector_mut(&mut swapped, slot, with).to_vec();
                    sector_mut(&mut swapped, at.slot, sector).copy_from_slice(&theirs);
                    sector_mut(&mut swapped, slot, with).copy_from_slice(&mine);
                    tally.note(
                        &name("swapped sectors"),
                        compare(&swapped, &state).await,
                        &["damage"],
                    );
                }
            }
            let mut zeroed = image.clone();
            (at.sector..at.sector + at.sectors)
                .for_each(|sector| sector_mut(&mut zeroed, at.slot, sector).fill(0));
            tally.note(
                &name("zeroed frame"),
                compare(&zeroed, &state).await,
                &["damage"],
            );

            let mut zeroed = image.clone();
            (at.sector..GEOMETRY.sectors())
                .for_each(|sector| sector_mut(&mut zeroed, at.slot, sector).fill(0));
            tally.note(
                &name("zeroed from here"),
                compare(&zeroed, &state).await,
                &["damage"],
            );

            let mut truncated = image.clone();
            truncated[at.slot].truncate(at.sector * SECTOR_BYTES + rng.usize(0..SECTOR_BYTES));
            tally.note(
                &name("truncated file"),
                compare(&truncated, &state).await,
                &["damage"],
            );
            truncated[at.slot].resize(GEOMETRY.segment_bytes as usize, 0);
            tally.note(
                &name("truncated file, long again"),
                compare(&truncated, &state).await,
                &["damage"],
            );

            for (what, others) in [("zero", &zeros), ("stale", &stale)] {
                let Some((slot, with)) = rng.choice(others).copied() else {
                    continue;
                };
                let sector = at.sector + rng.usize(0..at.sectors);
                let mut swapped = image.clone();
                let mine = sector_mut(&mut swapped, at.slot, sector).to_vec();
                let theirs = sector_mut(&mut swapped, slot, with).to_vec();
                sector_mut(&mut swapped, at.slot, sector).copy_from_slice(&theirs);
                sector_mut(&mut swapped, slot, with).copy_from_slice(&mine);
                tally.note(
                    &name(&format!("swapped with a {what} sector")),
                    compare(&swapped, &state).await,
                    &["damage"],
                );
            }
        }
        for slot in 0..image.len() - 1 {
            let directory = write_image(&image);
            fs::remove_file(directory.path().join(format!("segment-{slot:04}"))).unwrap();
            tally.note(
                "missing segment",
                ends(directory.path(), &state).await,
                &["damage"],
            );
            for other in 0..slot {
                if image[slot] != image[other] {
                    let mut swapped = image.clone();
                    swapped.swap(slot, other);
                    tally.note(
                        "swapped segments",
                        compare(&swapped, &state).await,
                        &["damage"],
                    );
                }
            }
        }
        let directory = write_image(&image);
        fs::copy(
            directory.path().join("segment-0000"),
            directory.path().join("segment-0008"),
        )
        .unwrap();
        tally.note(
            "extra segment",
            ends(directory.path(), &state).await,
            &["damage"],
        );

        let mark = image.len() - 1;
        for sector in [0, 8] {
            let mut flipped = image.clone();
            sector_mut(&mut flipped, mark, sector)[rng.usize(0..SECTOR_BYTES)] ^= 1;
            // A bit in the half that was never written makes it one that does not match.
            tally.note(
                "bit flip in the mark",
                compare(&flipped, &state).await,
                &["damage"],
            );
            let mut zeroed = image.clone();
            sector_mut(&mut zeroed, mark, sector).fill(0);
            tally.note("zeroed mark", compare(&zeroed, &state).await, &["whole"]);
        }
        let directory = write_image(&image);
        fs::remove_file(directory.path().join("synced")).unwrap();
        tally.note(
            "missing mark",
            ends(directory.path(), &state).await,
            &["damage"],
        );
    }
    assert!(stale_seen > 0, "no segment was ever purged");
    tally.finish("files");
}

/// Sectors by file and number.
type Places = Vec<(usize, usize)>;

/// Sectors outside the frames: zeros, and what is left of purged frames.
fn unused(image: &Image, frames: &[At]) -> (Places, Places) {
    let in_frame = |slot: usize, sector: usize| {
        frames
            .iter()
            .any(|at| at.slot == slot && (at.sector..at.sector + at.sectors).contains(&sector))
    };
    let (mut zeros, mut stale) = (Vec::new(), Vec::new());
    for (slot, bytes) in image.split_last().unwrap().1.iter().enumerate() {
        for (number, sector) in bytes.chunks_exact(SECTOR_BYTES).enumerate() {
            match classify(sector, SALT) {
                Sector::Zero => zeros.push((slot, number)),
                Sector::Good { .. } if !in_frame(slot, number) => stale.push((slot, number)),
                _ => {}
            }
        }
    }
    (zeros, stale)
}

async fn ends(directory: &Path, state: &Model) -> End {
    open_and_compare(directory, GEOMETRY, 0, std::slice::from_ref(state)).await
}

/// Within 20 ms of its fsync the last frame has no successor yet: I5's window. Changed bits are damage
/// even there; only sectors that look missing are taken for a torn frame, and that is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inside_the_window_of_i5_only_missing_sectors_look_torn() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let mut tally = Ends::default();
    for _ in 0..10 {
        let (image, state) = reference(&mut rng, NEVER, false).await;
        let at = *frames(&image).last().unwrap();
        for sector in at.sector..at.sector + at.sectors {
            let mut flipped = image.clone();
            sector_mut(&mut flipped, at.slot, sector)[rng.usize(0..SECTOR_BYTES)] ^=
                1 << rng.u32(0..8);
            tally.note("bit flip", compare(&flipped, &state).await, &["damage"]);
            let mut zeroed = image.clone();
            sector_mut(&mut zeroed, at.slot, sector).fill(0);
            let directory = write_image(&zeroed);
            let recovered = recover(directory.path(), GEOMETRY, SALT, SystemDisk).unwrap();
            assert_eq!(recovered.torn_frames, u32::from(at.sectors > 1));
        }
    }
    tally.finish("window");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_power_cut_loses_what_was_acknowledged_or_looks_like_damage() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let mut tally = Ends::default();
    for round in 0..12 {
        let directory = scratch();
        let disk = FaultDisk::new(directory.path(), rng.u64(..), 4);
        // Both with empty frames between operations and without.
        let quiet = if round % 2 == 0 {
            Duration::ZERO
        } else {
            NEVER
        };
        let options = LogOptions {
            quiet,
            mark_every: NEVER,
            ..LogOptions::default()
        };
        let mut driver = Driver::new(directory.path(), GEOMETRY, disk.clone(), options);
        random_operations(&mut driver, &mut rng, 40).await.unwrap();
        driver.log.close();
        for cut in disk.take_cuts() {
            let after = write_image(&cut.image);
            let end = open_and_compare(after.path(), GEOMETRY, cut.acked, &driver.states).await;
            let holds = if let End::Holds { operations, .. } = end {
                Some(operations)
            } else {
                None
            };
            tally.note("power cut", end, &["whole", "torn"]);
            // What was cut is gone for good: the log goes on, is cut again, and still holds.
            if let Some(operations) = holds
                && rng.u32(0..8) == 0
            {
                let again = FaultDisk::new(after.path(), rng.u64(..), 2);
                let mut driver2 = Driver::open(
                    after.path(),
                    GEOMETRY,
                    again.clone(),
                    options,
                    driver.states[operations].clone(),
                );
                driver2.term = driver.term + 1;
                random_operations(&mut driver2, &mut rng, 4).await.unwrap();
                driver2.log.close();
                for cut in again.take_cuts() {
                    let after = write_image(&cut.image);
                    let end =
                        open_and_compare(after.path(), GEOMETRY, cut.acked, &driver2.states).await;
                    tally.note("second power cut", end, &["whole", "torn"]);
                }
            }
        }
    }
    tally.finish("power cuts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_write_or_fsync_ends_the_log_at_once_and_loses_nothing_acknowledged() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let mut tally = Ends::default();
    for at in 0..60 {
        for (fail, quiet) in [
            (Fail::Write(at), NEVER),
            (Fail::Sync(at), NEVER),
            (Fail::Full(at), NEVER),
            // Frames that nobody waits for, and the mark, fail as well.
            (Fail::Write(at), Duration::ZERO),
            (Fail::Sync(at), Duration::ZERO),
        ] {
            let directory = scratch();
            let disk = FaultDisk::new(directory.path(), rng.u64(..), 0);
            let options = LogOptions {
                quiet,
                mark_every: quiet,
                ..LogOptions::default()
            };
            let mut driver = Driver::new(directory.path(), GEOMETRY, disk.clone(), options);
            disk.fail(fail);
            let failed = random_operations(&mut driver, &mut rng, 200).await;
            assert!(failed.is_err(), "{fail:?} was reached");
            let next = driver.state().random_entries(&mut rng, 1_000);
            assert!(
                driver.run(Operation::Append(next)).await.is_err(),
                "nothing is taken after a failure"
            );
            driver.log.close();
            let fatal = driver.fatal.lock().unwrap().clone();
            assert_eq!(fatal.len(), 1, "{fatal:?}");
            let cut = disk.cut_now();
            let end = open_and_compare(directory.path(), GEOMETRY, cut.acked, &driver.states).await;
            tally.note("process ends", end, &["whole", "torn"]);
            let after = write_image(&cut.image);
            let end = open_and_compare(after.path(), GEOMETRY, cut.acked, &driver.states).await;
            tally.note("process ends and power is cut", end, &["whole", "torn"]);
        }
    }
    tally.finish("failed calls");
}

/// The memory of a machine keeps what a failed fsync did not write, and calls it clean: a restart that
/// trusted it would build on frames that a power cut takes away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_after_a_failed_fsync_builds_only_on_what_the_disk_holds() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let mut tally = Ends::default();
    let options = LogOptions {
        quiet: NEVER,
        mark_every: NEVER,
        ..LogOptions::default()
    };
    for at in 0..40 {
        let directory = scratch();
        let disk = FaultDisk::new(directory.path(), rng.u64(..), 0);
        let mut driver = Driver::new(directory.path(), GEOMETRY, disk.clone(), options);
        disk.fail(Fail::Sync(at));
        assert!(random_operations(&mut driver, &mut rng, 200).await.is_err());
        driver.log.close();
        disk.fail(Fail::Never);
        drop(recover(directory.path(), GEOMETRY, SALT, disk.clone()).unwrap());
        let found = write_image(&read_image(directory.path()));
        let acked = disk.cut_now().acked;
        let end = open_and_compare(found.path(), GEOMETRY, acked, &driver.states).await;
        let End::Holds { operations, .. } = end else {
            panic!("{end:?}")
        };
        let state = driver.states[operations].clone();
        let term = driver.term + 1;
        let mut driver = Driver::open(directory.path(), GEOMETRY, disk.clone(), options, state);
        driver.term = term;
        disk.acked(0);
        random_operations(&mut driver, &mut rng, 4).await.unwrap();
        let cut = disk.cut_now();
        driver.log.close();
        let after = write_image(&cut.image);
        let end = open_and_compare(after.path(), GEOMETRY, cut.acked, &driver.states).await;
        tally.note("power cut after a restart", end, &["whole", "torn"]);
    }
    tally.finish("lost by a failed fsync");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_sectors_of_a_frame_a_power_cut_takes_it_is_whole_or_torn() {
    let mut tally = Ends::default();
    for sectors in 1..=10usize {
        let directory = scratch();
        let disk = FaultDisk::new(directory.path(), 0, 0);
        let options = LogOptions {
            quiet: NEVER,
            mark_every: NEVER,
            ..LogOptions::default()
        };
        let mut driver = Driver::new(directory.path(), GEOMETRY, disk.clone(), options);
        let entry = |index, bytes| Entry {
            log_id: log_id(1, index),
            payload: EntryPayload::Normal(EntryBytes(Bytes::from(vec![7; bytes]))),
        };
        driver
            .run(Operation::Append(vec![entry(0, 9)]))
            .await
            .unwrap();
        driver.acked().await.unwrap();
        disk.cut_every_subset();
        let bytes = (sectors - 1) * SECTOR_DATA_BYTES + 9;
        driver
            .run(Operation::Append(vec![entry(1, bytes)]))
            .await
            .unwrap();
        driver.acked().await.unwrap();
        let cuts = disk.take_cuts();
        assert_eq!(cuts.len(), 1 << sectors);
        for (lost, cut) in cuts.iter().enumerate() {
            let after = write_image(&cut.image);
            let end = open_and_compare(after.path(), GEOMETRY, 1, &driver.states).await;
            let expected = match lost == 0 || lost + 1 == 1 << sectors {
                true => "whole",
                false => "torn",
            };
            tally.note(&format!("{lost:b} of {sectors}"), end, &[expected]);
        }
    }
    tally.finish("subsets of a frame");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_panics_ends_the_process_and_leaves_nobody_waiting() {
    let directory = scratch();
    let disk = FaultDisk::new(directory.path(), 0, 0);
    let options = LogOptions::default();
    let mut driver = Driver::new(directory.path(), GEOMETRY, disk.clone(), options);
    disk.fail(Fail::Panic(0));
    let vote = driver.run(Operation::Vote(Vote::new(1, 1)));
    let answered = tokio::time::timeout(Duration::from_secs(30), vote).await;
    assert!(answered.expect("it is answered").is_err());
    let vote = Vote::new(2, 1);
    let next = driver.log.save_vote(&vote);
    let answered = tokio::time::timeout(Duration::from_secs(30), next).await;
    assert!(answered.expect("it is answered").is_err());
    driver.log.close();
    assert_eq!(
        *driver.fatal.lock().unwrap(),
        ["log writer: the log's writer panicked"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stamp_follows_the_first_frame_and_a_frame_without_it_is_stamped_at_the_next_start() {
    let identity = Identity {
        cluster_id: "c".into(),
        incarnation: 1,
        member_id: 3,
        volume_uid: "v".into(),
    };
    let root = scratch();
    let home = Volume::open(root.path())
        .unwrap()
        .format(identity.clone(), GEOMETRY)
        .unwrap();
    let disk = FaultDisk::new(&home.log_directory(), 0, 0);
    let options = StartOptions {
        log: LogOptions::default(),
        disk: disk.clone(),
        fatal: std::sync::Arc::new(|_, _| {}),
        purged: None,
        wrote: None,
    };
    let mut started = start(&home, &identity, FoundOnDisk::default(), options)
        .await
        .unwrap();
    disk.fail(Fail::Sync(0));
    assert!(started.log.save_vote(&Vote::new(1, 3)).await.is_err());
    assert!(
        !home.stamp().is_initialized,
        "the frame may not be on the disk"
    );
    drop(started);

    let panics = || {
        LogHooks::only_fatal(std::sync::Arc::new(|what, error: &std::io::Error| {
            panic!("{what}: {error}")
        }))
    };
    let recovered = recover(&home.log_directory(), GEOMETRY, identity.salt(), SystemDisk).unwrap();
    let mut log = LogStore::start(recovered, LogOptions::default(), panics()).unwrap();
    log.save_vote(&Vote::new(2, 3)).await.unwrap();
    drop(log);
    assert!(!home.stamp().is_initialized, "only the frame was written");
    let options = StartOptions {
        log: LogOptions::default(),
        disk: SystemDisk,
        fatal: panics().fatal,
        purged: None,
        wrote: None,
    };
    drop(
        start(&home, &identity, FoundOnDisk::default(), options)
            .await
            .unwrap(),
    );
    assert!(home.stamp().is_initialized);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_budget_is_used_up_still_takes_a_vote_and_a_purge() {
    let mut rng = fastrand::Rng::with_seed(seed());
    let directory = scratch();
    let disk = FaultDisk::new(directory.path(), 0, 0);
    let mut driver = Driver::new(
        directory.path(),
        GEOMETRY,
        disk.clone(),
        LogOptions::default(),
    );
    let mut highs = 0;
    let mut acked = 0;
    loop {
        let entries = driver.state().random_entries(&mut rng, 1);
        let appended = driver.run(Operation::Append(entries)).await;
        if appended.is_err() || driver.acked().await.is_err() {
            break;
        }
        acked = driver.states.len() - 1;
        highs += usize::from(driver.log.disk().unwrap().is_high());
    }
    assert!(highs > 0, "high water comes before the end");
    assert!(driver.fatal.lock().unwrap()[0].starts_with("log budget"));
    driver.log.close();
    let end = open_and_compare(directory.path(), GEOMETRY, acked, &driver.states).await;
    let End::Holds { operations, .. } = end else {
        panic!("{end:?}")
    };
    let state = driver.states[operations].clone();
    drop(driver);

    let mut driver = Driver::open(
        directory.path(),
        GEOMETRY,
        disk,
        LogOptions::default(),
        state,
    );
    driver.run(Operation::Vote(Vote::new(2, 1))).await.unwrap();
    let last = driver.state().last.unwrap();
    driver.run(Operation::Purge(last)).await.unwrap();
    driver.term = 2;
    for index in 1..20 {
        let entries = driver.state().random_entries(&mut rng, 2);
        driver.run(Operation::Append(entries)).await.unwrap();
        driver.acked().await.unwrap();
        assert!(driver.state().last >= Some(log_id(2, index)));
    }
    driver.log.close();
    let states = driver.states.clone();
    let end = open_and_compare(directory.path(), GEOMETRY, states.len() - 1, &states).await;
    assert_eq!(
        end,
        End::Holds {
            operations: states.len() - 1,
            torn_frames: 0
        }
    );
}
