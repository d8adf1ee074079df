//! Two of three members are lost for good: the third one's volume begins a new incarnation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use taskstore_api::v1::change_membership_request::Change;
use taskstore_api::{TaskStoreClient, v1};
use tokio::task::JoinHandle;
use tonic::Code;

use crate::admin::change_at;
use crate::harness::{Cluster, PATIENCE};
use crate::tasks::{claim_one, create};

const NEW: u64 = 2 << 32;
const AT_ONCE: usize = 32;

/// What was acknowledged to one client.
#[derive(Default)]
struct Acknowledged {
    created: Vec<String>,
    completed: Vec<String>,
}

/// Creates and completes tasks until it is told to end. What is not acknowledged may be there or not.
fn load(client: TaskStoreClient, number: usize, ends: Arc<AtomicBool>) -> JoinHandle<Acknowledged> {
    tokio::spawn(async move {
        let mut acknowledged = Acknowledged::default();
        for at in 0.. {
            if ends.load(Ordering::Relaxed) {
                break;
            }
            let id = format!("c{number}-{at}");
            if client.create(create(&id)).await.is_ok() {
                acknowledged.created.push(id);
            }
            if at % 3 == 0 {
                acknowledged.completed.extend(complete_one(&client).await);
            }
        }
        acknowledged
    })
}

async fn complete_one(client: &TaskStoreClient) -> Option<String> {
    let claimed = client.claim(crate::tasks::claim(0)).await.ok()?;
    let claimed = claimed.tasks.into_iter().next()?;
    let task = claimed.task?;
    let lease = v1::Lease {
        namespace: task.namespace,
        id: task.id.clone(),
        lease_token: claimed.lease_token,
    };
    let complete = v1::CompleteRequest {
        lease: Some(lease),
        result: "done".into(),
    };
    client.complete(complete).await.ok()?;
    Some(task.id)
}

async fn get(client: &TaskStoreClient, id: &str) -> v1::Task {
    let get = v1::GetRequest {
        namespace: "shop".into(),
        id: id.into(),
        view: v1::View::Full.into(),
    };
    let task = client.get(get).await;
    task.unwrap_or_else(|error| panic!("{id} is lost: {error}"))
}

async fn is_all_there(client: &TaskStoreClient, all: &[Acknowledged]) {
    let created = all.iter().flat_map(|one| &one.created);
    let created = futures::stream::iter(created).for_each_concurrent(AT_ONCE, async |id| {
        let task = get(client, id).await;
        let is_finished = task.state() == v1::TaskState::Completed;
        assert!(is_finished || &task.payload[..] == b"work", "{id}");
    });
    created.await;
    let completed = all.iter().flat_map(|one| &one.completed);
    let completed = futures::stream::iter(completed).for_each_concurrent(AT_ONCE, async |id| {
        let task = get(client, id).await;
        let found = (task.state(), &task.result[..]);
        assert_eq!(found, (v1::TaskState::Completed, &b"done"[..]), "{id}");
    });
    completed.await;
}

/// The cluster of one grows to three; the indexes of the new members.
async fn grow(cluster: &mut Cluster, first: usize) -> Vec<usize> {
    let reserve = v1::ReserveMembersRequest {
        operation_id: "grow".into(),
        count: 2,
    };
    let reserved = cluster.admin(first).await.reserve_members(reserve).await;
    let ids = reserved.unwrap().into_inner().member_ids;
    let number = cluster.members[first].id;
    assert_eq!(ids, [number + 1, number + 2]);
    let mut added = Vec::new();
    for id in &ids {
        let index = cluster.add_member(*id);
        cluster.format(index).await.unwrap();
        added.push(index);
    }
    let members = added.iter().map(|index| cluster.members[*index].member());
    let learners = Change::AddLearners(v1::AddLearners {
        members: members.collect(),
    });
    change_at(cluster, first, learners).await;
    for index in &added {
        cluster.until(*index, |status| status.ready).await;
    }
    let voters = vec![number, ids[0], ids[1]];
    let voters = Change::SetVoters(v1::SetVoters { voters });
    let grown = change_at(cluster, first, voters).await;
    assert_eq!(grown.voters, [number, ids[0], ids[1]]);
    added
}

/// Waits until the member has applied as much. Positions alone are no news on the status stream, so it is asked.
async fn applied(cluster: &Cluster, index: usize, at_least: u64) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let raft = cluster.status(index).await.raft.unwrap();
        if raft.applied_index >= at_least {
            return raft.applied_index;
        }
        assert!(Instant::now() < deadline, "{}", cluster.last_words());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_majority_under_load_loses_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::serving(3).await;
    let leader = cluster.leader().await;
    let (lost, survivor) = ((leader + 1) % 3, (leader + 2) % 3);
    let ends = Arc::new(AtomicBool::new(false));
    let client = cluster
        .client(&[0, 1, 2])
        .with_deadline(Duration::from_secs(2));
    let held = {
        client.create(create("held")).await.unwrap();
        claim_one(&client).await
    };
    let loads: Vec<_> = (0..8)
        .map(|number| load(client.clone(), number, ends.clone()))
        .collect();
    let at = applied(&cluster, survivor, 0).await;
    applied(&cluster, survivor, at + 300).await;
    // From here on whatever is acknowledged is on the leader and on the survivor.
    cluster.kill(lost);
    let at = applied(&cluster, survivor, 0).await;
    applied(&cluster, survivor, at + 300).await;
    cluster.kill(leader);
    ends.store(true, Ordering::Relaxed);
    let mut all = Vec::new();
    for load in loads {
        all.push(load.await.unwrap());
    }
    let count = |what: fn(&Acknowledged) -> usize| all.iter().map(what).sum::<usize>();
    let (created, completed) = (
        count(|one| one.created.len()),
        count(|one| one.completed.len()),
    );
    println!("acknowledged: {created} created, {completed} completed");
    assert!(created > 100 && completed > 10);

    let is_alone = |status: &v1::MemberStatus| {
        let raft = status.raft.as_ref();
        raft.is_some_and(|raft| raft.leader_id == 0)
    };
    let alone = cluster.until(survivor, is_alone).await.raft.unwrap();
    cluster.kill(survivor);
    let (before, after) = (cluster.members[survivor].id, NEW + 7);
    cluster.rewrite(survivor, before, after);
    let is_done = |status: &v1::MemberStatus| status.raft.is_some();
    let report = cluster.until(survivor, is_done).await;
    assert_eq!(report.phase(), v1::MemberPhase::Recovering);
    assert!(report.initialized && !report.ready);
    assert_eq!(report.identity, Some(cluster.members[survivor].identity()));
    let raft = report.raft.unwrap();
    assert_eq!(
        (raft.last_log_term, raft.last_log_index),
        (alone.last_log_term, alone.last_log_index)
    );
    let membership = raft.membership.unwrap();
    assert_eq!(
        (membership.voters, membership.committed),
        (vec![after], true)
    );
    let refused = cluster
        .admin(survivor)
        .await
        .snapshot(v1::SnapshotRequest {})
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::FailedPrecondition);
    // Its container may start again at any time.
    cluster.kill(survivor);
    cluster.rewrite(survivor, before, after);
    cluster.until(survivor, is_done).await;
    cluster.kill(survivor);

    let started = Instant::now();
    cluster.start(survivor);
    let leads = |status: &v1::MemberStatus| {
        status.ready && status.raft.as_ref().is_some_and(|raft| raft.leads)
    };
    let status = cluster.until(survivor, leads).await;
    println!("leads after {:?}", started.elapsed());
    assert!(status.raft.unwrap().term > raft.term);
    let client = cluster.client(&[survivor]).with_deadline(PATIENCE);
    is_all_there(&client, &all).await;
    let token = held.lease_token;
    let stale = v1::CompleteRequest {
        lease: Some(held),
        result: Default::default(),
    };
    let refused = client.complete(stale).await.unwrap_err();
    assert!(refused.is_lease_lost(), "{refused}");
    assert!(claim_one(&client).await.lease_token > token);

    let added = grow(&mut cluster, survivor).await;
    // A member that comes back finds nobody of its own incarnation.
    cluster.start(leader);
    let refused = || cluster.output(survivor).contains("peer refused");
    let deadline = Instant::now() + PATIENCE;
    while !refused() {
        assert!(Instant::now() < deadline, "{}", cluster.last_words());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let alone = cluster.status(leader).await;
    assert!(!alone.ready && !alone.raft.unwrap().leads);
    // The new members have everything.
    cluster.kill(survivor);
    let client = cluster.client(&added).with_deadline(PATIENCE);
    client.create(create("after")).await.unwrap();
    is_all_there(&client, &all).await;
}
