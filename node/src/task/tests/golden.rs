//! The bytes of everything the log carries and a snapshot keeps. A difference here means that members of
//! two versions would not understand each other: append, raise the feature level, never edit a line.

use super::super::command::*;
use super::super::queue::{QueueRow, Totals};
use super::super::row::{self, LastSettle, Phase, SettleKind, TaskRow};
use super::super::tables::{Meta, Reservation};
use super::*;

fn hex<T: serde::Serialize>(value: &T) -> String {
    let bytes = postcard::to_stdvec(value).expect("plain values");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn new_task() -> NewTask {
    NewTask {
        not_before_ms: 300,
        payload_hash: [7; 16],
        ..task("t1")
    }
}

fn lease() -> Lease {
    Lease {
        namespace: name("ns"),
        id: id("t1"),
        token: Token::new(1, 9),
    }
}

fn view() -> TaskView {
    TaskView {
        seq: 1,
        namespace: name("ns"),
        queue: name("q"),
        id: id("t1"),
        kind: "mail".into(),
        content_type: "text/plain".into(),
        priority: 2,
        not_before_ms: 3,
        lease_ms: 4,
        attempts_max: 5,
        state: TaskState::Running,
        attempts: 6,
        abandonments: 7,
        created_ms: 8,
        finished_ms: 9,
        token: 10,
        result: Bytes::from_static(b"r"),
        error: "e".into(),
        payload_bytes: 11,
        payload_hash: [12; 16],
        revision: 13,
    }
}

fn row(phase: Phase) -> TaskRow {
    TaskRow {
        seq: 1,
        queue: 2,
        id: id("t1"),
        kind: "mail".into(),
        content_type: "text/plain".into(),
        priority: 3,
        not_before_ms: 4,
        lease_ms: 5,
        attempts_max: 6,
        payload_bytes: 7,
        payload_hash: [8; 16],
        created_ms: 9,
        phase,
        failures: 10,
        abandonments: 11,
        token: 12,
        revision: 13,
        last_settle: Some(Box::new(LastSettle {
            token: 14,
            kind: SettleKind::Fail,
            settled: Settled {
                state: TaskState::Retryable,
                revision: 15,
            },
        })),
        error: Some("e".into()),
        hash: 99,
    }
}

fn written() -> String {
    let mut lines = Vec::new();
    let mut line = |what: &str, bytes: String| lines.push(format!("{what} {bytes}"));
    let settle = |action: SettleAction| {
        Command::Settle(vec![Settle {
            lease: lease(),
            action,
        }])
    };
    let commands = [
        ("tick", Command::Tick),
        (
            "create",
            Command::Create(Create {
                namespace: name("ns"),
                queue: name("q"),
                tasks: vec![new_task()],
            }),
        ),
        (
            "claim",
            Command::Claim(Claim {
                lease_ms: 77,
                ..claim_of(&["q", "p"], "c1", 5)
            }),
        ),
        ("complete", settle(complete())),
        ("fail", settle(fail())),
        (
            "fail-after",
            settle(SettleAction::Fail {
                error: "x".into(),
                retry_after_ms: Some(9),
                discard: true,
            }),
        ),
        ("release", settle(SettleAction::Release)),
        (
            "extend",
            Command::Extend(Extend {
                lease: lease(),
                lease_ms: 5,
            }),
        ),
        (
            "reserve",
            Command::ReserveMembers(ReserveMembers {
                operation_id: "op".into(),
                count: 2,
                above: 3,
            }),
        ),
        ("level", Command::SetLevel(1)),
    ];
    for (what, command) in commands {
        line(&format!("command/{what}"), hex(&command));
    }
    line(
        "entry",
        hex(&Entry {
            lease_time_ms: 1,
            wall_time_ms: START_MS,
            commands: vec![Command::Tick],
        }),
    );
    let rejections = [
        ("duplicate", Rejection::Duplicate { id: id("t1") }),
        ("not-found", Rejection::TaskNotFound { id: id("t1") }),
        ("lease-lost", Rejection::LeaseLost { id: id("t1") }),
        ("too-old", Rejection::IdTooOld { id: id("t1") }),
        ("full", Rejection::Full { bound: "b".into() }),
        ("feature", Rejection::FeatureNotActive { level: 2 }),
    ];
    let outcomes = [
        ("done", Outcome::Done),
        (
            "created",
            Outcome::Created(vec![Ok(Created {
                id: id("t1"),
                revision: 1,
                existed: true,
            })]),
        ),
        (
            "claimed",
            Outcome::Claimed(vec![Claimed {
                task: view(),
                token: Token(2),
                lease_ms: 3,
            }]),
        ),
        (
            "settled",
            Outcome::Settled(vec![Ok(Settled {
                state: TaskState::Completed,
                revision: 1,
            })]),
        ),
        ("extended", Outcome::Extended(Ok(5))),
        ("reserved", Outcome::Reserved(Ok(vec![4, 5]))),
        (
            "rejected",
            Outcome::Created(rejections.iter().map(|(_, why)| Err(why.clone())).collect()),
        ),
    ];
    for (what, outcome) in outcomes {
        line(&format!("outcome/{what}"), hex(&outcome));
    }
    for (what, rejection) in rejections {
        line(&format!("rejection/{what}"), hex(&rejection));
    }
    use TaskState::{Available, Completed, Discarded, Retryable, Running, Scheduled};
    line(
        "states",
        hex(&[
            Scheduled, Available, Running, Retryable, Completed, Discarded,
        ]),
    );
    line(
        "stats",
        hex(&QueueStats {
            scheduled: 1,
            available: 2,
            oldest_available_ms: 3,
            ..QueueStats::default()
        }),
    );
    let running = row::Running {
        deadline_ms: 1,
        claim_id: "c".into(),
        worker: "w".into(),
        place: 3,
    };
    let completed = row::Completed {
        finished_ms: 1,
        result: Bytes::from_static(b"r"),
    };
    let phases = [
        ("scheduled", Phase::Scheduled),
        ("available", Phase::Available),
        ("running", Phase::Running(Box::new(running))),
        ("retryable", Phase::Retryable { due_ms: 1 }),
        ("completed", Phase::Completed(Box::new(completed))),
        ("discarded", Phase::Discarded { finished_ms: 1 }),
    ];
    for (what, phase) in phases {
        line(&format!("row/{what}"), hex(&row(phase)));
    }
    let totals = Totals {
        created: 1,
        completed: 2,
        failed: 3,
        abandoned: 4,
        discarded: 5,
    };
    line(
        "queue",
        hex(&QueueRow {
            id: 1,
            namespace: 2,
            name: name("q"),
            totals,
        }),
    );
    let reservations = vec![Reservation {
        operation_id: "op".into(),
        members: vec![4, 5],
    }];
    let meta = Meta {
        lease_time_ms: 1,
        wall_time_ms: 2,
        feature_level: 1,
        revision: 3,
        last_seq: 4,
        members_reserved_to: 5,
        reservations,
    };
    line("meta", hex(&meta));
    lines.join("\n") + "\n"
}

#[test]
fn encodings_are_the_bytes_that_were_agreed_on() {
    let written = written();
    let agreed = include_str!("golden.txt");
    assert!(written == agreed, "the encodings now are:\n{written}");
}

#[test]
fn every_command_is_read_back_as_it_was() {
    let entry = Entry {
        lease_time_ms: 1,
        wall_time_ms: 2,
        commands: vec![
            Command::Create(Create {
                namespace: name("ns"),
                queue: name("q"),
                tasks: vec![new_task()],
            }),
            Command::Settle(vec![Settle {
                lease: lease(),
                action: fail(),
            }]),
        ],
    };
    let bytes = postcard::to_stdvec(&entry).expect("plain values");
    assert_eq!(postcard::from_bytes::<Entry>(&bytes), Ok(entry));
    for cut in 0..bytes.len() {
        assert!(
            postcard::from_bytes::<Entry>(&bytes[..cut]).is_err(),
            "a half entry is no entry"
        );
    }
}
