//! The shipped log: gapless, chained, and the same whoever ships it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use object_store::memory::InMemory;

use super::entries::{Log, log, time_at};
use super::faults::unreliable;
use super::rig::{Fate, Fated, SLOW, bucket_over, cut, lineage, name, objects, order};
use crate::backup::bucket::Bucket;
use crate::backup::delete::prune;
use crate::backup::error::{Access, Error};
use crate::backup::log::replay::{Reached, Upto, replay};
use crate::backup::log::ship::{End, Step, end, first_indexes, path, step};
use crate::backup::progress::Noted;
use crate::backup::retention::Keep;
use crate::backup::write::write;
use crate::storage::snapshot::Position;
use crate::storage::store::position;
use crate::storage::types::Entry;

/// Where a backup of nothing would stand.
const NOTHING: Position = Position { term: 0, index: 0 };
const RUNS: u64 = 60;

/// Ships until nothing is left; answers how far the bucket's log goes.
async fn ship(bucket: &Bucket, log: &Log, from: End) -> End {
    let mut end = from;
    while let Step::Shipped(next) = step(bucket, &lineage(), &end, log).await.expect("shipped") {
        end = next;
    }
    end
}

fn in_segments_of(segment_entries: usize, entries: u64) -> Log {
    Log {
        segment_entries,
        ..log(entries)
    }
}

async fn read(
    bucket: &Bucket,
    after: Position,
    upto: Upto,
) -> Result<(Vec<Entry>, Reached), Error> {
    let mut entries = Vec::new();
    let each = |_, entry| {
        entries.push(entry);
        Ok(())
    };
    let reached = replay(bucket, &lineage(), after, upto, each).await?;
    Ok((entries, reached))
}

fn at(log: &Log, index: u64) -> Position {
    position(log.entries[index as usize - 1].log_id)
}

#[tokio::test]
async fn what_is_replayed_is_what_was_committed_up_to_any_entry_and_any_moment() {
    let bucket = bucket_over(Arc::new(InMemory::new()));
    let log = log(100);
    assert_eq!(end(&bucket, &lineage()).await.expect("listed"), None);
    log.committed.store(60, Ordering::Relaxed);
    let first = ship(&bucket, &log, End::of_backup(NOTHING, 0)).await;
    assert_eq!(first.last, at(&log, 60));
    // Another member goes on from what the bucket says.
    log.committed.store(100, Ordering::Relaxed);
    let found = end(&bucket, &lineage()).await.expect("listed");
    assert_eq!(found, Some(first));
    let last = ship(&bucket, &log, first).await;
    assert_eq!(
        (last.last, last.wall_time_ms),
        (at(&log, 100), time_at(100))
    );
    for after in [0, 1, 30, 59, 60, 61, 99, 100] {
        let from = match after {
            0 => NOTHING,
            after => at(&log, after),
        };
        let (entries, reached) = read(&bucket, from, Upto::Latest).await.expect("good");
        assert_eq!(entries, log.entries[after as usize..]);
        assert_eq!(reached.last, at(&log, 100));
        for upto in [after.max(1), 66, 100]
            .into_iter()
            .filter(|upto| *upto >= after)
        {
            let (entries, _) = read(&bucket, from, Upto::Index(upto)).await.expect("good");
            assert_eq!(entries, log.entries[after as usize..upto as usize]);
            // Raft's own entries have no time: they go with the one before.
            let moment = Upto::WallTimeMs(time_at(upto) + 999);
            let (entries, _) = read(&bucket, from, moment).await.expect("good");
            let next = entries.last().map_or(after, |last| last.log_id.index);
            assert!(
                (upto..=upto + 1).contains(&next.max(upto)),
                "{upto}: {next}"
            );
            assert_eq!(
                entries,
                log.entries[after as usize..next.max(after) as usize]
            );
        }
    }
    let beyond = read(&bucket, NOTHING, Upto::Index(101)).await;
    let Err(Error::Missing { object }) = beyond else {
        panic!("{beyond:?}");
    };
    assert!(
        object.ends_with("/log/00000000000000000101.segment"),
        "{object}"
    );
}

#[tokio::test]
async fn another_history_than_the_backups_is_refused() {
    let bucket = bucket_over(Arc::new(InMemory::new()));
    let log = log(40);
    ship(&bucket, &log, End::of_backup(NOTHING, 0)).await;
    for index in [3, 7, 14, 20, 40] {
        let other = Position { term: 9, index };
        let refused = read(&bucket, other, Upto::Latest).await;
        assert!(
            matches!(refused, Err(Error::Damaged { .. })),
            "{index}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn where_the_log_has_a_hole_a_new_chain_starts_behind_a_backup() {
    let bucket = bucket_over(Arc::new(InMemory::new()));
    let log = log(100);
    log.committed.store(50, Ordering::Relaxed);
    let old = ship(&bucket, &log, End::of_backup(NOTHING, 0)).await;
    log.committed.store(100, Ordering::Relaxed);
    log.first.store(70, Ordering::Relaxed);
    let stopped = step(&bucket, &lineage(), &old, &log).await.expect("asked");
    assert_eq!(stopped, Step::Gap);
    let backup = End::of_backup(at(&log, 80), time_at(80));
    ship(&bucket, &log, backup).await;
    let (entries, _) = read(&bucket, at(&log, 80), Upto::Latest)
        .await
        .expect("good");
    assert_eq!(entries, log.entries[80..]);
    let (entries, _) = read(&bucket, NOTHING, Upto::Index(50)).await.expect("good");
    assert_eq!(entries, log.entries[..50]);
    for upto in [Upto::Latest, Upto::Index(90)] {
        let refused = read(&bucket, NOTHING, upto).await;
        let Err(Error::Missing { object }) = refused else {
            panic!("{refused:?}");
        };
        assert!(
            object.ends_with("/00000000000000000051.segment"),
            "{object}"
        );
    }
}

#[tokio::test]
async fn two_chains_side_by_side_are_read_as_one_whichever_ends_first() {
    let log = log(60);
    for survivor in [0, 1] {
        let bucket = bucket_over(Arc::new(InMemory::new()));
        let mut ends = [(20, 20), (24, 24)]
            .map(|(at_index, time)| End::of_backup(at(&log, at_index), time_at(time)));
        for round in 0..5 {
            for (which, end) in ends.iter_mut().enumerate() {
                // After two rounds only one is left.
                if round >= 2 && which != survivor {
                    continue;
                }
                match step(&bucket, &lineage(), end, &log).await.expect("shipped") {
                    Step::Shipped(next) => *end = next,
                    Step::Idle => {}
                    Step::Gap => panic!("nothing is gone"),
                }
            }
        }
        let last = ends[survivor].last.index;
        assert!(last > 50);
        for backup in [20, 24] {
            let (entries, _) = read(&bucket, at(&log, backup), Upto::Index(last))
                .await
                .expect("good");
            assert_eq!(
                entries,
                log.entries[backup as usize..last as usize],
                "{backup}"
            );
        }
    }
}

#[tokio::test]
async fn two_chains_that_meet_at_one_entry_go_on_as_one() {
    let bucket = bucket_over(Arc::new(InMemory::new()));
    let log = log(60);
    log.committed.store(26, Ordering::Relaxed);
    let backup = |index| End::of_backup(at(&log, index), time_at(index));
    let (one, two) = (
        ship(&bucket, &log, backup(20)).await,
        ship(&bucket, &log, backup(24)).await,
    );
    assert_eq!(one.last, two.last);
    log.committed.store(60, Ordering::Relaxed);
    let ended = ship(&bucket, &log, one).await;
    assert_eq!(
        ship(&bucket, &log, two).await,
        ended,
        "the second goes on behind the first's"
    );
    for from in [20, 24, 26, 40] {
        let (entries, _) = read(&bucket, at(&log, from), Upto::Latest)
            .await
            .expect("good");
        assert_eq!(entries, log.entries[from as usize..]);
    }
}

#[tokio::test]
async fn a_chain_that_ends_is_gone_on_with_by_one_whose_segment_began_before_it() {
    let backup = |log: &Log, index| End::of_backup(at(log, index), time_at(index));
    for committed in [50, 100] {
        let bucket = bucket_over(Arc::new(InMemory::new()));
        let (small, large) = (log(100), in_segments_of(30, 100));
        large.committed.store(committed, Ordering::Relaxed);
        ship(&bucket, &large, backup(&large, 20)).await;
        small.committed.store(38, Ordering::Relaxed);
        ship(&bucket, &small, backup(&small, 24)).await;
        for from in [20, 24, 31, 38, 40] {
            let (entries, _) = read(&bucket, at(&small, from), Upto::Latest)
                .await
                .expect("good");
            assert_eq!(
                entries,
                small.entries[from as usize..committed as usize],
                "{from} to {committed}"
            );
        }
    }
}

#[tokio::test]
async fn damage_to_what_is_older_than_a_backup_is_not_in_its_way() {
    let bucket = bucket_over(Arc::new(InMemory::new()));
    let log = log(60);
    ship(&bucket, &log, End::of_backup(NOTHING, 0)).await;
    let older = path(&lineage(), 15);
    bucket.put(&older, "bad".into()).await.expect("put");
    let (entries, _) = read(&bucket, at(&log, 30), Upto::Latest)
        .await
        .expect("good");
    assert_eq!(entries, log.entries[30..]);
    let refused = read(&bucket, at(&log, 10), Upto::Latest).await;
    assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
}

#[tokio::test]
async fn who_was_away_for_long_goes_on_behind_what_others_shipped() {
    let bucket = bucket_over(Arc::new(InMemory::new()));
    let log = log(100);
    log.committed.store(50, Ordering::Relaxed);
    let away = ship(&bucket, &log, End::of_backup(NOTHING, 0)).await;
    log.committed.store(80, Ordering::Relaxed);
    let others = ship(&bucket, &log, away).await;
    log.committed.store(100, Ordering::Relaxed);
    log.first.store(70, Ordering::Relaxed);
    let found = step(&bucket, &lineage(), &away, &log).await.expect("asked");
    assert_eq!(found, Step::Shipped(others));
    ship(&bucket, &log, others).await;
    let (entries, _) = read(&bucket, NOTHING, Upto::Latest).await.expect("good");
    assert_eq!(entries, log.entries);
}

#[tokio::test]
async fn a_list_of_many_pages_may_take_longer_than_one_request() {
    let memory = Arc::new(InMemory::new());
    let log = in_segments_of(1, 30);
    let bucket = bucket_over(memory.clone());
    ship(&bucket, &log, End::of_backup(NOTHING, 0)).await;
    let slow = Fated::new(memory, |access, _| match access {
        Access::List => Fate::Slow,
        _ => Fate::Fine,
    });
    let patience = 15 * SLOW;
    let bucket = bucket_over(slow).with_patience(patience);
    let began = Instant::now();
    let found = first_indexes(&bucket, &lineage()).await.expect("listed");
    assert_eq!(found, (1..=30).collect::<Vec<u64>>());
    assert!(began.elapsed() > patience, "it was not slow");
}

/// Two members that know nothing of each other, on a store that fails now and then.
#[tokio::test]
async fn two_shippers_on_a_failing_store_build_one_chain() {
    let seeds = std::env::var("SHIPPED_LOG_SEED").ok();
    let first = seeds.and_then(|seed| seed.parse().ok());
    let first = first.unwrap_or_else(|| fastrand::u64(..u64::MAX / 2));
    println!("SHIPPED_LOG_SEED={first}");
    for seed in first..first + RUNS {
        let memory = Arc::new(InMemory::new());
        let bucket = bucket_over(unreliable(&memory, seed));
        let log = log(60);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut ends = [End::of_backup(NOTHING, 0); 2];
        let mut committed = 0;
        while ends.iter().any(|end| end.last.index < 60) {
            committed = (committed + rng.u64(..9)).min(60);
            log.committed.store(committed, Ordering::Relaxed);
            let which = rng.usize(..2);
            // Now and then one starts anew, from what the bucket says.
            if rng.u8(..8) == 0
                && let Ok(Some(found)) = end(&bucket, &lineage()).await
            {
                ends[which] = found;
            }
            match step(&bucket, &lineage(), &ends[which], &log).await {
                Ok(Step::Shipped(next)) => ends[which] = next,
                Ok(Step::Idle) | Err(Error::Unavailable { .. }) => {}
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        let sound = bucket_over(memory.clone());
        let (entries, reached) = read(&sound, NOTHING, Upto::Latest).await.expect("good");
        assert_eq!(entries, log.entries, "seed {seed}");
        assert_eq!(
            objects(&memory).await.len() as u64,
            reached.segments,
            "seed {seed}"
        );
    }
}

#[tokio::test]
async fn retention_keeps_the_log_that_the_oldest_backup_needs() {
    let memory = Arc::new(InMemory::new());
    let bucket = bucket_over(memory.clone());
    let log = in_segments_of(1, 100);
    ship(&bucket, &log, End::of_backup(NOTHING, 0)).await;
    let segments = objects(&memory).await.len();
    let keep = Keep {
        count: Some(1),
        ..Keep::default()
    };
    prune(&bucket, &lineage(), &keep, 0).await.expect("pruned");
    assert_eq!(
        objects(&memory).await.len(),
        segments,
        "without a backup nothing goes"
    );
    // Its world has three entries: the first segment goes on behind it.
    let small = cut("small", 2);
    assert_eq!(small.handle.position().index, 3);
    let noted = Noted::default();
    write(&bucket, &small.handle, &order("b-1"), &noted)
        .await
        .expect("written");
    prune(&bucket, &lineage(), &keep, 0).await.expect("pruned");
    let larger = cut("larger", 16);
    write(&bucket, &larger.handle, &order("b-2"), &noted)
        .await
        .expect("written");
    let before = objects(&memory).await;
    let in_log = before
        .keys()
        .filter(|path| path.as_ref().contains("/log/"))
        .count();
    assert_eq!(in_log, segments);
    let pruned = prune(&bucket, &lineage(), &keep, 0).await.expect("pruned");
    assert_eq!(pruned.deleted, [name("b-1")]);
    let after = objects(&memory).await;
    let in_log = after
        .keys()
        .filter(|path| path.as_ref().contains("/log/"))
        .count();
    assert_eq!(
        in_log,
        segments - 9,
        "a backup of 17 needs none before 18, and eight more stay"
    );
}
