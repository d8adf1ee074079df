//! A kept snapshot that goes bad while its member leads, over the real transport.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use super::cluster::{Cluster, SOON, create, id, tick};
use crate::raft::membership::{Change, change};
use crate::storage::snapshot::{SnapshotHandle, list};

/// As the service does: the engine learns of the file, and the log behind it goes.
async fn cut_and_purge(cluster: &Cluster) -> SnapshotHandle {
    let leader = cluster.member(1);
    let cut = leader.store.cut_snapshot(async |_| Ok(())).await;
    let cut = cut.unwrap().unwrap();
    let index = cut.position().index;
    leader.raft.trigger().snapshot().await.unwrap();
    let wait = leader.raft.wait(Some(SOON));
    let is_known = |m: &openraft::RaftMetrics<_>| m.snapshot.is_some_and(|s| s.index >= index);
    wait.metrics(is_known, "openraft knows the snapshot")
        .await
        .unwrap();
    leader.raft.trigger().purge_log(index).await.unwrap();
    let wait = leader.raft.wait(Some(SOON));
    let is_purged = |m: &openraft::RaftMetrics<_>| m.purged.is_some_and(|p| p.index >= index);
    wait.metrics(is_purged, "the log is purged").await.unwrap();
    cut
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_went_bad_is_taken_by_nobody_and_the_next_one_is() {
    let mut cluster = Cluster::start(1).await;
    for n in 0..50 {
        cluster.write(1, &format!("t{n}")).await;
    }
    let bad = cut_and_purge(&cluster).await;
    let file = &list(cluster.member(1).store.snapshots().dir()).unwrap()[0];
    let mut bytes = fs::read(&file.path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file.path, bytes).unwrap();

    cluster.add(2).await;
    let learners = BTreeMap::from([(id(2), cluster.name(2))]);
    let leader = cluster.member(1).raft.clone();
    change(&leader, Change::AddLearners(learners), cluster.guard(1))
        .await
        .unwrap();
    let arriving = format!("receive-{}.tmp", bad.id);
    let arriving = cluster.member(2).store.snapshots().dir().join(arriving);
    let begun = async {
        while !arriving.exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, begun).await.expect("it is sent");

    leader.client_write(create("later")).await.unwrap();
    let good = cut_and_purge(&cluster).await;
    let last = leader.client_write(tick()).await.unwrap().log_id.index;
    cluster.applied(2, last).await;
    let (leads, learns) = (&cluster.member(1).store, &cluster.member(2).store);
    let kept: Vec<u64> = learns
        .snapshots()
        .positions()
        .iter()
        .map(|position| position.index)
        .collect();
    assert_eq!(kept, [good.position().index], "nothing but the good one");
    let hash = |store: &crate::storage::store::Store| store.read(|state| state.hash());
    assert_eq!(hash(learns), hash(leads));
}
