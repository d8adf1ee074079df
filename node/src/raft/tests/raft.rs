//! Elections, replication, hand-over and snapshots over the real transport.

use std::collections::BTreeMap;

use super::cluster::{Cluster, id, tick};
use crate::raft::membership::{Change, change};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_reaches_every_member_and_outlives_its_leader() {
    let mut cluster = Cluster::start(3).await;
    let first = cluster.leader().await;
    let mut written = 0;
    for _ in 0..200 {
        written = cluster
            .member(first)
            .raft
            .client_write(tick())
            .await
            .unwrap()
            .log_id
            .index;
    }
    for n in 1..=3 {
        cluster.applied(n, written).await;
    }
    cluster.stop(first).await;
    let second = cluster.leader().await;
    assert_ne!(first, second);
    let later = cluster
        .member(second)
        .raft
        .client_write(tick())
        .await
        .unwrap()
        .log_id
        .index;
    assert!(later > written);

    cluster.run(first).await;
    cluster.applied(first, later).await;
    assert!(
        !cluster.member(first).raft.is_leader(),
        "a restarted leader does not lead without an election"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writes_are_all_applied_in_one_order() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.member(cluster.leader().await).raft.clone();
    let writes = (0..500).map(|_| {
        let leader = leader.clone();
        tokio::spawn(async move { leader.client_write(tick()).await.unwrap().log_id.index })
    });
    let mut indexes: Vec<u64> = futures::future::join_all(writes)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    indexes.sort_unstable();
    indexes.dedup();
    assert_eq!(indexes.len(), 500);
    for n in 1..=3 {
        cluster.applied(n, indexes[499]).await;
    }
}

/// Nobody may start an election by time-out here: only the hand-over can make another member lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_makes_the_target_lead_without_a_time_out() {
    let cluster = Cluster::start(3).await;
    let from = cluster.leader().await;
    let to = (1..=3).find(|n| *n != from).unwrap();
    for member in cluster.running.values() {
        member.raft.runtime_config().elect(false);
    }
    cluster
        .member(from)
        .raft
        .trigger()
        .transfer_leader(id(to))
        .await
        .unwrap();
    let wait = cluster.member(to).raft.wait(Some(super::cluster::SOON));
    wait.metrics(|m| m.current_leader == Some(id(to)), "the target leads")
        .await
        .unwrap();
    let wait = cluster.member(from).raft.wait(Some(super::cluster::SOON));
    wait.metrics(
        |m| m.current_leader == Some(id(to)),
        "the old leader follows",
    )
    .await
    .unwrap();
    assert_eq!(cluster.leader().await, to);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_comes_too_late_for_the_log_gets_a_snapshot() {
    let mut cluster = Cluster::start(1).await;
    let leader = cluster.member(1).raft.clone();
    for _ in 0..50 {
        leader.client_write(tick()).await.unwrap();
    }
    let cut = cluster
        .member(1)
        .store
        .cut_snapshot(|_| std::future::ready(Ok(())))
        .await
        .unwrap()
        .unwrap();
    leader.trigger().snapshot().await.unwrap();
    let wait = leader.wait(Some(super::cluster::SOON));
    let seen =
        |m: &openraft::RaftMetrics<_>| m.snapshot.is_some_and(|s| s.index >= cut.position().index);
    wait.metrics(seen, "openraft knows the snapshot")
        .await
        .unwrap();
    leader
        .trigger()
        .purge_log(cut.position().index)
        .await
        .unwrap();
    let wait = leader.wait(Some(super::cluster::SOON));
    wait.metrics(|m| m.purged.is_some(), "the log is purged")
        .await
        .unwrap();

    cluster.add(2).await;
    let learners = BTreeMap::from([(id(2), cluster.name(2))]);
    change(&leader, Change::AddLearners(learners), cluster.guard(1))
        .await
        .unwrap();
    let last = leader.client_write(tick()).await.unwrap().log_id.index;
    cluster.applied(2, last).await;
    let installed = cluster
        .member(2)
        .store
        .snapshots()
        .newest()
        .expect("the snapshot was installed");
    assert_eq!(installed.id, cut.id);
}
