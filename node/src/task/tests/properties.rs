//! Random histories against the model. A failure prints its seed and the smallest history it found.

use proptest::prelude::*;

use super::super::command::Create;
use super::model::{Model, said};
use super::*;

/// One step of a history; tokens are named by which claim gave them, counted back from the newest.
#[derive(Debug, Clone)]
pub enum Play {
    Create {
        queue: u8,
        ids: Vec<(u8, u8, u8)>,
    },
    Claim {
        queues: Vec<u8>,
        claim_id: u8,
        tasks_max: u32,
        bytes_max: u64,
        lease_ms: u64,
    },
    Settle {
        id: u8,
        back: u8,
        how: u8,
    },
    Extend {
        id: u8,
        back: u8,
        lease_ms: u64,
    },
    Pass {
        lease_ms: u64,
        wall_ms: u64,
    },
    Reload,
}

pub fn play() -> impl Strategy<Value = Play> {
    let tasks = prop::collection::vec((0..12u8, 0..3u8, 0..4u8), 1..4);
    prop_oneof![
        3 => (0..2u8, tasks).prop_map(|(queue, ids)| Play::Create { queue, ids }),
        3 => (prop::collection::vec(0..3u8, 1..3), 0..4u8, 1..4u32, 0..12u64, prop_oneof![Just(0), Just(700)]).prop_map(
            |(queues, claim_id, tasks_max, bytes_max, lease_ms)| Play::Claim {
                queues, claim_id, tasks_max, bytes_max, lease_ms
            }
        ),
        5 => (0..12u8, 0..4u8, 0..6u8).prop_map(|(id, back, how)| Play::Settle { id, back, how }),
        1 => (0..12u8, 0..3u8, prop_oneof![Just(0), Just(2_000)])
            .prop_map(|(id, back, lease_ms)| Play::Extend { id, back, lease_ms }),
        3 => (0..1_500u64, prop_oneof![4 => 0..3_000u64, 1 => Just(50_000)])
            .prop_map(|(lease_ms, wall_ms)| Play::Pass { lease_ms, wall_ms }),
        1 => Just(Play::Reload),
    ]
}

/// Applies each play in an entry of its own; settles aim at the claim before.
pub fn go_on(world: &mut World, plays: &[Play], last_claim: &mut u64) {
    for play in plays {
        if let Play::Pass { lease_ms, wall_ms } = play {
            world.lease_time_ms += lease_ms;
            world.wall_time_ms += wall_ms;
        }
        let command = command(play, *last_claim, world.wall_time_ms);
        let outcomes = world.apply(vec![command]);
        if matches!(&outcomes[..], [Outcome::Claimed(claimed)] if !claimed.is_empty()) {
            *last_claim = world.index;
        }
    }
}

fn command(play: &Play, index: u64, wall: u64) -> Command {
    let queue = |n: u8| name(["p", "q", "none"][n as usize]);
    let lease = |n: u8, back: u8| {
        let token = Token::new(1, index.saturating_sub(u64::from(back)));
        Lease {
            namespace: name("ns"),
            id: id(&format!("t{n}")),
            token,
        }
    };
    match play {
        Play::Create { queue: n, ids } => {
            let tasks = ids
                .iter()
                .map(|(n, priority, when)| NewTask {
                    priority: *priority,
                    not_before_ms: [0, wall - 50, wall + 900, START_MS][*when as usize],
                    lease_ms: 1_000,
                    attempts_max: 2,
                    ..task(&format!("t{n}"))
                })
                .collect();
            Command::Create(Create {
                namespace: name("ns"),
                queue: queue(*n),
                tasks,
            })
        }
        Play::Claim {
            queues,
            claim_id,
            tasks_max,
            bytes_max,
            lease_ms,
        } => Command::Claim(Claim {
            queues: queues.iter().map(|n| queue(*n)).collect(),
            bytes_max: *bytes_max,
            lease_ms: *lease_ms,
            ..claim_of(&[], &format!("c{claim_id}"), *tasks_max)
        }),
        Play::Settle { id, back, how } => {
            let action = match how {
                0 | 1 => complete(),
                2 => fail(),
                3 => SettleAction::Fail {
                    error: "at once".into(),
                    retry_after_ms: Some(0),
                    discard: false,
                },
                4 => discard(),
                _ => SettleAction::Release,
            };
            Command::Settle(vec![Settle {
                lease: lease(*id, *back),
                action,
            }])
        }
        Play::Extend { id, back, lease_ms } => Command::Extend(Extend {
            lease: lease(*id, *back),
            lease_ms: *lease_ms,
        }),
        Play::Pass { .. } | Play::Reload => Command::Tick,
    }
}

fn run(entries: Vec<Vec<Play>>) -> Result<(), TestCaseError> {
    let bounds = Bounds {
        finished_rows_max: 3,
        finished_age_ms_max: 40_000,
        ..Bounds::default()
    };
    let mut world = World::with(bounds);
    let mut model = Model::new(bounds);
    let mut tokens = std::collections::BTreeMap::new();
    // The index at which the last tasks were claimed: settles aim near it.
    let mut last_claim = 0;
    for plays in entries {
        for play in &plays {
            match play {
                Play::Pass { lease_ms, wall_ms } => {
                    world.lease_time_ms += lease_ms;
                    world.wall_time_ms += wall_ms;
                }
                Play::Reload => world.state = reload(&world.state),
                _ => {}
            }
        }
        let commands: Vec<Command> = plays
            .iter()
            .map(|play| command(play, last_claim, world.wall_time_ms))
            .collect();
        let entry = Entry {
            lease_time_ms: world.lease_time_ms,
            wall_time_ms: world.wall_time_ms,
            commands: commands.clone(),
        };
        let expected = model.apply(
            At {
                index: world.index + 1,
                incarnation: 1,
            },
            &entry,
        );
        let outcomes = world.apply(commands);
        prop_assert_eq!(outcomes.iter().map(said).collect::<Vec<_>>(), expected);
        if outcomes
            .iter()
            .any(|o| matches!(o, Outcome::Claimed(claimed) if !claimed.is_empty()))
        {
            last_claim = world.index;
        }
        world.check();
        compare(&world, &model)?;
        for task in &model.tasks {
            let before = tokens.insert(task.order.2, task.token).unwrap_or(0);
            prop_assert!(task.token >= before, "the token of {} went back", task.id);
        }
    }
    Ok(())
}

fn compare(world: &World, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(world.state.task_rows(), model.tasks.len() as u64);
    for task in &model.tasks {
        let Some(view) = world.get(&task.id) else {
            return Err(TestCaseError::fail(format!("no {}", task.id)));
        };
        let attempts =
            task.failures + u32::from(task.state == super::super::command::TaskState::Running);
        prop_assert_eq!(
            (
                view.seq,
                view.state,
                view.token,
                view.attempts,
                view.abandonments
            ),
            (
                task.order.2,
                task.state,
                task.token,
                attempts,
                task.abandonments
            )
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_agree_with_the_model(
        entries in prop::collection::vec(prop::collection::vec(play(), 1..4), 1..60)
    ) {
        run(entries)?;
    }

    #[test]
    fn the_same_entries_give_the_same_hash_on_every_member(
        plays in prop::collection::vec(play(), 1..60), reload_at in 0..60usize
    ) {
        let (mut one, mut two) = (World::new(), World::new());
        for (step, play) in plays.iter().enumerate() {
            if step == reload_at {
                two.state = reload(&two.state);
            }
            for world in [&mut one, &mut two] {
                if let Play::Pass { lease_ms, wall_ms } = play {
                    world.lease_time_ms += lease_ms;
                    world.wall_time_ms += wall_ms;
                }
            }
            let command = command(play, step as u64, one.wall_time_ms);
            prop_assert_eq!(one.apply(vec![command.clone()]), two.apply(vec![command]));
            prop_assert_eq!(one.state.hash(), two.state.hash());
        }
    }
}
