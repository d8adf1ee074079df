//! A leader that is gone, and one that only some can reach.

use std::time::Duration;

use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use tokio::time::timeout;

use super::cables::Line;
use super::cluster::{Cluster, SOON, create, id};
use crate::raft::config::Timings;
use crate::raft::consensus::{Consensus, Role};
use crate::raft::succession;
use crate::raft::transport::peers::PeerEvent;
use crate::task::tests::{id as task_id, name};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_leader_is_followed_long_before_an_election_would_time_out() {
    let patient = Timings {
        heartbeat_ms: 100,
        election_ms_min: 40_000,
        election_ms_max: 50_000,
    };
    let mut cluster = Cluster::start_with(3, patient).await;
    let first = cluster.leader().await;
    let written = cluster.write(first, "kept").await;
    for n in 1..=3 {
        cluster.applied(n, written).await;
    }
    cluster.stop(first).await;
    let second = timeout(Duration::from_secs(20), cluster.leader())
        .await
        .expect("nobody waits for a lease or a time-out");
    assert_ne!(first, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_one_follower_takes_for_dead_keeps_its_office() {
    let cluster = Cluster::wired(3).await;
    let leader = cluster.leader().await;
    let cut = (1..=3).find(|n| *n != leader).unwrap();
    let written = cluster.write(leader, "before").await;
    cluster.applied(cut, written).await;
    let vote = |n: u64| cluster.member(n).raft.metrics().borrow_watched().vote;
    let before = vote(leader);

    let mut events = cluster.member(cut).peers.events();
    cluster.cables.set(leader, cut, Line::Refused);
    let down = timeout(SOON, events.recv()).await.expect("noticed");
    assert_eq!(down, Ok(PeerEvent::PeerDown(id(leader))));
    // Returns once it has asked for pre-votes as often as it does.
    succession::succeed(&cluster.member(cut).raft, id(leader)).await;
    cluster.write(leader, "after").await;
    assert_eq!(vote(leader), before);
    assert_eq!(vote(cut), before, "no term was spent on it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_the_majority_goes_on() {
    let cluster = Cluster::wired(3).await;
    let old = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|n| *n != old).collect();
    let written = cluster.write(old, "before").await;
    for n in 1..=3 {
        cluster.applied(n, written).await;
    }
    for other in &others {
        cluster.cables.set(old, *other, Line::Silent);
    }
    let raft = cluster.member(old).raft.clone();
    let lost = tokio::spawn(async move { raft.client_write(create("lost")).await });
    let read = cluster
        .member(old)
        .raft
        .ensure_linearizable(ReadPolicy::ReadIndex);
    let read = timeout(SOON, read).await.expect("a read does not hang");
    assert!(
        read.is_err(),
        "it cannot know that it still leads: {read:?}"
    );

    let new = cluster.leader_among(&others).await;
    let written = cluster.write(new, "meanwhile").await;
    let raft = &cluster.member(new).raft;
    let read = timeout(SOON, raft.ensure_linearizable(ReadPolicy::ReadIndex)).await;
    assert!(read.expect("answered").is_ok());
    assert!(!lost.is_finished() || lost.await.unwrap().is_err());

    for other in &others {
        cluster.cables.set(old, *other, Line::Whole);
    }
    cluster.applied(old, written).await;
    let last = cluster.write(new, "after").await;
    for n in 1..=3 {
        cluster.applied(n, last).await;
    }
    let states: Vec<_> = (1..=3)
        .map(|n| {
            cluster.member(n).store.read(|state| {
                let known = ["before", "lost", "meanwhile", "after"]
                    .map(|text| state.get(&name("ns"), &task_id(text)).is_some());
                (known, state.hash())
            })
        })
        .collect();
    assert_eq!(states[0].0, [true, false, true, true]);
    assert!(states.iter().all(|state| *state == states[0]), "{states:?}");
}

/// The engine takes no proposals once a hand-over is begun: it must not stay like that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_to_a_member_that_goes_silent_ends_with_another_leader() {
    let cluster = Cluster::wired(3).await;
    let old = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|n| *n != old).collect();
    let (silent, third) = (others[0], others[1]);
    let written = cluster.write(old, "before").await;
    cluster.applied(third, written).await;
    cluster.cables.set(old, silent, Line::Silent);
    cluster.cables.set(third, silent, Line::Silent);
    let consensus = Consensus::new(cluster.member(old).raft.clone());
    let mut role = consensus.watch_role();
    role.wait_for(|role| matches!(role, Role::Leads { .. }))
        .await
        .unwrap();
    let handed = consensus
        .hand_over(id(silent), Duration::from_secs(15))
        .await;
    assert!(handed, "somebody else leads");
    assert_eq!(cluster.leader_among(&[old, third]).await, third);
    cluster.write(third, "after").await;
}
