//! Settle and extend: fenced by the token, once by the token.

use super::super::command::{Rejection, TaskState};
use super::super::settle::back_off_ms;
use super::*;

fn running(world: &mut World) -> Token {
    world.create("q", vec![task("a")]);
    world.claim(claim_of(&["q"], "c", 1)).remove(0).token
}

#[test]
fn a_completed_task_keeps_its_result_and_drops_its_payload() {
    let mut world = World::new();
    let token = running(&mut world);
    assert_eq!(world.get("a").map(|view| view.attempts), Some(1));
    world.settle("a", token, complete()).expect("settled");
    let view = world.get("a").expect("the row is kept");
    assert_eq!(
        (view.state, view.result.as_ref(), view.finished_ms),
        (TaskState::Completed, &b"fine"[..], START_MS)
    );
    assert!(world.payloads.is_empty());
    world.check();
}

#[test]
fn a_settle_sent_twice_takes_effect_once() {
    for action in [complete(), fail(), discard(), SettleAction::Release] {
        let mut world = World::new();
        let token = running(&mut world);
        let first = world.settle("a", token, action.clone()).expect("settled");
        let before = world.get("a");
        let again = world.settle("a", token, action).expect("a retry");
        assert_eq!((first, before), (again, world.get("a")));
        let stats = world
            .state
            .queue_stats(&name("ns"), &name("q"), 0)
            .expect("there is a queue");
        assert!(stats.completed_total + stats.failed_total <= 1);
    }
}

#[test]
fn a_settle_is_remembered_while_the_next_lease_runs_and_no_longer() {
    let mut world = World::new();
    let first = running(&mut world);
    let failed = world.settle("a", first, fail()).expect("settled");
    world.pass(3_600_000);
    let second = world.claim(claim_of(&["q"], "d", 1)).remove(0).token;
    assert_eq!(world.settle("a", first, fail()), Ok(failed));
    let lost = Err(Rejection::LeaseLost { id: id("a") });
    assert_eq!(world.settle("a", first, complete()), lost);
    world.settle("a", second, complete()).expect("settled");
    assert_eq!(world.settle("a", first, fail()), lost);
}

#[test]
fn a_token_guessed_within_its_own_entry_settles_nothing() {
    let mut world = World::new();
    world.create("q", vec![task("a")]);
    let token = Token::new(1, 2);
    let lease = Lease {
        namespace: name("ns"),
        id: id("a"),
        token,
    };
    let outcomes = world.apply(vec![
        Command::Claim(claim_of(&["q"], "c", 1)),
        Command::Settle(vec![Settle {
            lease,
            action: SettleAction::Release,
        }]),
    ]);
    assert_eq!(
        outcomes[1],
        Outcome::Settled(vec![Err(Rejection::LeaseLost { id: id("a") })])
    );
    world
        .settle("a", token, complete())
        .expect("in the next entry it is the holder's");
}

#[test]
fn failures_up_to_the_bound_are_retried_and_then_discarded() {
    let mut world = World::new();
    world.create("q", vec![task("a")]);
    let states: Vec<TaskState> = (0..3)
        .map(|round| {
            let token = world
                .claim(claim_of(&["q"], &format!("c{round}"), 1))
                .remove(0)
                .token;
            let state = world.settle("a", token, fail()).expect("settled").state;
            world.pass(3_600_000);
            state
        })
        .collect();
    assert_eq!(
        states,
        [
            TaskState::Retryable,
            TaskState::Retryable,
            TaskState::Discarded
        ]
    );
    let view = world.get("a").expect("the row is kept");
    assert_eq!((view.attempts, view.error.as_str()), (3, "no"));
    world.check();
}

#[test]
fn the_back_off_doubles_to_an_hour_with_a_tenth_of_spread() {
    let hour_ms = 3_600_000;
    for (failures, expected_ms) in [
        (1, 1_000),
        (2, 2_000),
        (3, 4_000),
        (12, 2_048_000),
        (13, hour_ms),
        (900, hour_ms),
    ] {
        let spread: Vec<u64> = (1..200).map(|seq| back_off_ms(failures, seq)).collect();
        assert!(
            spread
                .iter()
                .all(|ms| (expected_ms..=expected_ms + expected_ms / 10).contains(ms))
        );
        assert!(
            spread
                .iter()
                .collect::<std::collections::BTreeSet<_>>()
                .len()
                > 50
        );
    }
}

#[test]
fn the_worker_may_name_the_wait_itself() {
    let mut world = World::new();
    let token = running(&mut world);
    let action = SettleAction::Fail {
        error: "busy".into(),
        retry_after_ms: Some(500),
        discard: false,
    };
    world.settle("a", token, action).expect("settled");
    assert_eq!(
        world.state.next_deadlines().wall_time_ms,
        Some(START_MS + 500)
    );
    world.pass(499);
    assert_eq!(world.state.available(&name("ns"), &name("q")), 0);
    world.pass(1);
    assert_eq!(world.state.available(&name("ns"), &name("q")), 1);
}

#[test]
fn a_release_costs_no_attempt_and_no_abandonment() {
    let mut world = World::new();
    let token = running(&mut world);
    world
        .settle("a", token, SettleAction::Release)
        .expect("released");
    let view = world.get("a").expect("it is there");
    assert_eq!((view.attempts, view.abandonments), (0, 0));
}

#[test]
fn an_extend_counts_from_now_and_only_for_the_holder() {
    let mut world = World::new();
    let token = running(&mut world);
    world.lease_time_ms += 20_000;
    assert_eq!(world.extend("a", token, 0), Ok(30_000));
    assert_eq!(world.state.next_deadlines().lease_time_ms, Some(50_000));
    assert_eq!(world.extend("a", token, 60_000), Ok(60_000));
    assert_eq!(
        world.extend("a", Token(1), 60_000),
        Err(Rejection::LeaseLost { id: id("a") })
    );
    world.lease_time_ms += 59_999;
    world.tick();
    assert_eq!(
        world.get("a").map(|view| view.state),
        Some(TaskState::Running)
    );
    world.check();
}
