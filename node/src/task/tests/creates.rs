//! Create: once by id, refused when old or full.

use super::super::command::Rejection;
use super::*;

#[test]
fn a_namespace_and_a_queue_come_into_being_with_their_first_task() {
    let mut world = World::new();
    assert!(
        world
            .state
            .queue_stats(&name("ns"), &name("q"), START_MS)
            .is_none()
    );
    world.create("q", vec![task("a"), task("b")]);
    let stats = world
        .state
        .queue_stats(&name("ns"), &name("q"), START_MS + 7)
        .expect("there is a queue");
    assert_eq!(
        (
            stats.available,
            stats.created_total,
            stats.oldest_available_ms
        ),
        (2, 2, 7)
    );
    world.check();
}

#[test]
fn the_same_id_in_one_batch_is_created_once() {
    let mut world = World::new();
    let results = world.create("q", vec![task("a"), task("a")]);
    let existed: Vec<bool> = results
        .into_iter()
        .map(|result| result.expect("created").existed)
        .collect();
    assert_eq!(existed, [false, true]);
    assert_eq!(world.state.task_rows(), 1);
}

#[test]
fn an_id_belongs_to_one_queue_of_its_namespace() {
    let mut world = World::new();
    world.create("q", vec![task("a")]);
    assert_eq!(
        world.create("p", vec![task("a")]),
        [Err(Rejection::Duplicate { id: id("a") })]
    );
    assert!(
        world
            .state
            .queue_stats(&name("ns"), &name("p"), 0)
            .is_none()
    );
}

#[test]
fn another_payload_under_the_same_id_is_a_duplicate() {
    let mut world = World::new();
    world.create("q", vec![task("a")]);
    let mut other = task("a");
    other.payload_hash = [9; 16];
    assert_eq!(
        world.create("q", vec![other]),
        [Err(Rejection::Duplicate { id: id("a") })]
    );
}

#[test]
fn a_uuid_of_yesterday_is_refused_unless_its_row_is_still_there() {
    let mut world = World::new();
    let ms = START_MS - 24 * 3_600_000;
    let uuid = |ms: u64| {
        format!(
            "{:08x}-{:04x}-7abc-8def-0123456789ab",
            ms >> 16,
            ms & 0xffff
        )
    };
    let old = task(&uuid(ms - 1));
    assert_eq!(
        world.create("q", vec![old.clone()]),
        [Err(Rejection::IdTooOld { id: old.id })]
    );
    let edge = task(&uuid(ms));
    world
        .create("q", vec![edge.clone()])
        .remove(0)
        .expect("a day is not too old");
    world.wall_time_ms += 1_000;
    assert!(
        world
            .create("q", vec![edge])
            .remove(0)
            .expect("its row is there")
            .existed
    );
    let version_4 = task("00000000-0000-4abc-8def-0123456789ab");
    world
        .create("q", vec![version_4])
        .remove(0)
        .expect("only a UUIDv7 tells its age");
}

#[test]
fn a_full_store_refuses_creates_and_names_the_bound_and_still_settles() {
    let bounds = Bounds {
        payloads_bytes_max: 10,
        ..Bounds::default()
    };
    let mut world = World::with(bounds);
    world
        .create("q", vec![task("0123456789")])
        .remove(0)
        .expect("it fits exactly");
    let full = Err(Rejection::Full {
        bound: "10 bytes of payloads in the store".into(),
    });
    assert_eq!(world.create("q", vec![task("a")]), [full]);
    let token = world.claim(claim_of(&["q"], "c", 1)).remove(0).token;
    world
        .settle("0123456789", token, complete())
        .expect("settles go on");
    world
        .create("q", vec![task("a")])
        .remove(0)
        .expect("the payload's room is free again");
    world.check();
}

#[test]
fn rows_queues_and_results_have_bounds_too() {
    let mut rows = World::with(Bounds {
        task_rows_max: 1,
        ..Bounds::default()
    });
    let mut queues = World::with(Bounds {
        queues_max: 1,
        ..Bounds::default()
    });
    let mut results = World::with(Bounds {
        results_bytes_max: 4,
        ..Bounds::default()
    });
    for world in [&mut rows, &mut queues, &mut results] {
        world
            .create("q", vec![task("a")])
            .remove(0)
            .expect("room for one");
    }
    assert!(matches!(
        rows.create("q", vec![task("b")])[..],
        [Err(Rejection::Full { .. })]
    ));
    assert!(matches!(
        queues.create("p", vec![task("b")])[..],
        [Err(Rejection::Full { .. })]
    ));
    let token = results.claim(claim_of(&["q"], "c", 1)).remove(0).token;
    results.settle("a", token, complete()).expect("settled");
    assert!(matches!(
        results.create("q", vec![task("b")])[..],
        [Err(Rejection::Full { .. })]
    ));
    results.pass(24 * 3_600_000);
    results
        .create("q", vec![task("b")])
        .remove(0)
        .expect("the result went with its row");
}
