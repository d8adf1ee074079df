//! Every state × every command: what is answered and where the task stands then.

use super::super::command::{Rejection, SettleAction, TaskState};
use super::super::id::Token;
use super::*;

#[derive(Debug, Clone, Copy, PartialEq)]
enum From {
    Absent,
    Scheduled,
    Available,
    Running,
    Retryable,
    Completed,
    Discarded,
}

/// From where, what is answered, where the task stands then.
type Row = (From, &'static str, &'static str);

#[derive(Debug, Clone, Copy)]
enum Do {
    CreateSame,
    CreateOther,
    Claim,
    Complete,
    Fail,
    FailAtOnce,
    Discard,
    Release,
    Extend,
    StaleComplete,
    LeaseRunsOut,
    HourPasses,
    DayPasses,
}

/// The task `t` in the given state, and the token of its last lease.
fn world(from: From) -> (World, Token) {
    let mut world = World::new();
    let mut token = Token(0);
    let mut new = task("t");
    if from == From::Scheduled {
        new.not_before_ms = START_MS + 60_000;
    }
    if from != From::Absent {
        world.create("q", vec![new]).remove(0).expect("created");
    }
    if matches!(
        from,
        From::Running | From::Retryable | From::Completed | From::Discarded
    ) {
        token = world.claim(claim_of(&["q"], "c", 1)).remove(0).token;
    }
    match from {
        From::Retryable => drop(world.settle("t", token, fail()).expect("settled")),
        From::Completed => drop(world.settle("t", token, complete()).expect("settled")),
        From::Discarded => drop(world.settle("t", token, discard()).expect("settled")),
        _ => {}
    }
    (world, token)
}

fn short(result: Result<TaskState, Rejection>) -> String {
    match result {
        Ok(state) => format!("{state:?}"),
        Err(Rejection::TaskNotFound { .. }) => "not found".into(),
        Err(Rejection::LeaseLost { .. }) => "lost".into(),
        Err(Rejection::Duplicate { .. }) => "duplicate".into(),
        Err(other) => format!("{other:?}"),
    }
}

fn act(from: From, what: Do) -> (String, String) {
    let (mut world, token) = world(from);
    let mut settle = |action: SettleAction, token: Token| {
        short(world.settle("t", token, action).map(|s| s.state))
    };
    let answer = match what {
        Do::Complete => settle(complete(), token),
        Do::Fail => settle(fail(), token),
        Do::FailAtOnce => settle(
            SettleAction::Fail {
                error: String::new(),
                retry_after_ms: Some(0),
                discard: false,
            },
            token,
        ),
        Do::Discard => settle(discard(), token),
        Do::Release => settle(SettleAction::Release, token),
        Do::StaleComplete => settle(complete(), Token(token.0 + 99)),
        Do::CreateSame | Do::CreateOther => {
            let mut new = task("t");
            if from == From::Scheduled {
                new.not_before_ms = START_MS + 60_000;
            }
            if let Do::CreateOther = what {
                new.priority = 1;
            }
            match world.create("q", vec![new]).remove(0) {
                Ok(created) if created.existed => "existed".into(),
                Ok(_) => "created".into(),
                Err(rejection) => short(Err(rejection)),
            }
        }
        Do::Claim => format!("{} tasks", world.claim(claim_of(&["q"], "d", 9)).len()),
        Do::Extend => match world.extend("t", token, 5_000) {
            Ok(lease_ms) => format!("{lease_ms} ms"),
            Err(rejection) => short(Err(rejection)),
        },
        Do::LeaseRunsOut => {
            world.lease_time_ms += 30_000;
            world.tick();
            String::new()
        }
        Do::HourPasses => {
            world.wall_time_ms += 3_600_000;
            world.tick();
            String::new()
        }
        Do::DayPasses => {
            world.wall_time_ms += 24 * 3_600_000;
            world.tick();
            String::new()
        }
    };
    world.check();
    (
        answer,
        world
            .get("t")
            .map_or("absent".into(), |view| format!("{:?}", view.state)),
    )
}

#[test]
fn every_command_in_every_state_does_what_the_table_says() {
    use self::From::*;
    use Do::*;
    let table: &[(Do, [Row; 7])] = &[
        (
            CreateSame,
            [
                (Absent, "created", "Available"),
                (Scheduled, "existed", "Scheduled"),
                (Available, "existed", "Available"),
                (Running, "existed", "Running"),
                (Retryable, "existed", "Retryable"),
                (Completed, "existed", "Completed"),
                (Discarded, "existed", "Discarded"),
            ],
        ),
        (
            CreateOther,
            [
                (Absent, "created", "Available"),
                (Scheduled, "duplicate", "Scheduled"),
                (Available, "duplicate", "Available"),
                (Running, "duplicate", "Running"),
                (Retryable, "duplicate", "Retryable"),
                (Completed, "duplicate", "Completed"),
                (Discarded, "duplicate", "Discarded"),
            ],
        ),
        (
            Claim,
            [
                (Absent, "0 tasks", "absent"),
                (Scheduled, "0 tasks", "Scheduled"),
                (Available, "1 tasks", "Running"),
                (Running, "0 tasks", "Running"),
                (Retryable, "0 tasks", "Retryable"),
                (Completed, "0 tasks", "Completed"),
                (Discarded, "0 tasks", "Discarded"),
            ],
        ),
        (
            Complete,
            [
                (Absent, "not found", "absent"),
                (Scheduled, "lost", "Scheduled"),
                (Available, "lost", "Available"),
                (Running, "Completed", "Completed"),
                (Retryable, "lost", "Retryable"),
                (Completed, "Completed", "Completed"),
                (Discarded, "lost", "Discarded"),
            ],
        ),
        (
            Fail,
            [
                (Absent, "not found", "absent"),
                (Scheduled, "lost", "Scheduled"),
                (Available, "lost", "Available"),
                (Running, "Retryable", "Retryable"),
                (Retryable, "Retryable", "Retryable"),
                (Completed, "lost", "Completed"),
                (Discarded, "Discarded", "Discarded"),
            ],
        ),
        (
            FailAtOnce,
            [
                (Absent, "not found", "absent"),
                (Scheduled, "lost", "Scheduled"),
                (Available, "lost", "Available"),
                (Running, "Available", "Available"),
                (Retryable, "Retryable", "Retryable"),
                (Completed, "lost", "Completed"),
                (Discarded, "Discarded", "Discarded"),
            ],
        ),
        (
            Discard,
            [
                (Absent, "not found", "absent"),
                (Scheduled, "lost", "Scheduled"),
                (Available, "lost", "Available"),
                (Running, "Discarded", "Discarded"),
                (Retryable, "Retryable", "Retryable"),
                (Completed, "lost", "Completed"),
                (Discarded, "Discarded", "Discarded"),
            ],
        ),
        (
            Release,
            [
                (Absent, "not found", "absent"),
                (Scheduled, "lost", "Scheduled"),
                (Available, "lost", "Available"),
                (Running, "Available", "Available"),
                (Retryable, "lost", "Retryable"),
                (Completed, "lost", "Completed"),
                (Discarded, "lost", "Discarded"),
            ],
        ),
        (
            Extend,
            [
                (Absent, "not found", "absent"),
                (Scheduled, "lost", "Scheduled"),
                (Available, "lost", "Available"),
                (Running, "5000 ms", "Running"),
                (Retryable, "lost", "Retryable"),
                (Completed, "lost", "Completed"),
                (Discarded, "lost", "Discarded"),
            ],
        ),
        (
            StaleComplete,
            [
                (Absent, "not found", "absent"),
                (Scheduled, "lost", "Scheduled"),
                (Available, "lost", "Available"),
                (Running, "lost", "Running"),
                (Retryable, "lost", "Retryable"),
                (Completed, "lost", "Completed"),
                (Discarded, "lost", "Discarded"),
            ],
        ),
        (
            LeaseRunsOut,
            [
                (Absent, "", "absent"),
                (Scheduled, "", "Scheduled"),
                (Available, "", "Available"),
                (Running, "", "Available"),
                (Retryable, "", "Retryable"),
                (Completed, "", "Completed"),
                (Discarded, "", "Discarded"),
            ],
        ),
        (
            HourPasses,
            [
                (Absent, "", "absent"),
                (Scheduled, "", "Available"),
                (Available, "", "Available"),
                (Running, "", "Running"),
                (Retryable, "", "Available"),
                (Completed, "", "Completed"),
                (Discarded, "", "Discarded"),
            ],
        ),
        (
            DayPasses,
            [
                (Absent, "", "absent"),
                (Scheduled, "", "Available"),
                (Available, "", "Available"),
                (Running, "", "Running"),
                (Retryable, "", "Available"),
                (Completed, "", "absent"),
                (Discarded, "", "absent"),
            ],
        ),
    ];
    let mut wrong = Vec::new();
    for (what, rows) in table {
        for (from, answer, then) in rows {
            let got = act(*from, *what);
            if (got.0.as_str(), got.1.as_str()) != (*answer, *then) {
                wrong.push(format!(
                    "{what:?} from {from:?}: {got:?}, the table says {:?}",
                    (answer, then)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
