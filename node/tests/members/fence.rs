//! Fenced members: no client, no office, and still a vote and a copy of everything, across restarts.

use taskstore_api::v1;

use crate::harness::Cluster;
use crate::tasks::create;

async fn fence(cluster: &Cluster, index: usize, fenced: bool) {
    let request = v1::SetFencedRequest { fenced };
    cluster
        .admin(index)
        .await
        .set_fenced(request)
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", cluster.last_words()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_leader_hands_over_and_serves_nobody_until_it_is_taken_back() {
    let mut cluster = Cluster::serving(3).await;
    let fenced = cluster.leader().await;
    fence(&cluster, fenced, true).await;
    cluster
        .until(fenced, |status| {
            let raft = status.raft.as_ref();
            status.fenced && !status.ready && raft.is_some_and(|raft| !raft.leads)
        })
        .await;
    let others: Vec<usize> = (0..3).filter(|index| *index != fenced).collect();
    let first = cluster.client(&others);
    first.create(create("while-fenced")).await.unwrap();
    let alone = cluster.client(&[fenced]);
    let refused = alone
        .with_deadline(std::time::Duration::from_millis(200))
        .create(create("to-the-fenced"))
        .await
        .unwrap_err();
    assert_eq!(refused.reason(), "NOT_READY");
    assert!(refused.message.contains("fenced"), "{refused}");

    // It is stamped on the disk.
    cluster.kill(fenced);
    cluster.start(fenced);
    cluster
        .until(fenced, |status| status.fenced && status.raft.is_some())
        .await;
    // With another one gone its vote is what makes a quorum; it never leads.
    let leader = cluster.leader().await;
    assert_ne!(leader, fenced);
    cluster.kill(leader);
    let last = others.into_iter().find(|index| *index != leader).unwrap();
    cluster
        .until(last, |status| {
            status.raft.as_ref().is_some_and(|raft| raft.leads)
        })
        .await;
    let client = cluster.client(&[last]);
    client.create(create("with-its-vote")).await.unwrap();

    fence(&cluster, fenced, false).await;
    cluster
        .until(fenced, |status| status.ready && !status.fenced)
        .await;
    let client = cluster.client(&[fenced]);
    client.create(create("by-anybody")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_fenced_members_none_hands_over_to_the_other() {
    let cluster = Cluster::serving(5).await;
    let (second, last) = (3, 4);
    let request = v1::TransferLeaderRequest {
        to: cluster.members[last].id,
        expected_term: 0,
    };
    let leader = cluster.leader().await;
    if leader != last {
        let handed = cluster.admin(leader).await.transfer_leader(request).await;
        handed.unwrap_or_else(|error| panic!("{error}\n{}", cluster.last_words()));
    }
    fence(&cluster, second, true).await;
    cluster.until(second, |status| status.fenced).await;
    cluster
        .until(last, |status| {
            let raft = status.raft.as_ref();
            let mut peers = raft.into_iter().flat_map(|raft| &raft.peers);
            peers.any(|peer| peer.member_id == cluster.members[second].id && !peer.ready)
        })
        .await;
    let term = cluster.status(last).await.raft.unwrap().term;
    fence(&cluster, last, true).await;
    cluster
        .until(last, |status| {
            status.raft.as_ref().is_some_and(|raft| {
                let free = &cluster.members[..second];
                free.iter().any(|member| member.id == raft.leader_id)
            })
        })
        .await;
    let now = cluster.status(last).await.raft.unwrap().term;
    assert_eq!(now, term + 1, "one hand-over");
}
