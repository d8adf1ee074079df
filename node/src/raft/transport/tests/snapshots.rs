//! Snapshots: each chunk has its own time, a broken transfer goes on where it stopped.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use openraft::RaftNetworkFactory;
use openraft::errors::{ReplicationClosed, StreamingError};
use openraft::network::{NetSnapshot, RPCOption};
use tokio::time::timeout;

use super::rig::{CLUSTER, Member, SOON, id, options, snapshot_of, vote};
use crate::limits::SNAPSHOT_CHUNK_BYTES;
use crate::raft::certs::Authority;
use crate::raft::transport::Options;

fn data(chunks: usize) -> Bytes {
    (0..chunks * SNAPSHOT_CHUNK_BYTES + 77)
        .map(|n| (n / 1000) as u8)
        .collect::<Vec<u8>>()
        .into()
}

async fn pair(options: Options) -> (Member, Member) {
    let authority = Authority::new(CLUSTER).unwrap();
    (
        Member::start_with(&authority, 1, options.clone()).await,
        Member::start_with(&authority, 2, options).await,
    )
}

#[tokio::test]
async fn a_snapshot_may_take_longer_than_any_one_time_out() {
    let per_chunk = Duration::from_millis(1500);
    let (leader, follower) = pair(Options {
        chunk_timeout: per_chunk,
        ..options()
    })
    .await;
    *follower.raft.sink.slow.lock().unwrap() = Duration::from_millis(400);
    let mut client = leader
        .factory()
        .new_snapshot_client(id(2), &follower.name)
        .await;
    let data = data(4);
    // openraft's own time-out would have to cover all of it.
    let option = RPCOption::new(Duration::from_millis(100));
    let sent = client.full_snapshot(
        vote(1, 1),
        snapshot_of(&data),
        std::future::pending(),
        option,
    );
    assert_eq!(sent.await.unwrap().vote, vote(1, 1));
    let installed = follower.raft.installed.lock().unwrap();
    let (with, meta, arrived) = &installed[0];
    assert_eq!((*with, meta), (vote(1, 1), &snapshot_of(&data).meta));
    assert!(*arrived == data);
}

#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_stopped() {
    let (leader, follower) = pair(options()).await;
    follower.raft.sink.fails_at.store(4, Ordering::SeqCst);
    let mut client = leader
        .factory()
        .new_snapshot_client(id(2), &follower.name)
        .await;
    let data = data(6);
    let option = || RPCOption::new(SOON);
    let broken = client
        .full_snapshot(
            vote(1, 1),
            snapshot_of(&data),
            std::future::pending(),
            option(),
        )
        .await;
    assert!(
        matches!(
            broken,
            Err(StreamingError::Unreachable(_) | StreamingError::Network(_))
        ),
        "{broken:?}"
    );
    assert_eq!(follower.raft.sink.chunks.lock().unwrap().len(), 3);
    client
        .full_snapshot(
            vote(1, 1),
            snapshot_of(&data),
            std::future::pending(),
            option(),
        )
        .await
        .unwrap();
    let chunks = follower.raft.sink.chunks.lock().unwrap().clone();
    assert_eq!(
        chunks.iter().sum::<usize>(),
        data.len(),
        "no byte was sent twice"
    );
    assert!(follower.raft.installed.lock().unwrap()[0].2 == data);
}

#[tokio::test]
async fn an_empty_snapshot_and_a_cancelled_one_end_well() {
    let (leader, follower) = pair(options()).await;
    let mut client = leader
        .factory()
        .new_snapshot_client(id(2), &follower.name)
        .await;
    let empty = Bytes::new();
    let option = || RPCOption::new(SOON);
    client
        .full_snapshot(
            vote(1, 1),
            snapshot_of(&empty),
            std::future::pending(),
            option(),
        )
        .await
        .unwrap();

    *follower.raft.sink.slow.lock().unwrap() = Duration::from_millis(200);
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        ReplicationClosed::new("another leader")
    };
    let sent = timeout(
        SOON,
        client.full_snapshot(vote(1, 1), snapshot_of(&data(8)), cancel, option()),
    );
    assert!(matches!(
        sent.await.unwrap(),
        Err(StreamingError::Closed(_))
    ));
    assert_eq!(follower.raft.installed.lock().unwrap().len(), 1);
}
