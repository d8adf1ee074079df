//! The bytes of what members send each other when a follower forwards. A difference here means that members
//! of two versions would not understand each other: append, never edit a line.

use bytes::Bytes;

use super::request::*;
use crate::task::command::{Command, Outcome, QueueStats, Rejection, TaskState, TaskView};
use crate::task::tests::golden::Golden;
use crate::task::tests::{claim_of, id, name};

fn task() -> TaskWithPayload {
    TaskWithPayload {
        task: TaskView {
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
        },
        payload: Bytes::from_static(b"p"),
    }
}

fn requests(golden: &mut Golden) {
    let claim = claim_of(&["q"], "c1", 2);
    let list = List {
        namespace: name("ns"),
        queue: name("q"),
        states: vec![TaskState::Available, TaskState::Discarded],
        page_size: 3,
        after_seq: 4,
        with_payload: true,
    };
    golden.line("request/write", Request::Write(Command::Tick));
    golden.line(
        "request/claim",
        Request::Claim {
            claim,
            wait_ms: 300,
        },
    );
    golden.line(
        "request/get",
        Request::Get {
            namespace: name("ns"),
            id: id("t1"),
            with_payload: true,
        },
    );
    golden.line("request/list", Request::List(list));
    golden.line(
        "request/queue_stats",
        Request::QueueStats {
            namespace: name("ns"),
            queue: name("q"),
        },
    );
}

fn answers(golden: &mut Golden) {
    let mut ok = |what: &str, response| golden.line(what, Ok::<Response, Error>(response));
    ok("answer/outcome", Response::Outcome(Outcome::Done));
    let claimed = ClaimedTask {
        task: task(),
        token: 2,
        lease_ms: 3,
    };
    ok("answer/claimed", Response::Claimed(vec![claimed]));
    ok("answer/task", Response::Task(task()));
    let page = Page {
        tasks: vec![task()],
        next_after_seq: 1,
        revision: 2,
    };
    ok("answer/page", Response::Page(page));
    let stats = QueueStats {
        scheduled: 1,
        available: 2,
        running: 3,
        retryable: 4,
        completed: 5,
        discarded: 6,
        created_total: 7,
        completed_total: 8,
        failed_total: 9,
        abandoned_total: 10,
        discarded_total: 11,
        payload_bytes: 12,
        oldest_available_ms: 13,
    };
    ok("answer/queue_stats", Response::QueueStats(stats));
}

fn errors(golden: &mut Golden) {
    let mut error = |what: &str, error| golden.line(what, Err::<Response, Error>(error));
    let rejection = Rejection::TaskNotFound { id: id("t1") };
    error("error/rejected", Error::Rejected(rejection));
    for (what, cause) in [
        ("error/no_leader", UnavailableCause::NoLeader),
        ("error/not_ready", UnavailableCause::NotReady),
    ] {
        let unavailable = Error::Unavailable {
            cause,
            reason: "r".into(),
            retry_after_ms: 300,
        };
        error(what, unavailable);
    }
    error(
        "error/overloaded",
        Error::Overloaded {
            bound: "b".into(),
            retry_after_ms: 300,
        },
    );
    error("error/disk_high_water", Error::DiskHighWater);
    let reason = "r".into();
    error("error/outcome_unknown", Error::OutcomeUnknown { reason });
    let bound = "b".into();
    error("error/too_large", Error::TooLarge { bound });
}

#[test]
fn forwarded_requests_and_their_answers_keep_their_bytes() {
    let mut golden = Golden::default();
    requests(&mut golden);
    answers(&mut golden);
    errors(&mut golden);
    golden.check(include_str!("golden.txt"));
}
