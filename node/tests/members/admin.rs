//! The operator's orders: format, initialize, membership, reservations, hand-over, snapshot.

use taskstore_api::v1::change_membership_request::Change;
use taskstore_api::{admin, tls::ClientTls, v1};
use tonic::Code;

use crate::harness::{Cluster, member_name};
use crate::tasks::create;

async fn change(cluster: &Cluster, change: Change) -> v1::Membership {
    change_at(cluster, cluster.leader().await, change).await
}

/// Through this leader.
pub async fn change_at(cluster: &Cluster, leader: usize, change: Change) -> v1::Membership {
    let raft = cluster.status(leader).await.raft.unwrap();
    let request = v1::ChangeMembershipRequest {
        change: Some(change),
        expected_membership: raft.membership.unwrap().log_id,
        expected_term: raft.term,
    };
    let answer = cluster.admin(leader).await.change_membership(request).await;
    answer
        .unwrap_or_else(|error| panic!("{error}\n{}", cluster.last_words()))
        .into_inner()
        .membership
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_orders_are_guarded_and_may_be_repeated() {
    let cluster = Cluster::serving(3).await;
    let mut identity = cluster.members[0].identity();
    assert_eq!(
        cluster.format(0).await.unwrap_err().code(),
        Code::FailedPrecondition,
        "once a volume"
    );
    identity.volume_uid = "another".into();
    let refused = cluster
        .admin(0)
        .await
        .format(v1::FormatRequest {
            identity: Some(identity),
        })
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::FailedPrecondition);
    for index in 0..3 {
        let request = v1::InitializeRequest {
            voters: cluster.founders(),
        };
        cluster
            .admin(index)
            .await
            .initialize(request)
            .await
            .unwrap();
    }
    let member = cluster.authority.member(cluster.members[1].id).unwrap();
    let tls = ClientTls {
        ca_pem: member.ca_pem,
        cert_pem: member.certificate_pem,
        key_pem: member.key_pem,
    };
    let address = cluster.members[0].admin_address();
    let refused = match admin::connect(&address, &member_name(cluster.members[0].id), tls).await {
        Ok(mut client) => client
            .watch_status(v1::WatchStatusRequest {})
            .await
            .is_err(),
        Err(_) => true,
    };
    assert!(refused, "a member's certificate opens no admin port");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fourth_member_joins_leads_and_leaves_and_a_restart_begins_at_the_snapshot() {
    let mut cluster = Cluster::serving(3).await;
    cluster.client(&[0]).create(create("kept")).await.unwrap();
    let leader = cluster.leader().await;
    let reserve = v1::ReserveMembersRequest {
        operation_id: "scale".into(),
        count: 1,
    };
    let first = cluster
        .admin(leader)
        .await
        .reserve_members(reserve.clone())
        .await
        .unwrap()
        .into_inner();
    let again = cluster
        .admin(leader)
        .await
        .reserve_members(reserve)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(first, again);
    let fourth = cluster.add(first.member_ids[0] & 0xffff_ffff);
    cluster.format(fourth).await.unwrap();
    let outdated = v1::ChangeMembershipRequest {
        change: Some(Change::SetVoters(v1::SetVoters { voters: vec![1] })),
        expected_membership: Some(v1::LogId { term: 0, index: 99 }),
        expected_term: 1,
    };
    let refused = cluster
        .admin(leader)
        .await
        .change_membership(outdated)
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::Aborted);
    let learner = cluster.members[fourth].member();
    let founders: Vec<_> = cluster.members[..3]
        .iter()
        .map(|member| member.id)
        .collect();
    let mut all = founders.clone();
    all.push(learner.id);
    change(
        &cluster,
        Change::AddLearners(v1::AddLearners {
            members: vec![learner],
        }),
    )
    .await;
    cluster.until(fourth, |status| status.ready).await;
    let grown = change(
        &cluster,
        Change::SetVoters(v1::SetVoters {
            voters: all.clone(),
        }),
    )
    .await;
    assert_eq!(grown.voters, all);
    let to = cluster.members[fourth].id;
    let transfer = v1::TransferLeaderRequest {
        to,
        expected_term: 0,
    };
    let leader = cluster.leader().await;
    let answer = cluster
        .admin(leader)
        .await
        .transfer_leader(transfer)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.leader_id, to);
    let back = v1::TransferLeaderRequest {
        to: founders[0],
        expected_term: 0,
    };
    cluster
        .admin(fourth)
        .await
        .transfer_leader(back)
        .await
        .unwrap();
    change(
        &cluster,
        Change::SetVoters(v1::SetVoters { voters: founders }),
    )
    .await;
    cluster.kill(fourth);
    let cut = cluster
        .admin(1)
        .await
        .snapshot(v1::SnapshotRequest {})
        .await
        .unwrap()
        .into_inner();
    cluster.kill(1);
    cluster.start(1);
    let status = cluster.until(1, |status| status.ready).await;
    assert!(status.raft.unwrap().snapshot_index >= cut.log_id.unwrap().index);
}

async fn hand_over(cluster: &Cluster, index: usize, to: u64) -> Result<u64, Code> {
    let transfer = v1::TransferLeaderRequest {
        to,
        expected_term: 0,
    };
    let answer = cluster.admin(index).await.transfer_leader(transfer).await;
    answer
        .map(|answer| answer.into_inner().leader_id)
        .map_err(|error| error.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_to_nobody_who_cannot_take_it_and_writes_go_on() {
    let mut cluster = Cluster::serving(3).await;
    let leader = cluster.leader().await;
    let (follower, away) = ((leader + 1) % 3, (leader + 2) % 3);
    let id = |index: usize| (1 << 32) + index as u64 + 1;
    let term = cluster.status(leader).await.raft.unwrap().term;
    cluster.kill(away);
    let refused = Err(Code::FailedPrecondition);
    for (at, to, why) in [
        (leader, id(leader), "it leads already"),
        (leader, id(98), "nobody knows it"),
        (leader, id(away), "it is away"),
        (
            follower,
            id(follower),
            "a follower has nothing to hand over",
        ),
        (follower, 0, "nor has it a successor"),
    ] {
        assert_eq!(hand_over(&cluster, at, to).await, refused, "{why}");
        let client = cluster.client(&[leader]);
        client.create(create(&format!("{at}-{to}"))).await.unwrap();
    }
    assert_eq!(cluster.status(leader).await.raft.unwrap().term, term);
    assert_eq!(hand_over(&cluster, leader, 0).await, Ok(id(follower)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_voter_keeps_its_office() {
    let cluster = Cluster::serving(1).await;
    for to in [0, cluster.members[0].id, (1 << 32) + 2] {
        let refused = Err(Code::FailedPrecondition);
        assert_eq!(hand_over(&cluster, 0, to).await, refused, "{to}");
    }
    cluster.client(&[0]).create(create("still")).await.unwrap();
}
