//! Members that die, all at once too, and members that are asked to stop.

use std::time::{Duration, Instant};

use taskstore_api::{TaskStoreClient, v1};

use crate::harness::{Cluster, PATIENCE};
use crate::tasks::{claim_one, create};

async fn settle(client: &TaskStoreClient, count: usize) {
    for _ in 0..count {
        let lease = Some(claim_one(client).await);
        client
            .complete(v1::CompleteRequest {
                lease,
                result: "x".into(),
            })
            .await
            .unwrap();
    }
}

async fn stats(client: &TaskStoreClient) -> (u64, u64) {
    let request = v1::QueueStatsRequest {
        namespace: "shop".into(),
        queue: "mail".into(),
    };
    let stats = client.queue_stats(request).await.unwrap();
    (stats.created_total, stats.completed_total)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_and_a_kill_of_all_lose_nothing_acknowledged() {
    let mut cluster = Cluster::serving(3).await;
    let client = cluster.client(&[0, 1, 2]).with_deadline(PATIENCE);
    let leader = cluster.leader().await;
    let load = client.clone();
    let (halfway, reached) = tokio::sync::oneshot::channel();
    let writes = tokio::spawn(async move {
        let (mut halfway, mut gap) = (Some(halfway), Duration::ZERO);
        for number in 0..200 {
            if number == 100 {
                halfway.take().unwrap().send(()).unwrap();
            }
            let started = Instant::now();
            load.create(create(&format!("t{number}"))).await.unwrap();
            gap = gap.max(started.elapsed());
        }
        gap
    });
    reached.await.unwrap();
    cluster.kill(leader);
    println!("write gap at the kill: {:?}", writes.await.unwrap());
    settle(&client, 100).await;
    cluster.start(leader);
    cluster.until(leader, |status| status.ready).await;
    assert_eq!(stats(&client).await, (200, 100));
    for index in 0..3 {
        cluster.kill(index);
    }
    for index in 0..3 {
        cluster.start(index);
    }
    settle(&client, 100).await;
    assert_eq!(stats(&client).await, (200, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_asked_to_stop_hands_over_and_exits_cleanly() {
    let mut cluster = Cluster::serving(3).await;
    let leader = cluster.leader().await;
    let client = cluster.client(&[leader, (leader + 1) % 3]);
    let in_flight: Vec<_> = (0..20)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.create(create(&format!("s{number}"))).await })
        })
        .collect();
    cluster.terminate(leader);
    assert_eq!(
        cluster.exit(leader, Duration::from_secs(10)).await.code(),
        Some(0)
    );
    for create in in_flight {
        create.await.unwrap().unwrap();
    }
    let left = [(leader + 1) % 3, (leader + 2) % 3];
    assert_eq!(stats(&cluster.client(&left)).await, (20, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_waits_neither_holds_up_a_stop_nor_is_lost_by_it() {
    let mut cluster = Cluster::serving(3).await;
    let leader = cluster.leader().await;
    let other = (leader + 1) % 3;
    let client = cluster.client(&[leader, other]);
    let parked = tokio::spawn({
        let client = client.clone();
        async move { claim_one(&client).await }
    });
    cluster.until_metric(leader, "taskstore_waiters 1").await;
    let asked = Instant::now();
    cluster.terminate(leader);
    let status = cluster.exit(leader, Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0));
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(3), "the stop took {took:?}");
    assert!(
        cluster.output(leader).contains("leadership handed over"),
        "{}",
        cluster.last_words()
    );
    let elsewhere = cluster.client(&[other]);
    elsewhere.create(create("late")).await.unwrap();
    assert_eq!(parked.await.unwrap().id, "late");
}
