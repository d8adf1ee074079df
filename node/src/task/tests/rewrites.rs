//! A new incarnation takes the state over: what changes, and that nothing else does.

use proptest::prelude::*;

use super::super::command::{Rejection, ReserveMembers, TaskState};
use super::super::row::TaskRow;
use super::*;

const NEW_MEMBER: u64 = (2 << 32) + 7;

impl World {
    /// Goes on as the first member of incarnation 2.
    pub fn rewrite(&mut self) {
        self.incarnation = 2;
        self.state.rewrite(self.at(), NEW_MEMBER);
    }

    fn at(&self) -> At {
        At {
            index: self.index,
            incarnation: self.incarnation,
        }
    }

    fn reserve(&mut self, operation: &str) -> Vec<u64> {
        let reserve = ReserveMembers {
            operation_id: operation.into(),
            count: 2,
            above: 0,
        };
        match self.one(Command::ReserveMembers(reserve)) {
            Outcome::Reserved(Ok(members)) => members,
            other => panic!("{other:?}"),
        }
    }
}

/// One task of each state; each that was claimed has failed or was abandoned once before.
fn world() -> (World, Vec<(&'static str, Token)>) {
    let mut world = World::new();
    let later = NewTask {
        not_before_ms: START_MS + 900_000,
        ..task("scheduled")
    };
    let names = ["completed", "discarded", "retryable", "running", "released"];
    world.create("q", names.map(task).to_vec());
    let claimed = world.claim(claim_of(&["q"], "first", 5));
    assert_eq!(claimed.len(), 5);
    // Their leases run out.
    world.pass(40_000);
    let again = world.claim(claim_of(&["q"], "second", 5));
    world.create("q", vec![task("available"), later]);
    let tokens = names.into_iter().zip(again.iter().map(|one| one.token));
    let tokens: Vec<_> = tokens.collect();
    let actions = [complete(), discard(), fail()];
    for ((text, token), action) in tokens.iter().zip(actions) {
        world.settle(text, *token, action).expect("settled");
    }
    let release = SettleAction::Release;
    world
        .settle("released", tokens[4].1, release)
        .expect("released");
    (world, tokens)
}

#[test]
fn a_running_task_is_available_again_and_no_other_changes() {
    let (mut world, tokens) = world();
    let before = world.state.tables().clone();
    world.rewrite();
    world.check();
    let table = [
        ("scheduled", TaskState::Scheduled),
        ("available", TaskState::Available),
        ("running", TaskState::Available),
        ("released", TaskState::Available),
        ("retryable", TaskState::Retryable),
        ("completed", TaskState::Completed),
        ("discarded", TaskState::Discarded),
    ];
    for (text, state) in table {
        let task = world.get(text).expect("kept");
        assert_eq!(task.state, state, "{text}");
        let row = |tables: &super::super::tables::Tables| tables.tasks.get(task.seq).cloned();
        let (was, is) = (row(&before), row(world.state.tables()));
        assert_eq!(was == is, text != "running", "{text}");
    }
    let task = world.get("running").expect("kept");
    assert_eq!((task.attempts, task.abandonments), (0, 1));
    assert_eq!(task.revision, world.at().revision());
    let token = tokens[3].1;
    for action in [complete(), fail(), SettleAction::Release] {
        let lost = world.settle("running", token, action).expect_err("void");
        assert!(matches!(lost, Rejection::LeaseLost { .. }));
    }
    assert!(world.extend("running", token, 0).is_err());
    let again = world.claim(claim_of(&["q"], "third", 9));
    assert_eq!(again.len(), 3);
    assert!(again.iter().all(|one| one.token > token));
    world.check();
}

#[test]
fn a_settle_that_was_answered_before_is_answered_the_same_after() {
    let (mut world, tokens) = world();
    let answers = |world: &mut World| {
        let mut settle = |at: usize, action| world.settle(tokens[at].0, tokens[at].1, action);
        let actions = [(0, complete()), (1, discard()), (2, fail())];
        let mut answers: Vec<_> = actions.map(|(at, action)| settle(at, action)).to_vec();
        answers.push(settle(4, SettleAction::Release));
        answers
    };
    let before = answers(&mut world);
    assert!(before.iter().all(Result::is_ok), "{before:?}");
    world.rewrite();
    assert_eq!(answers(&mut world), before);
    let existed = world.create("q", vec![task("completed")]).remove(0);
    assert!(existed.expect("the same task").existed);
}

#[test]
fn numbers_of_members_go_on_above_the_new_one_and_reservations_are_forgotten() {
    let mut world = World::new();
    world.state.note_members([1 << 32 | 3]);
    assert_eq!(world.reserve("scale"), [1 << 32 | 4, 1 << 32 | 5]);
    world.rewrite();
    assert_eq!(world.reserve("scale"), [NEW_MEMBER + 1, NEW_MEMBER + 2]);
    assert_eq!(world.reserve("scale"), [NEW_MEMBER + 1, NEW_MEMBER + 2]);
    world.check();
}

#[test]
fn a_state_is_rewritten_again_and_an_empty_one_too() {
    let mut world = World::new();
    world.rewrite();
    world.check();
    world
        .create("q", vec![task("t")])
        .remove(0)
        .expect("created");
    let first = world.claim(claim_of(&["q"], "c", 1)).remove(0).token;
    world.incarnation = 3;
    world.state.rewrite(world.at(), 3 << 32 | 1);
    world.check();
    let second = world.claim(claim_of(&["q"], "c", 1)).remove(0).token;
    assert!(second > first && second.0 >> 48 == 3);
}

/// But for what a rewrite may change in a running task.
fn but_for_the_lease(row: &TaskRow) -> TaskRow {
    let mut row = row.clone();
    let mut past = row.past().clone();
    past.phase = super::super::row::Phase::Available;
    row.set_past(past);
    (row.revision, row.hash) = (0, [0; 16]);
    row
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_rewrite_changes_nothing_else_and_everything_after_it_is_greater(
        before in prop::collection::vec(super::properties::play(), 1..60),
        after in prop::collection::vec(super::properties::play(), 1..30),
    ) {
        let mut world = World::new();
        world.state.note_members([1 << 32 | 3]);
        world.reserve("scale");
        let mut last_claim = world.index;
        super::properties::go_on(&mut world, &before, &mut last_claim);
        let tables = world.state.tables().clone();
        world.rewrite();
        world.check();
        let now = world.state.tables();
        let mut meta = tables.meta.clone();
        prop_assert!(now.meta.revision > meta.revision);
        (meta.revision, meta.members_reserved_to) = (now.meta.revision, NEW_MEMBER);
        meta.reservations.clear();
        prop_assert_eq!(&now.meta, &meta);
        prop_assert_eq!(&now.namespaces, &tables.namespaces);
        prop_assert_eq!(&now.queues, &tables.queues);
        prop_assert_eq!(now.tasks.len(), tables.tasks.len());
        let mut greatest = meta.revision - 1;
        for (was, is) in tables.tasks.values().zip(now.tasks.values()) {
            match was.state() {
                TaskState::Running => {
                    prop_assert_eq!(is.state(), TaskState::Available);
                    prop_assert_eq!(but_for_the_lease(was), but_for_the_lease(is));
                }
                _ => prop_assert_eq!(was, is),
            }
            prop_assert!(was.revision <= tables.meta.revision);
            greatest = greatest.max(was.past().token);
        }
        prop_assert!(greatest < meta.revision);
        let (hash, index) = (world.state.hash(), world.index);
        world.state = reload(&world.state);
        prop_assert_eq!(world.state.hash(), hash);
        super::properties::go_on(&mut world, &after, &mut last_claim);
        for row in world.state.tables().tasks.values() {
            let is_new = row.past().token > Token::new(2, index).0;
            prop_assert!(is_new || row.state() != TaskState::Running);
        }
        prop_assert!(world.state.tables().meta.revision > meta.revision);
    }
}
