//! Reads: pages, states, counters.

use super::super::command::TaskState;
use super::*;
use crate::limits::ANSWER_BYTES_MAX;

#[test]
fn pages_walk_a_queue_by_sequence() {
    let mut world = World::new();
    world.create("q", (0..7).map(|n| task(&format!("t{n}"))).collect());
    world.create("p", vec![task("other")]);
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = world
            .state
            .list(&name("ns"), &name("q"), &[], after, 3, false);
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
        .list(&name("ns"), &name("q"), &[TaskState::Running], 0, 9, false);
    assert_eq!(
        page.tasks
            .iter()
            .map(|view| view.id.to_string())
            .collect::<Vec<_>>(),
        ["t0", "t1"]
    );
    assert_eq!(page.next_after_seq, 0);
    assert!(
        world
            .state
            .list(&name("ns"), &name("none"), &[], 0, 9, false)
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

#[test]
fn a_page_ends_before_its_bytes_are_more_than_an_answer_holds() {
    let mut world = World::new();
    let payload = Bytes::from(vec![7; 100 << 10]);
    let large = |n| NewTask {
        payload: payload.clone(),
        ..task(&format!("t{n:03}"))
    };
    world.create("q", (0..90).map(large).collect());
    let list = |after, full| {
        world
            .state
            .list(&name("ns"), &name("q"), &[], after, 1_000, full)
    };
    assert_eq!(
        list(0, false).tasks.len(),
        90,
        "a basic page has no payloads"
    );
    let (mut after, mut seen) = (0, 0);
    loop {
        let page = list(after, true);
        let bytes: u64 = page.tasks.iter().map(|task| task.payload_bytes).sum();
        assert!(bytes <= ANSWER_BYTES_MAX as u64 && !page.tasks.is_empty());
        seen += page.tasks.len();
        after = page.next_after_seq;
        if after == 0 {
            break;
        }
    }
    assert_eq!(seen, 90, "the next page goes on where this one ended");
}

#[test]
fn only_full_pages_have_results() {
    let mut world = World::new();
    world.create("q", vec![task("a")]);
    let token = world.claim(claim_of(&["q"], "c", 1))[0].token;
    world.settle("a", token, complete()).unwrap();
    let result = |full| {
        let mut page = world.state.list(&name("ns"), &name("q"), &[], 0, 9, full);
        page.tasks.remove(0).result
    };
    assert_eq!(result(true), "fine");
    assert_eq!(result(false), "");
}
