//! The bytes of everything the log carries and a snapshot keeps. A difference here means that members of
//! two versions would not understand each other: append, raise the feature level, never edit a line.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::command::*;
use super::super::queue::{QueueRow, Totals};
use super::super::row::{self, LastSettle, Past, Phase, SettleKind, TaskRow, Texts};
use super::super::tables::{Meta, Reservation};
use super::*;

/// A line of hex for each value, to compare with those that were agreed on.
#[derive(Default)]
pub struct Golden(Vec<String>);

impl Golden {
    /// The value must also be read back as it was.
    pub fn line<T>(&mut self, what: &str, value: T)
    where
        T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let bytes = postcard::to_stdvec(&value).expect("plain values");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.0.push(format!("{what} {hex}"));
        assert_eq!(postcard::from_bytes::<T>(&bytes), Ok(value), "{what}");
    }

    pub fn check(self, agreed: &str) {
        let written = self.0.join("\n") + "\n";
        assert!(written == agreed, "the encodings now are:\n{written}");
    }
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
    let texts = Texts {
        kind: "mail".into(),
        content_type: "text/plain".into(),
    };
    let mut row = TaskRow {
        seq: 1,
        revision: 13,
        created_ms: 9,
        not_before_ms: 4,
        payload_hash: [8; 16],
        hash: [0; 16],
        id: id("t1"),
        texts: texts.into(),
        past: None,
        lease_ms: 5,
        queue: 2,
        payload_bytes: 7,
        attempts_max: 6,
        priority: 3,
        scheduled: false,
    };
    row.set_past(Past {
        phase,
        failures: 10,
        abandonments: 11,
        token: 12,
        last_settle: Some(LastSettle {
            token: 14,
            kind: SettleKind::Fail,
            state: TaskState::Retryable,
            revision: 15,
        }),
        error: Some("e".into()),
    });
    row
}

#[test]
fn encodings_are_the_bytes_that_were_agreed_on() {
    let mut golden = Golden::default();
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
        golden.line(&format!("command/{what}"), command);
    }
    golden.line(
        "entry",
        Entry {
            lease_time_ms: 1,
            wall_time_ms: START_MS,
            commands: vec![Command::Tick],
        },
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
        golden.line(&format!("outcome/{what}"), outcome);
    }
    for (what, rejection) in rejections {
        golden.line(&format!("rejection/{what}"), rejection);
    }
    use TaskState::{Available, Completed, Discarded, Retryable, Running, Scheduled};
    golden.line(
        "states",
        [
            Scheduled, Available, Running, Retryable, Completed, Discarded,
        ],
    );
    golden.line(
        "stats",
        QueueStats {
            scheduled: 1,
            available: 2,
            oldest_available_ms: 3,
            ..QueueStats::default()
        },
    );
    let running = row::Running {
        deadline_ms: 1,
        holder: Arc::new(row::Holder {
            claim_id: "c".into(),
            worker: "w".into(),
        }),
        place: 3,
    };
    let completed = row::Completed {
        finished_ms: 1,
        result: b"r".to_vec().into(),
    };
    let phases = [
        ("scheduled", Phase::Scheduled),
        ("available", Phase::Available),
        ("running", Phase::Running(running)),
        ("retryable", Phase::Retryable { due_ms: 1 }),
        ("completed", Phase::Completed(completed)),
        ("discarded", Phase::Discarded { finished_ms: 1 }),
    ];
    for (what, phase) in phases {
        golden.line(&format!("row/{what}"), row(phase));
    }
    let totals = Totals {
        created: 1,
        completed: 2,
        failed: 3,
        abandoned: 4,
        discarded: 5,
    };
    golden.line(
        "queue",
        QueueRow {
            id: 1,
            namespace: 2,
            name: name("q"),
            totals,
        },
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
    golden.line("meta", meta);
    golden.check(include_str!("golden.txt"));
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
