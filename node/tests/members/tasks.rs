//! The life of a task, through a follower and through the leader.

use taskstore_api::{TaskStoreClient, v1};

use crate::harness::Cluster;

pub fn create(id: &str) -> v1::CreateRequest {
    let task = v1::NewTask {
        id: id.into(),
        payload: "work".into(),
        ..Default::default()
    };
    v1::CreateRequest {
        namespace: "shop".into(),
        queue: "mail".into(),
        task: Some(task),
    }
}

pub fn claim(wait_ms: u64) -> v1::ClaimRequest {
    v1::ClaimRequest {
        namespace: "shop".into(),
        queues: vec!["mail".into()],
        tasks_max: 1,
        wait_ms,
        ..Default::default()
    }
}

pub async fn claim_one(client: &TaskStoreClient) -> v1::Lease {
    let claimed = client.claim(claim(30_000)).await.unwrap().tasks.remove(0);
    let task = claimed.task.unwrap();
    v1::Lease {
        namespace: task.namespace,
        id: task.id,
        lease_token: claimed.lease_token,
    }
}

async fn live(client: &TaskStoreClient, id: &str) {
    client.create(create(id)).await.unwrap();
    assert!(client.create(create(id)).await.unwrap().existed);
    let lease = claim_one(client).await;
    client
        .extend(v1::ExtendRequest {
            lease: Some(lease.clone()),
            lease_ms: 60_000,
        })
        .await
        .unwrap();
    client
        .release(v1::ReleaseRequest {
            lease: Some(lease.clone()),
        })
        .await
        .unwrap();
    let stale = client
        .complete(v1::CompleteRequest {
            lease: Some(lease),
            result: Default::default(),
        })
        .await;
    assert!(
        stale.unwrap_err().is_lease_lost(),
        "a released lease settles nothing"
    );
    let lease = Some(claim_one(client).await);
    let fail = v1::FailRequest {
        lease,
        error: "try again".into(),
        retry_after_ms: Some(0),
        discard: false,
    };
    client.fail(fail).await.unwrap();
    let done = v1::CompleteRequest {
        lease: Some(claim_one(client).await),
        result: "sent".into(),
    };
    client.complete(done).await.unwrap();
    let get = v1::GetRequest {
        namespace: "shop".into(),
        id: id.into(),
        view: v1::View::Full.into(),
    };
    let task = client.get(get).await.unwrap();
    assert_eq!(
        (task.state(), &task.result[..]),
        (v1::TaskState::Completed, &b"sent"[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_lives_through_a_follower_and_the_leader_and_an_idle_wait_writes_nothing() {
    let cluster = Cluster::serving(3).await;
    let leader = cluster.leader().await;
    let (to_leader, to_follower) = (
        cluster.client(&[leader]),
        cluster.client(&[(leader + 1) % 3]),
    );
    live(&to_leader, "a").await;
    live(&to_follower, "b").await;
    let index = cluster.status(leader).await.raft.unwrap().last_log_index;
    assert!(
        to_follower
            .claim(claim(1_500))
            .await
            .unwrap()
            .tasks
            .is_empty()
    );
    assert_eq!(
        cluster.status(leader).await.raft.unwrap().last_log_index,
        index,
        "an idle wait wrote"
    );
    let (lease, created) = tokio::join!(claim_one(&to_follower), to_leader.create(create("c")));
    assert_eq!(lease.id, created.unwrap().id);
}

/// Processor time of a process so far, in clock ticks (a hundredth of a second).
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_at_rest_sleeps() {
    let cluster = Cluster::serving(3).await;
    let pids: Vec<u32> = cluster
        .members
        .iter()
        .map(|member| member.child.id())
        .collect();
    let before: Vec<u64> = pids.iter().map(|pid| ticks(*pid)).collect();
    // Time itself is measured here: a second of rest.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    for (pid, before) in pids.into_iter().zip(before) {
        let spent = ticks(pid) - before;
        assert!(spent < 30, "an idle member took {spent} % of a processor");
    }
}
