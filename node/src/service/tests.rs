//! The service over real Raft: what callers get when members, callers and disks come and go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::request::{ClaimedTask, Error, List, Page, Request, Response, UnavailableCause};
use super::{Origin, Service};
use crate::limits::{
    ANSWER_BYTES_MAX, COMMAND_BYTES_MAX, PROPOSALS_WAITING_BYTES_MAX, WAITERS_MAX,
};
use crate::metrics::Metrics;
use crate::raft::consensus::Consensus;
use crate::raft::tests::cluster::{Above, ClusterOf, id};
use crate::raft::transport::peers::Peers;
use crate::raft::transport::wire::Facts;
use crate::storage::store::Store;
use crate::task::command::{
    Claim, Command, Create, Lease, NewTask, Outcome, Settle, SettleAction, TaskView,
};
use crate::task::id::{Name, TaskId, Token};

type Cluster = ClusterOf<Service>;
type Answer = Result<Response, Error>;

const SOON: Duration = Duration::from_secs(60);
const A_WHILE_MS: u64 = 50_000;

impl Above for Service {
    fn start(
        consensus: Consensus,
        store: Arc<Store>,
        peers: Arc<Peers>,
        own: watch::Receiver<Facts>,
    ) -> Service {
        Service::new(consensus, store, peers, own, Arc::new(Metrics::default()))
    }

    async fn answer(&self, request: Bytes, deadline: tokio::time::Instant) -> Bytes {
        self.answer_peer(request, deadline.into_std()).await
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn create_with(ids: &[String], lease_ms: u64, payload: &[u8]) -> Command {
    let task = |id: &String| NewTask {
        id: TaskId::parse(id).unwrap(),
        kind: String::new(),
        content_type: String::new(),
        priority: 0,
        not_before_ms: 0,
        lease_ms,
        attempts_max: 3,
        payload_hash: crate::task::hash::of_payload(payload),
        payload: Bytes::copy_from_slice(payload),
    };
    Command::Create(Create {
        namespace: name("n"),
        queue: name("q"),
        tasks: ids.iter().map(task).collect(),
    })
}

fn create(id: &str) -> Request {
    Request::Write(create_with(&[id.to_owned()], 60_000, b"work"))
}

fn claim(claim_id: &str, wait_ms: u64) -> Request {
    Request::Claim {
        claim: Claim {
            namespace: name("n"),
            queues: vec![name("q"), name("other")],
            tasks_max: 10,
            bytes_max: 1 << 20,
            lease_ms: 0,
            claim_id: claim_id.into(),
            worker: String::new(),
        },
        wait_ms,
    }
}

fn complete(id: &str, token: u64) -> Request {
    let lease = Lease {
        namespace: name("n"),
        id: TaskId::parse(id).unwrap(),
        token: Token(token),
    };
    let action = SettleAction::Complete {
        result: Bytes::new(),
    };
    Request::Write(Command::Settle(vec![Settle { lease, action }]))
}

fn tasks(answer: Answer) -> Vec<ClaimedTask> {
    match answer {
        Ok(Response::Claimed(tasks)) => tasks,
        other => panic!("{other:?}"),
    }
}

impl Cluster {
    async fn ask(&self, n: u64, request: Request) -> Answer {
        let service = &self.member(n).above;
        let deadline = Instant::now() + SOON;
        service.serve(request, Origin::Client, deadline).await
    }

    fn asking(&self, n: u64, request: Request, origin: Origin) -> JoinHandle<Answer> {
        let service = self.member(n).above.clone();
        tokio::spawn(async move { service.serve(request, origin, Instant::now() + SOON).await })
    }

    fn follower(&self, leader: u64) -> u64 {
        *self.running.keys().find(|n| **n != leader).unwrap()
    }

    /// A leader that serves.
    async fn serving_leader(&self) -> u64 {
        let leader = self.leader().await;
        self.ask(leader, claim("nobody", 0)).await.unwrap();
        leader
    }

    fn view(&self, n: u64, id: &str) -> Option<TaskView> {
        let id = TaskId::parse(id).unwrap();
        self.member(n)
            .store
            .read(|state| state.get(&name("n"), &id))
    }

    fn last_applied(&self, n: u64) -> u64 {
        let (applied, _) = self.member(n).store.applied_state();
        applied.map_or(0, |log_id| log_id.index)
    }

    /// Looks again with each entry until it holds.
    async fn until(&self, n: u64, holds: impl Fn() -> bool) {
        let mut progress = self.member(n).store.progress();
        let held = progress.wait_for(|_| holds());
        tokio::time::timeout(SOON, held).await.unwrap().unwrap();
    }

    async fn parked(&self, n: u64, count: u64) {
        let parked = async {
            while self.member(n).above.waiters() != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, parked).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_whose_caller_is_gone_go_back_without_attempt_or_abandonment() {
    let cluster = Cluster::start(1).await;
    let leader = cluster.serving_leader().await;
    cluster.ask(leader, create("a")).await.unwrap();
    // The caller is gone between the answer and its look at it.
    let claims = &cluster.member(leader).above.claims;
    let Request::Claim { claim, .. } = claim("lost", 0) else {
        unreachable!()
    };
    let granted = claims.enter(claim, Instant::now()).unwrap().await.unwrap();
    assert!(!granted.as_ref().unwrap().is_empty());
    assert_eq!(cluster.view(leader, "a").unwrap().attempts, 1);
    drop(granted);
    let back = || {
        cluster
            .view(leader, "a")
            .is_some_and(|task| task.attempts == 0)
    };
    cluster.until(leader, back).await;
    assert_eq!(cluster.view(leader, "a").unwrap().abandonments, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_a_retry_has_taken_over_are_not_given_back() {
    let cluster = Cluster::start(1).await;
    let leader = cluster.serving_leader().await;
    cluster.ask(leader, create("a")).await.unwrap();
    let claims = &cluster.member(leader).above.claims;
    let Request::Claim { claim: first, .. } = claim("again", 0) else {
        unreachable!()
    };
    let lost = claims.enter(first, Instant::now()).unwrap().await.unwrap();
    let kept = tasks(cluster.ask(leader, claim("again", 0)).await);
    assert_eq!(kept.len(), 1);
    drop(lost);
    // A release would be ahead of this in the log.
    cluster.ask(leader, create("b")).await.unwrap();
    let done = cluster.ask(leader, complete("a", kept[0].token)).await;
    assert!(
        matches!(&done, Ok(Response::Outcome(Outcome::Settled(each))) if each[0].is_ok()),
        "{done:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_are_turned_away_at_once_when_office_is_lost() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.serving_leader().await;
    let waiting = cluster.asking(leader, claim("w", A_WHILE_MS), Origin::Peer);
    cluster.parked(leader, 1).await;
    let to = cluster.follower(leader);
    assert!(
        cluster
            .member(leader)
            .consensus
            .hand_over(id(to), SOON)
            .await
    );
    let answer = tokio::time::timeout(SOON / 4, waiting).await.unwrap();
    assert!(
        matches!(
            answer.unwrap(),
            Err(Error::Unavailable {
                cause: UnavailableCause::NoLeader,
                ..
            })
        ),
        "nothing was appended"
    );
    cluster.parked(leader, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_sent_again_to_the_next_leader_gets_the_same_tasks() {
    let mut cluster = Cluster::start(3).await;
    let first = cluster.serving_leader().await;
    for id in ["a", "b"] {
        cluster.ask(first, create(id)).await.unwrap();
    }
    let before = tasks(cluster.ask(first, claim("c", 0)).await);
    assert_eq!(before.len(), 2);
    cluster.stop(first).await;
    let second = cluster.serving_leader().await;
    let after = tasks(cluster.ask(cluster.follower(second), claim("c", 0)).await);
    let held = |tasks: &[ClaimedTask]| -> Vec<_> {
        let of = |claimed: &ClaimedTask| (claimed.task.task.id.clone(), claimed.token);
        tasks.iter().map(of).collect()
    };
    assert_eq!(held(&before), held(&after));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_gets_what_comes_through_another_member() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.serving_leader().await;
    let follower = cluster.follower(leader);
    let waiting = cluster.asking(follower, claim("w", A_WHILE_MS), Origin::Client);
    cluster.parked(leader, 1).await;
    cluster.ask(follower, create("a")).await.unwrap();
    let got = tasks(waiting.await.unwrap());
    assert_eq!(got[0].task.payload, "work");
    cluster.parked(leader, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_while_nothing_is_due_and_one_tick_for_one_deadline() {
    let cluster = Cluster::start(1).await;
    let leader = cluster.serving_leader().await;
    let short = create_with(&["a".to_owned()], 1_500, b"");
    cluster.ask(leader, Request::Write(short)).await.unwrap();
    let got = tasks(cluster.ask(leader, claim("c", 0)).await);
    assert_eq!(got.len(), 1);
    let claimed_at = cluster.last_applied(leader);
    let idle = cluster.asking(leader, claim("idle", A_WHILE_MS), Origin::Client);
    cluster.parked(leader, 1).await;
    // The one entry until the lease has run out is the tick that ends it; the idle claim takes the task.
    let abandoned = || cluster.view(leader, "a").unwrap().abandonments == 1;
    cluster.until(leader, abandoned).await;
    assert_eq!(tasks(idle.await.unwrap()).len(), 1);
    assert_eq!(cluster.last_applied(leader), claimed_at + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nearly_full_disk_of_one_follower_refuses_creates_everywhere_and_no_settle() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.serving_leader().await;
    let follower = cluster.follower(leader);
    cluster.ask(leader, create("a")).await.unwrap();
    let token = tasks(cluster.ask(leader, claim("c", 0)).await)[0].token;
    let own = &cluster.member(follower).own;
    own.send_modify(|facts| facts.disk_high_water = true);
    let mut tries = 0;
    // The leader learns of it with the next heartbeat.
    loop {
        tries += 1;
        match cluster.ask(leader, create(&format!("b{tries}"))).await {
            Err(Error::DiskHighWater) => break,
            other => assert!(other.is_ok() && tries < 10_000, "{other:?}"),
        }
    }
    for n in 1..=3 {
        assert_eq!(
            cluster.ask(n, create("c")).await,
            Err(Error::DiskHighWater),
            "through member {n}"
        );
    }
    cluster.ask(follower, complete("a", token)).await.unwrap();
    assert_eq!(
        tasks(cluster.ask(leader, claim("d", 0)).await).len(),
        (tries - 1).min(10)
    );
    let own = &cluster.member(follower).own;
    own.send_modify(|facts| facts.disk_high_water = false);
    while cluster.ask(leader, create("c")).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_many_large_tasks_passes_through_a_follower() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.serving_leader().await;
    let payload = vec![7; 100 << 10];
    for n in 0..90 {
        let create = create_with(&[format!("t{n}")], 60_000, &payload);
        cluster.ask(leader, Request::Write(create)).await.unwrap();
    }
    let (mut after_seq, mut seen) = (0, 0);
    loop {
        let list = List {
            namespace: name("n"),
            queue: name("q"),
            states: Vec::new(),
            page_size: 1_000,
            after_seq,
            with_payload: true,
        };
        let follower = cluster.follower(leader);
        let page: Page = match cluster.ask(follower, Request::List(list)).await {
            Ok(Response::Page(page)) => page,
            other => panic!("{:?}", other.err()),
        };
        let bytes: usize = page.tasks.iter().map(|task| task.payload.len()).sum();
        assert!(bytes <= ANSWER_BYTES_MAX);
        seen += page.tasks.len();
        after_seq = page.next_after_seq;
        if after_seq == 0 {
            break;
        }
    }
    assert_eq!(seen, 90);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_no_entry_holds_is_refused_and_the_leader_goes_on() {
    let cluster = Cluster::start(1).await;
    let leader = cluster.serving_leader().await;
    let large = create_with(&["a".to_owned()], 60_000, &vec![7; COMMAND_BYTES_MAX]);
    let refused = cluster.ask(leader, Request::Write(large)).await;
    assert!(
        matches!(refused, Err(Error::TooLarge { .. })),
        "{refused:?}"
    );
    cluster.ask(leader, create("b")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_quorum_does_not_say_that_there_is_no_task() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.serving_leader().await;
    for n in 1..=3 {
        if n != leader {
            cluster.stop(n).await;
        }
    }
    let service = &cluster.member(leader).above;
    let deadline = Instant::now() + Duration::from_secs(2);
    let answer = service.serve(claim("c", 0), Origin::Client, deadline).await;
    assert!(
        matches!(answer, Err(Error::Unavailable { .. })),
        "{answer:?}"
    );
    // A write is appended, so it may still be done: its caller cannot be told that nothing was.
    let deadline = Instant::now() + Duration::from_secs(1);
    let answer = service.serve(create("a"), Origin::Client, deadline).await;
    assert!(
        matches!(
            answer,
            Err(Error::OutcomeUnknown { .. } | Error::Unavailable { .. })
        ),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_wait_are_bounded_in_bytes() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.serving_leader().await;
    for n in 1..=3 {
        if n != leader {
            cluster.stop(n).await;
        }
    }
    let proposer = cluster.member(leader).above.proposer();
    // The first is on its way and never gets there; the others wait for it.
    let small = create_with(&["a".to_owned()], 60_000, b"");
    let _first = proposer.propose(small).unwrap();
    while proposer.waiting() > 0 {
        tokio::task::yield_now().await;
    }
    let large = create_with(&["b".to_owned()], 60_000, &vec![7; 1 << 20]);
    let most = PROPOSALS_WAITING_BYTES_MAX >> 20;
    let mut waiting = Vec::new();
    for _ in 0..most - 1 {
        waiting.push(proposer.propose(large.clone()).unwrap());
    }
    let refused = [large.clone(), large].map(|command| proposer.propose(command).err());
    assert!(
        matches!(refused[1], Some(Error::Overloaded { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_waiting_room_turns_the_next_claim_away() {
    let cluster = Cluster::start(1).await;
    let leader = cluster.serving_leader().await;
    let claims = &cluster.member(leader).above.claims;
    let until = Instant::now() + SOON;
    let mut waiting = Vec::new();
    for n in 0..WAITERS_MAX {
        let Request::Claim { claim, .. } = claim(&format!("c{n}"), 0) else {
            unreachable!()
        };
        waiting.push(claims.enter(claim, until).unwrap());
    }
    cluster.parked(leader, WAITERS_MAX as u64).await;
    let refused = cluster.ask(leader, claim("more", A_WHILE_MS)).await;
    assert!(
        matches!(refused, Err(Error::Overloaded { .. })),
        "{refused:?}"
    );
    assert!(tasks(cluster.ask(leader, claim("no wait", 0)).await).is_empty());
}
