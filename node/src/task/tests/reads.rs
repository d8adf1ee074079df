//! Reads: pages, states, counters.

use super::super::command::TaskState;
use super::*;

#[test]
fn pages_walk_a_queue_by_sequence() {
    let mut world = World::new();
    world.create("q", (0..7).map(|n| task(&format!("t{n}"))).collect());
    world.create("p", vec![task("other")]);
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = world.state.list(&name("ns"), &name("q"), &[], after, 3);
        seen.extend(page.tasks.iter().map(|view| view.id.to_string()));
        after = page.next_after_seq;
        if after == 0 {
            break;
        }
    }
    assert_eq!(seen, ["t0", "t1", "t2", "t3", "t4", "t5", "t6"]);
}

#[test]
fn a_list_can_be_narrowed_to_states() {
    let mut world = World::new();
    world.create("q", (0..4).map(|n| task(&format!("t{n}"))).collect());
    world.claim(claim_of(&["q"], "c", 2));
    let page = world
        .state
        .list(&name("ns"), &name("q"), &[TaskState::Running], 0, 9);
    assert_eq!(
        page.tasks
            .iter()
            .map(|view| view.id.as_str())
            .collect::<Vec<_>>(),
        ["t0", "t1"]
    );
    assert_eq!(page.next_after_seq, 0);
    assert!(
        world
            .state
            .list(&name("ns"), &name("none"), &[], 0, 9)
            .tasks
            .is_empty()
    );
}

#[test]
fn the_oldest_available_task_is_found_over_all_priorities() {
    let mut world = World::new();
    let with = |text: &str, priority: u8, not_before_ms: u64| NewTask {
        priority,
        not_before_ms,
        ..task(text)
    };
    world.create(
        "q",
        vec![
            with("a", 0, START_MS - 10),
            with("b", 4, START_MS - 900),
            with("c", 9, START_MS - 20),
        ],
    );
    let stats = world
        .state
        .queue_stats(&name("ns"), &name("q"), START_MS)
        .expect("there is a queue");
    assert_eq!(stats.oldest_available_ms, 900);
}
