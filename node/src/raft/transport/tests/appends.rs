//! The append stream: many in flight, answers in order, sessions that do not mix.

use bytes::Bytes;
use futures::StreamExt;
use openraft::RaftNetworkFactory;
use openraft::network::{NetStreamAppend, RPCOption};
use openraft::raft::{AppendEntriesRequest, StreamAppendError};
use tokio::time::timeout;

use super::rig::{CLUSTER, Member, SOON, append, id, log_id, options};
use crate::raft::certs::Authority;
use crate::storage::types::{MemberName, TypeConfig};

async fn pair() -> (Member, Member) {
    let authority = Authority::new(CLUSTER).unwrap();
    (
        Member::start(&authority, 1).await,
        Member::start(&authority, 2).await,
    )
}

fn option() -> RPCOption {
    RPCOption::new(SOON)
}

#[tokio::test]
async fn many_appends_are_in_flight_before_the_first_is_answered() {
    let (leader, follower) = pair().await;
    follower.raft.shut();
    let mut client = leader.factory().new_client(id(2), &follower.name).await;
    let payload = Bytes::from_static(b"work");
    let input = futures::stream::iter((0..32).map(move |index| append(index, &payload)));
    let mut answers = client.stream_append(input, option()).await.unwrap();
    // With one at a time the second would never arrive.
    tokio::select! {
        _ = answers.next() => panic!("nothing is answered yet"),
        () = follower.raft.appends(32) => {}
    }
    follower.raft.gate.add_permits(32);
    for index in 0..32 {
        let answer = timeout(SOON, answers.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(answer, Ok(Some(log_id(1, index))));
    }
    assert!(answers.next().await.is_none());
    let indexes: Vec<u64> = follower
        .raft
        .appended
        .lock()
        .unwrap()
        .iter()
        .map(|r| r.entries[0].log_id.index)
        .collect();
    assert_eq!(indexes, (0..32).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_conflict_ends_the_stream_and_the_next_one_starts_clean() {
    let (leader, follower) = pair().await;
    *follower.raft.conflicts_at.lock().unwrap() = Some(3);
    let mut client = leader.factory().new_client(id(2), &follower.name).await;
    let payload = Bytes::from_static(b"work");
    let from = |first: u64, payload: Bytes| {
        futures::stream::iter((first..first + 10).map(move |index| append(index, &payload)))
    };
    {
        let answers = client
            .stream_append(from(0, payload.clone()), option())
            .await
            .unwrap();
        let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
        assert_eq!(answers.len(), 4);
        assert_eq!(answers[3], Err(StreamAppendError::Conflict(log_id(1, 2))));
    }
    *follower.raft.conflicts_at.lock().unwrap() = None;
    let answers = client
        .stream_append(from(3, payload), option())
        .await
        .unwrap();
    let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
    let expected: Vec<_> = (3..13).map(|index| Ok(Some(log_id(1, index)))).collect();
    assert_eq!(answers, expected);
}

#[tokio::test]
async fn answers_to_an_abandoned_stream_are_not_taken_for_answers_to_the_next() {
    let (leader, follower) = pair().await;
    follower.raft.shut();
    let mut client = leader.factory().new_client(id(2), &follower.name).await;
    let payload = Bytes::from_static(b"work");
    {
        let payload = payload.clone();
        let input = futures::stream::iter((0..5).map(move |index| append(index, &payload)));
        let mut answers = client.stream_append(input, option()).await.unwrap();
        tokio::select! {
            _ = answers.next() => panic!("nothing is answered yet"),
            () = follower.raft.appends(5) => {}
        }
    }
    follower.raft.gate.add_permits(100);
    let input = futures::stream::iter((20..25).map(move |index| append(index, &payload)));
    let answers: Vec<_> = client
        .stream_append(input, option())
        .await
        .unwrap()
        .map(Result::unwrap)
        .collect()
        .await;
    assert_eq!(
        answers,
        (20..25)
            .map(|index| Ok(Some(log_id(1, index))))
            .collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_large_entry_passes_and_one_over_the_frame_is_an_error_here() {
    let (leader, follower) = pair().await;
    let mut client = leader.factory().new_client(id(2), &follower.name).await;
    let largest = Bytes::from(vec![7; crate::limits::ENTRY_BYTES_MAX]);
    let input = futures::stream::iter([append(0, &largest)]);
    let answers: Vec<_> = client
        .stream_append(input, option())
        .await
        .unwrap()
        .collect()
        .await;
    assert!(matches!(answers[..], [Ok(Ok(_))]));
    let arrived = follower.raft.appended.lock().unwrap().pop().unwrap();
    assert_eq!(
        format!("{:?}", arrived.entries[0].payload),
        format!("{:?}", append(0, &largest).entries[0].payload)
    );

    let giant = Bytes::from(vec![7; crate::limits::FRAME_BYTES_MAX]);
    let input = futures::stream::iter([append(1, &giant)]);
    let answers: Vec<_> = client
        .stream_append(input, option())
        .await
        .unwrap()
        .collect()
        .await;
    assert!(matches!(answers[..], [Err(_)]));
}

#[tokio::test]
async fn a_follower_that_dies_ends_the_stream_with_an_error() {
    let (leader, follower) = pair().await;
    follower.raft.shut();
    let mut client = leader.factory().new_client(id(2), &follower.name).await;
    let payload = Bytes::from_static(b"work");
    let input = futures::stream::iter([append(0, &payload)]).chain(futures::stream::pending());
    let mut answers = client.stream_append(input, option()).await.unwrap();
    tokio::select! {
        _ = answers.next() => panic!("nothing is answered yet"),
        () = follower.raft.appends(1) => {}
    }
    follower.stop.cancel();
    assert!(
        timeout(SOON, answers.next())
            .await
            .unwrap()
            .unwrap()
            .is_err()
    );
    assert!(answers.next().await.is_none());
}

/// openraft waits out its back-off inside the input, which is never read while the peer is away.
#[tokio::test]
async fn a_peer_that_is_away_is_not_dialled_in_a_spin() {
    let (leader, _follower) = pair().await;
    let away = MemberName("127.0.0.1:1".into());
    let mut client = leader.factory().new_client(id(9), &away).await;
    let begun = tokio::time::Instant::now();
    for _ in 0..6 {
        let input = futures::stream::pending::<AppendEntriesRequest<TypeConfig>>();
        assert!(client.stream_append(input, option()).await.is_err());
    }
    let doubled = options().retry_first * (1 + 2 + 4);
    assert!(
        begun.elapsed() >= doubled / 2,
        "six attempts took {:?}",
        begun.elapsed()
    );
}
