//! How rows are kept: sets and maps against plain ones, and nothing kept that says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::super::available::Available;
use super::super::queue::{QueueRow, Totals, share};
use super::super::row::{Completed, Order, Past, Phase, TaskRow, Texts};
use super::super::rows::TaskRows;
use super::super::seqs::SeqSet;
use super::super::tables::Meta;
use super::*;

fn row(seq: u64) -> TaskRow {
    let texts = Texts {
        kind: "mail".into(),
        content_type: "".into(),
    };
    TaskRow {
        seq,
        revision: 1,
        created_ms: START_MS + seq / 3,
        not_before_ms: 0,
        payload_hash: [0; 16],
        hash: [0; 16],
        id: id(&format!("t{seq}")),
        texts: Arc::new(texts),
        past: None,
        lease_ms: 1,
        queue: 0,
        payload_bytes: 0,
        attempts_max: 1,
        priority: 0,
        scheduled: false,
    }
}

/// A 64-bit malloc gives 136 bytes to who asks for 121 to 136; the counts of an `Arc` take 16.
#[test]
fn a_row_fits_into_its_piece_of_the_heap() {
    assert_eq!(size_of::<TaskRow>(), 120);
    assert_eq!(size_of::<Past>(), 88);
}

#[test]
fn a_row_is_read_back_as_it_was() {
    let completed = Completed {
        finished_ms: 9,
        result: b"r".to_vec().into(),
    };
    let phases = [
        Phase::Scheduled,
        Phase::Available,
        Phase::Retryable { due_ms: 7 },
        Phase::Completed(completed),
    ];
    for phase in phases {
        for token in [0, 5] {
            let mut before = row(3);
            before.set_past(Past {
                phase: phase.clone(),
                token,
                ..row(3).past_mut().clone()
            });
            let bytes = postcard::to_stdvec(&before).expect("plain values");
            let after: TaskRow = postcard::from_bytes(&bytes).expect("a row");
            assert_eq!(after, before);
            let waits = matches!(phase, Phase::Scheduled | Phase::Available);
            assert_eq!(after.past.is_none(), waits && token == 0);
        }
    }
}

#[test]
fn a_row_that_nobody_can_have_created_is_refused() {
    let good = postcard::to_stdvec(&row(3)).expect("plain values");
    assert!(postcard::from_bytes::<TaskRow>(&good).is_ok());
    // Seq, queue, id, kind, content type, priority and not_before stand before the lease of 1.
    let lease_at = 1 + 1 + 3 + 5 + 1 + 1 + 1;
    assert_eq!(good[lease_at..=lease_at + 1], [1, 1]);
    let long_lease = [
        &good[..lease_at],
        &[0x80, 0x80, 0x80, 0x80, 0x10],
        &good[lease_at + 1..],
    ];
    assert!(postcard::from_bytes::<TaskRow>(&long_lease.concat()).is_err());
    let many = [
        &good[..=lease_at],
        &[0x80, 0x80, 0x04],
        &good[lease_at + 2..],
    ];
    assert!(postcard::from_bytes::<TaskRow>(&many.concat()).is_err());
}

#[test]
fn rows_whose_times_of_creation_go_back_are_no_state() {
    let meta = Meta {
        last_seq: 9,
        ..Meta::default()
    };
    let mut loader = Loader::new(meta, Bounds::default());
    loader.namespace(0, name("ns")).expect("the first");
    let queue = QueueRow {
        id: 0,
        namespace: 0,
        name: name("q"),
        totals: Totals::default(),
    };
    loader.queue(queue).expect("the first");
    let at = |seq: u64, created_ms: u64| TaskRow {
        created_ms,
        ..row(seq)
    };
    assert!(loader.task(at(1, START_MS)).is_ok());
    assert!(loader.task(at(2, START_MS - 1)).is_err());
    assert!(loader.task(at(2, START_MS)).is_ok());
}

#[test]
fn tasks_of_a_few_kinds_share_their_texts_whatever_their_order() {
    let mut last = Vec::new();
    let kinds: Vec<String> = (0..8).map(|n| format!("k{n}")).collect();
    let mut all = || -> Vec<_> {
        kinds
            .iter()
            .map(|kind| share(&mut last, kind, "c"))
            .collect()
    };
    for (first, second) in all().iter().zip(all()) {
        assert!(Arc::ptr_eq(first, &second));
    }
    let other = share(&mut last, "k0", "other");
    assert_eq!((&*other.kind, &*other.content_type), ("k0", "other"));
    assert_eq!(last.len(), 8, "as many are remembered");
}

#[test]
fn the_oldest_available_task_is_found_with_and_without_a_time_of_its_own() {
    let mut world = World::new();
    let mut age_with = |priority: u8, not_before_ms: u64| {
        let new = NewTask {
            priority,
            not_before_ms,
            ..task(&format!("t{priority}"))
        };
        world.create("q", vec![new]);
        let now_ms = START_MS + 1_000;
        let stats = world.state.queue_stats(&name("ns"), &name("q"), now_ms);
        stats.expect("the queue").oldest_available_ms
    };
    assert_eq!(age_with(5, 0), 1_000);
    assert_eq!(age_with(4, START_MS - 5), 1_005);
    assert_eq!(age_with(9, START_MS - 9), 1_009);
    assert_eq!(age_with(3, START_MS - 2), 1_009);
    assert_eq!(age_with(2, 0), 1_009);
}

proptest! {
    #[test]
    fn a_set_of_numbers_is_a_set_of_numbers(
        steps in prop::collection::vec((any::<bool>(), 0..300u64), 0..200), first in 0..310u64
    ) {
        let (mut set, mut plain) = (SeqSet::default(), BTreeSet::new());
        for (is_new, seq) in steps {
            if is_new {
                set.insert(seq);
                plain.insert(seq);
            } else {
                set.remove(seq);
                plain.remove(&seq);
            }
            prop_assert_eq!(set.is_empty(), plain.is_empty());
        }
        prop_assert!(set.from(first).eq(plain.range(first..).copied()));
        prop_assert!(set.from(0).eq(plain.iter().copied()));
    }

    #[test]
    fn rows_are_a_map_whose_copies_stay_as_they_were(
        steps in prop::collection::vec((0..4u8, 0..60u64), 0..120)
    ) {
        let (mut rows, mut plain) = (TaskRows::default(), BTreeMap::new());
        let mut copies = Vec::new();
        for (revision, (step, seq)) in steps.into_iter().enumerate() {
            match step {
                0 => copies.push((rows.clone(), plain.clone())),
                1 => prop_assert_eq!(rows.remove(seq).map(|row| row.revision), plain.remove(&seq)),
                _ => match rows.get_mut(seq) {
                    Some(row) => {
                        Arc::make_mut(row).revision = revision as u64;
                        plain.insert(seq, revision as u64);
                    }
                    None => {
                        rows.insert(row(seq));
                        plain.insert(seq, 1);
                    }
                },
            }
        }
        copies.push((rows, plain));
        for (rows, plain) in copies {
            let found = rows.values().map(|row| (row.seq, row.revision));
            prop_assert!(found.eq(plain.iter().map(|(seq, revision)| (*seq, *revision))));
            prop_assert_eq!(rows.len(), plain.len());
            prop_assert_eq!(rows.last().map(|row| row.seq), plain.last_key_value().map(|(seq, _)| *seq));
            for seq in 0..70 {
                prop_assert_eq!(rows.get(seq).map(|row| row.revision), plain.get(&seq).copied());
            }
        }
    }

    #[test]
    fn available_tasks_come_in_their_order(
        tasks in prop::collection::vec((0..3u8, 0..5u64, any::<bool>()), 0..80)
    ) {
        let (mut rows, mut available) = (TaskRows::default(), Available::default());
        let mut orders: Vec<Order> = Vec::new();
        for (n, (priority, not_before, stays)) in tasks.into_iter().enumerate() {
            let mut row = row(n as u64 + 1);
            row.priority = priority;
            // Between the times of the creates, or none.
            row.not_before_ms = if not_before == 0 { 0 } else { START_MS + 5 * not_before };
            available.insert(&row);
            match stays {
                true => orders.push(row.order()),
                false => available.remove(&row),
            }
            rows.insert(row);
        }
        orders.sort();
        let found: Vec<Order> = available.iter(&rows).map(TaskRow::order).collect();
        let oldest = orders.iter().map(|order| order.since_ms).min();
        prop_assert_eq!(found, orders);
        prop_assert_eq!(available.oldest_since_ms(&rows), oldest);
    }
}
