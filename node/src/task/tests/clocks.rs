//! Time: leases on one clock, everything else on the other, so much at once and no more.

use super::super::command::TaskState;
use super::super::state::Fatal;
use super::*;

#[test]
fn clocks_never_go_back() {
    let mut world = World::new();
    world.lease_time_ms = 1_000;
    world.tick();
    world.lease_time_ms = 10;
    world.wall_time_ms = 5;
    world.tick();
    assert_eq!(
        (world.state.lease_time_ms(), world.state.wall_time_ms()),
        (1_000, START_MS)
    );
}

#[test]
fn a_lease_runs_out_by_lease_time_whatever_the_wall_says() {
    let mut world = World::new();
    world.create("q", vec![task("a")]);
    let token = world.claim(claim_of(&["q"], "c", 1)).remove(0).token;
    world.wall_time_ms += 12 * 3_600_000;
    world.tick();
    assert_eq!(
        world.get("a").map(|view| view.state),
        Some(TaskState::Running)
    );
    world.lease_time_ms += 30_000;
    assert!(
        world.settle("a", token, complete()).is_err(),
        "the entry itself lets it run out first"
    );
    let view = world.get("a").expect("it is there");
    assert_eq!(
        (view.state, view.abandonments, view.attempts),
        (TaskState::Available, 1, 0)
    );
}

#[test]
fn five_leases_that_run_out_discard_a_task_with_that_reason() {
    let mut world = World::new();
    world.create("q", vec![task("a")]);
    for round in 0..5 {
        assert_eq!(
            world.claim(claim_of(&["q"], &format!("c{round}"), 1)).len(),
            1
        );
        world.pass(30_000);
    }
    let view = world.get("a").expect("the row is kept");
    assert_eq!(
        (view.state, view.error.as_str()),
        (TaskState::Discarded, "abandoned: 5 leases ran out")
    );
    let stats = world
        .state
        .queue_stats(&name("ns"), &name("q"), 0)
        .expect("there is a queue");
    assert_eq!((stats.abandoned_total, stats.discarded_total), (5, 1));
    world.check();
}

#[test]
fn one_entry_moves_a_bounded_number_and_the_next_deadline_says_there_is_more() {
    let mut world = World::with(Bounds {
        tick_items_max: 2,
        ..Bounds::default()
    });
    let tasks: Vec<NewTask> = (0..5)
        .map(|n| NewTask {
            not_before_ms: START_MS + 1_000,
            ..task(&format!("t{n}"))
        })
        .collect();
    world.create("q", tasks);
    world.wall_time_ms += 1_000;
    for expected in [2, 4, 5] {
        assert_eq!(
            world.state.next_deadlines().wall_time_ms,
            Some(START_MS + 1_000)
        );
        world.tick();
        assert_eq!(world.state.available(&name("ns"), &name("q")), expected);
    }
    assert_eq!(world.state.next_deadlines(), Default::default());
}

#[test]
fn finished_rows_go_by_age_and_by_the_count_of_their_queue() {
    let mut world = World::with(Bounds {
        finished_rows_max: 2,
        ..Bounds::default()
    });
    world.create("q", (0..4).map(|n| task(&format!("t{n}"))).collect());
    for claimed in world.claim(claim_of(&["q"], "c", 9)) {
        world
            .settle(&claimed.task.id.to_string(), claimed.token, complete())
            .expect("settled");
    }
    world.tick();
    let kept = |world: &World| {
        (0..4)
            .filter(|n| world.get(&format!("t{n}")).is_some())
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(&world), [2, 3]);
    world.wall_time_ms += 24 * 3_600_000 - 1;
    world.tick();
    assert_eq!(kept(&world), [2, 3]);
    assert_eq!(
        world.state.next_deadlines().wall_time_ms,
        Some(world.wall_time_ms + 1)
    );
    world.wall_time_ms += 1;
    world.tick();
    assert!(kept(&world).is_empty());
    world.check();
}

#[test]
fn a_level_that_this_build_does_not_know_ends_it() {
    let mut world = World::new();
    assert_eq!(world.apply(vec![Command::SetLevel(1)]), [Outcome::Done]);
    let entry = Entry {
        lease_time_ms: 0,
        wall_time_ms: 0,
        commands: vec![Command::SetLevel(2)],
    };
    let result = world.state.apply(
        At {
            index: 9,
            incarnation: 1,
        },
        entry,
        &mut Vec::new(),
    );
    assert_eq!(result, Err(Fatal::UnknownLevel { level: 2 }));
}
