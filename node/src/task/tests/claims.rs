//! Claim: order, bounds, and the retry that gets the same tasks.

use super::*;
use crate::limits::{ANSWER_BYTES_MAX, BATCH_ITEMS_MAX, CLAIM_BYTES_MAX, ERROR_BYTES_MAX};

fn ids(claimed: &[Claimed]) -> Vec<String> {
    claimed
        .iter()
        .map(|claimed| claimed.task.id.to_string())
        .collect()
}

#[test]
fn priority_comes_first_then_the_oldest_not_before_then_the_order_of_creation() {
    let mut world = World::new();
    let with = |text: &str, priority: u8, not_before_ms: u64| NewTask {
        priority,
        not_before_ms,
        ..task(text)
    };
    world.create(
        "q",
        vec![
            with("late", 5, 0),
            with("later", 5, 0),
            with("old", 5, START_MS - 1_000),
            with("urgent", 0, 0),
            with("idle", 9, 1),
        ],
    );
    assert_eq!(
        ids(&world.claim(claim_of(&["q"], "c", 9))),
        ["urgent", "old", "late", "later", "idle"]
    );
}

#[test]
fn queues_are_tried_in_the_order_named() {
    let mut world = World::new();
    world.create("p", vec![task("p1"), task("p2")]);
    world.create("q", vec![task("q1")]);
    assert_eq!(
        ids(&world.claim(claim_of(&["none", "q", "p", "q"], "c", 2))),
        ["q1", "p1"]
    );
}

#[test]
fn bytes_bound_a_claim_but_one_task_is_always_given() {
    let mut world = World::new();
    world.create("q", vec![task("four"), task("five5"), task("x")]);
    let bounded = |claim_id: &str, bytes_max: u64| Claim {
        bytes_max,
        ..claim_of(&["q"], claim_id, 9)
    };
    assert_eq!(ids(&world.claim(bounded("c1", 1))), ["four"]);
    assert_eq!(ids(&world.claim(bounded("c2", 6))), ["five5", "x"]);
}

#[test]
fn two_claims_in_one_entry_never_get_the_same_task() {
    let mut world = World::new();
    world.create("q", vec![task("a"), task("b"), task("c")]);
    let outcomes = world.apply(vec![
        Command::Claim(claim_of(&["q"], "c1", 2)),
        Command::Claim(claim_of(&["q"], "c2", 2)),
        Command::Claim(claim_of(&["q"], "c3", 2)),
    ]);
    let counts: Vec<usize> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Claimed(claimed) => claimed.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(counts, [2, 1, 0]);
}

#[test]
fn the_retry_of_a_claim_gets_the_same_tasks_with_the_same_tokens_in_the_same_order() {
    let mut world = World::new();
    world.create(
        "q",
        vec![
            task("b"),
            NewTask {
                priority: 0,
                ..task("a")
            },
        ],
    );
    let first = world.claim(claim_of(&["q"], "c", 2));
    world.create("q", vec![task("c")]);
    let again = world.claim(claim_of(&["q"], "c", 2));
    assert_eq!(first, again);
    world.lease_time_ms += 10_000;
    let later = world.claim(claim_of(&["q"], "c", 2));
    assert_eq!(
        (later[0].token, later[0].lease_ms),
        (first[0].token, 20_000),
        "what is left of the lease"
    );
    assert_eq!(ids(&again), ["a", "b"]);
    world
        .settle("a", first[0].token, complete())
        .expect("settled");
    assert_eq!(ids(&world.claim(claim_of(&["q"], "c", 2))), ["b"]);
    world
        .settle("b", first[1].token, complete())
        .expect("settled");
    assert_eq!(
        ids(&world.claim(claim_of(&["q"], "c", 2))),
        ["c"],
        "nothing runs under the id any more"
    );
}

#[test]
fn claim_ids_of_two_namespaces_do_not_meet() {
    let mut world = World::new();
    world.create("q", vec![task("a")]);
    assert_eq!(world.claim(claim_of(&["q"], "c", 1)).len(), 1);
    assert!(
        world
            .claim(Claim {
                namespace: name("other"),
                ..claim_of(&["q"], "c", 1)
            })
            .is_empty()
    );
}

#[test]
fn tokens_of_a_task_only_grow_also_with_a_new_incarnation() {
    let mut world = World::new();
    world.create("q", vec![task("a")]);
    let mut last = Token(0);
    for round in 0..4 {
        if round == 2 {
            world.incarnation = 2;
            world.index = 0;
        }
        let claimed = world
            .claim(claim_of(&["q"], &format!("c{round}"), 1))
            .remove(0);
        assert!(claimed.token > last);
        last = claimed.token;
        world
            .settle("a", last, SettleAction::Release)
            .expect("released");
    }
}

#[test]
fn queues_that_got_a_task_are_told_once() {
    let mut world = World::new();
    world.create("q", vec![task("a"), task("b")]);
    assert_eq!(world.state.take_gained(), [(name("ns"), name("q"))]);
    world.tick();
    assert!(world.state.take_gained().is_empty());
    let token = world.claim(claim_of(&["q"], "c", 1)).remove(0).token;
    assert!(world.state.take_gained().is_empty());
    world
        .settle("a", token, SettleAction::Release)
        .expect("released");
    assert_eq!(world.state.take_gained(), [(name("ns"), name("q"))]);
}

#[test]
fn a_claim_takes_no_more_than_an_answer_holds_with_its_texts() {
    let mut world = World::new();
    let error = "e".repeat(ERROR_BYTES_MAX);
    let ids: Vec<String> = (0..BATCH_ITEMS_MAX).map(|n| format!("t{n:04}")).collect();
    world.create("q", ids.iter().map(|id| task(id)).collect());
    let all = Claim {
        bytes_max: CLAIM_BYTES_MAX as u64,
        ..claim_of(&["q"], "first", BATCH_ITEMS_MAX as u32)
    };
    for claimed in world.claim(all.clone()) {
        let failed = SettleAction::Fail {
            error: error.clone(),
            retry_after_ms: Some(0),
            discard: false,
        };
        world
            .settle(&claimed.task.id.to_string(), claimed.token, failed)
            .unwrap();
    }
    world.pass(1_000);
    let again = world.claim(Claim {
        claim_id: "again".into(),
        ..all
    });
    assert!(again.len() > 500 && again.len() < BATCH_ITEMS_MAX);
    let bytes = postcard::to_stdvec(&again).unwrap().len();
    assert!(bytes <= ANSWER_BYTES_MAX, "{bytes}");
}
