//! Multiplexed calls: forwarded requests, votes, heartbeats.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use openraft::RaftNetworkFactory;
use openraft::network::{NetStreamAppend, NetTransferLeader, NetVote, RPCOption};
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::rig::{CLUSTER, Member, SOON, append, id, log_id, vote};
use crate::raft::certs::Authority;
use crate::raft::leader;
use crate::raft::transport::peers::{ForwardError, PeerEvent};
use crate::storage::types::{MemberName, Vote};

async fn pair() -> (Member, Member) {
    let authority = Authority::new(CLUSTER).unwrap();
    (
        Member::start(&authority, 1).await,
        Member::start(&authority, 2).await,
    )
}

fn soon() -> Instant {
    Instant::now() + SOON
}

#[tokio::test]
async fn many_forwarded_requests_share_a_connection_and_are_answered_in_any_order() {
    let (follower, leader) = pair().await;
    let parked = follower
        .peers
        .forward(id(2), &leader.name, "park".into(), soon());
    let others = async {
        leader.service.parked(1).await;
        for n in 0..100 {
            let request = Bytes::from(format!("request {n}"));
            let answer = follower
                .peers
                .forward(id(2), &leader.name, request, soon())
                .await
                .unwrap();
            assert_eq!(answer, format!("request {n} from 1"));
        }
        leader.service.gate.add_permits(1);
    };
    let (answer, ()) = tokio::join!(parked, others);
    assert_eq!(answer.unwrap(), "park from 1");
}

#[tokio::test]
async fn a_request_to_a_member_that_is_not_there_was_not_sent() {
    let (follower, leader) = pair().await;
    // Nothing listens on the first port, and no connection is ever given it.
    let name = MemberName("127.0.0.1:1".into());
    let outcome = timeout(
        SOON,
        follower
            .peers
            .forward(id(3), &name, "x".into(), soon() + SOON),
    )
    .await
    .unwrap();
    assert!(
        matches!(outcome, Err(ForwardError::NotSent(_))),
        "{outcome:?}"
    );
    let too_long = Bytes::from(vec![0; crate::limits::FRAME_BYTES_MAX]);
    let outcome = follower
        .peers
        .forward(id(2), &leader.name, too_long, soon())
        .await;
    assert!(
        matches!(outcome, Err(ForwardError::NotSent(_))),
        "{outcome:?}"
    );
    assert!(
        follower
            .peers
            .forward(id(2), &leader.name, "still works".into(), soon())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_lost_connection_makes_the_outcome_unknown_and_ends_what_ran() {
    let (follower, leader) = pair().await;
    let parked = follower
        .peers
        .forward(id(2), &leader.name, "park".into(), soon());
    let lose = async {
        leader.service.parked(1).await;
        leader.stop.cancel();
        leader.service.parked(0).await;
    };
    let (outcome, ()) = tokio::join!(parked, lose);
    assert!(
        matches!(outcome, Err(ForwardError::Unknown(_))),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_its_request() {
    let (follower, leader) = pair().await;
    {
        let mut parked = Box::pin(follower.peers.forward(
            id(2),
            &leader.name,
            "park".into(),
            soon(),
        ));
        tokio::select! {
            _ = &mut parked => panic!("parked"),
            () = leader.service.parked(1) => {}
        }
    }
    leader.service.parked(0).await;
}

#[tokio::test]
async fn a_deadline_that_passes_while_the_request_runs_leaves_it_unknown() {
    let (follower, leader) = pair().await;
    follower
        .peers
        .forward(id(2), &leader.name, "connect".into(), soon())
        .await
        .unwrap();
    let deadline = Instant::now() + Duration::from_millis(300);
    let outcome = follower
        .peers
        .forward(id(2), &leader.name, "park".into(), deadline)
        .await;
    assert!(
        matches!(outcome, Err(ForwardError::Unknown(_))),
        "{outcome:?}"
    );
    leader.service.parked(0).await;
}

/// A cable that can be pulled without either end noticing.
async fn cable(to: MemberName) -> (MemberName, Arc<tokio::sync::Semaphore>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let name = MemberName(listener.local_addr().unwrap().to_string());
    let pulled = Arc::new(tokio::sync::Semaphore::new(0));
    let pull = Arc::clone(&pulled);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (to, pull) = (to.clone(), Arc::clone(&pull));
            tokio::spawn(async move {
                let mut far = TcpStream::connect(&to.0).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = pull.acquire() => std::future::pending::<()>().await,
                }
            });
        }
    });
    (name, pulled)
}

#[tokio::test]
async fn silence_is_noticed_on_a_parked_request_at_both_ends() {
    let (follower, leader) = pair().await;
    let (name, pulled) = cable(leader.name.clone()).await;
    let parked = follower
        .peers
        .forward(id(2), &name, "park".into(), soon() + SOON);
    let pull = async {
        leader.service.parked(1).await;
        pulled.add_permits(1);
        leader.service.parked(0).await;
    };
    let (outcome, ()) = timeout(SOON, async { tokio::join!(parked, pull) })
        .await
        .expect("noticed");
    assert!(
        matches!(outcome, Err(ForwardError::Unknown(_))),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_pre_vote_asks_the_peer_and_is_never_granted_on_its_behalf() {
    let (candidate, peer) = pair().await;
    let mut client = candidate.factory().new_client(id(2), &peer.name).await;
    let ask = VoteRequest::new(Vote::new(2, id(1)), Some(log_id(1, 5)));
    let option = || RPCOption::new(SOON);
    assert!(
        !client
            .pre_vote(ask.clone(), option())
            .await
            .unwrap()
            .vote_granted
    );
    assert!(
        !client
            .vote(ask.clone(), option())
            .await
            .unwrap()
            .vote_granted
    );
    *peer.raft.grants.lock().unwrap() = true;
    assert!(
        client
            .pre_vote(ask.clone(), option())
            .await
            .unwrap()
            .vote_granted
    );
    let granted = client.vote(ask.clone(), option()).await.unwrap();
    assert_eq!(
        (granted.vote, granted.last_log_id),
        (ask.vote, ask.last_log_id)
    );
}

#[tokio::test]
async fn a_peer_that_cannot_be_reached_grants_nothing() {
    let (candidate, peer) = pair().await;
    peer.stop.cancel();
    let mut client = candidate.factory().new_client(id(2), &peer.name).await;
    let ask = VoteRequest::new(Vote::new(2, id(1)), None);
    assert!(
        client
            .pre_vote(ask, RPCOption::new(Duration::from_millis(200)))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_hand_over_reaches_the_peer_and_is_answered() {
    let (leader, target) = pair().await;
    let mut client = leader.factory().new_client(id(2), &target.name).await;
    let ask = TransferLeaderRequest::new(vote(1, 1), id(2), Some(log_id(1, 9)));
    client
        .transfer_leader(ask, RPCOption::new(SOON))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(*target.raft.transfers.lock().unwrap(), [id(2)]);
}

#[tokio::test]
async fn heartbeats_pass_while_appends_stand_still_and_bring_the_peers_facts() {
    let (leader, follower) = pair().await;
    follower.raft.shut();
    let mut factory = leader.factory();
    let mut replication = factory.new_client(id(2), &follower.name).await;
    let payload = Bytes::from(vec![1; 1 << 20]);
    let appends = futures::stream::iter((0..64).map(move |index| append(index, &payload)));
    let stuck = tokio::spawn(async move {
        let mut answers = replication
            .stream_append(appends, RPCOption::new(SOON))
            .await
            .unwrap();
        answers.next().await;
    });
    follower.raft.appends(1).await;

    let mut heart = factory.new_heartbeat_client(id(2), &follower.name).await;
    for _ in 0..3 {
        let beat = AppendEntriesRequest {
            vote: vote(1, 1),
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: None,
        };
        let beats = futures::stream::iter([beat]);
        let mut answers = heart
            .stream_append(beats, RPCOption::new(SOON))
            .await
            .unwrap();
        assert!(matches!(answers.next().await, Some(Ok(Ok(None)))));
        assert!(answers.next().await.is_none());
    }
    let heard = leader.peers.heard(SOON);
    assert!(heard[&id(2)].facts.ready);
    stuck.abort();
}

/// One heartbeat of `leader`, in its term; whether it was accepted.
async fn beat(leader: &Member, follower: &Member, (term, number): (u64, u64)) -> bool {
    let mut factory = leader.factory();
    let to = follower.peers.me().member_id;
    let mut heart = factory.new_heartbeat_client(to, &follower.name).await;
    let beat = AppendEntriesRequest {
        vote: vote(term, number),
        prev_log_id: None,
        entries: Vec::new(),
        leader_commit: None,
    };
    let beats = futures::stream::iter([beat]);
    let answers = heart.stream_append(beats, RPCOption::new(SOON)).await;
    matches!(answers.unwrap().next().await, Some(Ok(Ok(_))))
}

#[tokio::test]
async fn a_leader_is_one_as_long_as_its_heartbeats_are_accepted() {
    let authority = Authority::new(CLUSTER).unwrap();
    let follower = Member::start(&authority, 1).await;
    let (old, new) = (
        Member::start(&authority, 2).await,
        Member::start(&authority, 3).await,
    );
    let mut lasting = leader::heard(&follower.peers, 10 * SOON);
    let mut short = leader::heard(&follower.peers, Duration::from_millis(200));
    let becomes = async |heard: &mut watch::Receiver<Option<u64>>, wanted| {
        let seen = heard.wait_for(|leader| *leader == wanted);
        timeout(SOON, seen)
            .await
            .expect("in time")
            .expect("followed");
    };
    assert!(beat(&old, &follower, (1, 2)).await);
    becomes(&mut lasting, Some(id(2))).await;
    becomes(&mut short, Some(id(2))).await;
    // Nothing more is heard.
    becomes(&mut short, None).await;
    assert_eq!(*lasting.borrow(), Some(id(2)));
    assert!(beat(&new, &follower, (2, 3)).await);
    becomes(&mut lasting, Some(id(3))).await;
    *follower.raft.follows.lock().unwrap() = Some(vote(2, 3));
    assert!(!beat(&old, &follower, (1, 2)).await);
    assert!(beat(&new, &follower, (2, 3)).await);
    assert_eq!(*lasting.borrow(), Some(id(3)), "a leader of before is none");
    assert!(!lasting.has_changed().unwrap());
}

#[tokio::test]
async fn a_dead_process_is_told_apart_from_silence() {
    let (survivor, leader) = pair().await;
    let mut events = survivor.peers.events();
    assert!(beat(&leader, &survivor, (1, 2)).await);

    leader.stop.cancel();
    // Nobody listens on the leader's port once its server is gone; its connections close with its peers.
    while TcpStream::connect(&leader.name.0).await.is_ok() {
        tokio::task::yield_now().await;
    }
    leader.peers.retain(|_| false);
    let event = timeout(SOON, events.recv())
        .await
        .expect("an event")
        .unwrap();
    assert_eq!(event, PeerEvent::PeerDown(id(2)));
}

#[tokio::test]
async fn a_member_that_comes_back_is_reached_again_at_once() {
    let authority = Authority::new(CLUSTER).unwrap();
    let (caller, mut server) = (
        Member::start(&authority, 1).await,
        Member::start(&authority, 2).await,
    );
    let name = server.name.clone();
    caller
        .peers
        .forward(id(2), &name, "first".into(), soon())
        .await
        .unwrap();
    server.stop.cancel();
    let listener = loop {
        match TcpListener::bind(&name.0).await {
            Ok(listener) => break listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    server = Member::start_on(listener, &authority, 2, super::rig::options());
    let back = timeout(SOON, async {
        while caller
            .peers
            .forward(id(2), &name, "again".into(), soon())
            .await
            .is_err()
        {}
    });
    back.await.expect("reached again");
    drop(server);
}

#[tokio::test]
async fn half_a_frame_from_a_member_that_dies_is_no_answer() {
    let (follower, leader) = pair().await;
    let (name, _pulled) = cable(leader.name.clone()).await;
    follower
        .peers
        .forward(id(2), &name, "through the cable".into(), soon())
        .await
        .unwrap();
    let mut plain = TcpStream::connect(&leader.name.0).await.unwrap();
    plain.write_all(&[0x16, 3, 1]).await.unwrap();
    drop(plain);
    assert!(
        follower
            .peers
            .forward(id(2), &name, "undisturbed".into(), soon())
            .await
            .is_ok()
    );
}
