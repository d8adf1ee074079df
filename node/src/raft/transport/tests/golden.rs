//! The bytes of every message. A change here breaks clusters that run two versions: raise the protocol
//! version instead.

use bytes::{Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::raft::AppendEntriesRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::rig::{append, id, log_id};
use crate::raft::transport::append::{put_append, read_append};
use crate::raft::transport::frame::{FrameError, FrameWriter, Tag};
use crate::raft::transport::wire::*;
use crate::storage::types::{self, Entry, EntryBytes};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn golden<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: T, bytes: &str) {
    let encoded = postcard::to_stdvec(&value).unwrap();
    assert_eq!(hex(&encoded), bytes, "{value:?}");
    assert_eq!(postcard::from_bytes::<T>(&encoded).unwrap(), value);
}

const LOG_ID: LogId = LogId {
    term: 3,
    index: 300,
};
const VOTE: Vote = Vote {
    term: 3,
    voted_for: 2,
    committed: true,
};

fn membership() -> Membership {
    Membership {
        configs: vec![vec![1], vec![1, 2]],
        members: vec![(1, "a".into()), (2, "b".into())],
    }
}

#[test]
fn the_handshake_keeps_its_bytes() {
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        cluster_id: "c".into(),
        incarnation: 1,
        from: 1,
        from_name: "a".into(),
        to: 2,
        lane: Lane::Snapshot,
    };
    golden(hello, "01010163010101610202");
    golden(
        Welcome {
            version: 1,
            cluster_id: "c".into(),
            incarnation: 1,
            from: 2,
        },
        "0101630102",
    );
    golden(
        Refuse {
            cause: RefuseCause::Certificate,
            reason: "no".into(),
        },
        "04026e6f",
    );
    golden(
        vec![Lane::Control, Lane::Append, Lane::Snapshot, Lane::Forward],
        "0400010203",
    );
    let causes = vec![
        RefuseCause::Version,
        RefuseCause::ClusterId,
        RefuseCause::Incarnation,
        RefuseCause::MemberId,
        RefuseCause::Certificate,
        RefuseCause::Busy,
    ];
    golden(causes, "06000102030405");
}

#[test]
fn raft_messages_keep_their_bytes() {
    golden(LOG_ID, "03ac02");
    golden(VOTE, "030201");
    golden(id(2), "8280808010");
    golden(membership(), "02010102010202010161020162");
    let head = AppendHead {
        session: 7,
        vote: VOTE,
        prev: Some(LOG_ID),
        leader_commit: None,
        entries: 2,
    };
    golden(head, "070302010103ac020002");
    golden(
        EntryHead {
            log_id: LOG_ID,
            kind: EntryKind::Normal,
            bytes: 5,
        },
        "03ac020105",
    );
    golden(
        vec![EntryKind::Blank, EntryKind::Normal, EntryKind::Membership],
        "03000102",
    );
    golden(
        AppendAnswer {
            session: 7,
            outcome: AppendOutcome::Matched(Some(LOG_ID)),
        },
        "07000103ac02",
    );
    golden(
        AppendAnswer {
            session: 7,
            outcome: AppendOutcome::Conflict(LOG_ID),
        },
        "070103ac02",
    );
    golden(
        AppendAnswer {
            session: 7,
            outcome: AppendOutcome::HigherVote(VOTE),
        },
        "0702030201",
    );
    golden(
        Heartbeat {
            vote: VOTE,
            prev: None,
            leader_commit: Some(LOG_ID),
        },
        "030201000103ac02",
    );
    let facts = Facts {
        ready: true,
        disk_high_water: false,
        feature_level_max: 1,
        version: "v".into(),
    };
    golden(
        HeartbeatAnswer {
            outcome: AppendOutcome::Matched(None),
            facts,
        },
        "00000100010176",
    );
    golden(
        VoteAsk {
            vote: VOTE,
            last: Some(LOG_ID),
            leadership_transfer: true,
        },
        "0302010103ac0201",
    );
    golden(
        VoteAnswer {
            vote: VOTE,
            granted: true,
            last: None,
        },
        "0302010100",
    );
    golden(
        TransferAsk {
            from_leader: VOTE,
            to: 1,
            last: Some(LOG_ID),
        },
        "030201010103ac02",
    );
    golden(TransferAnswer::Accepted, "00");
    golden(
        TransferAnswer::VoteChanged {
            expected: VOTE,
            actual: VOTE,
        },
        "01030201030201",
    );
    golden(
        TransferAnswer::LogNotFlushed {
            expected: Some(LOG_ID),
            actual: None,
        },
        "020103ac0200",
    );
}

#[test]
fn the_other_messages_keep_their_bytes() {
    golden(
        ForwardHead {
            deadline_ms: 300,
            hop: 1,
        },
        "ac0201",
    );
    let begin = SnapshotBegin {
        vote: VOTE,
        last: Some(LOG_ID),
        membership_log_id: None,
        membership: membership(),
        id: "s".into(),
        bytes: 300,
    };
    golden(begin, "0302010103ac0200020101020102020101610201620173ac02");
    golden(SnapshotAt { offset: 300 }, "ac02");
    golden(SnapshotDone { vote: VOTE }, "030201");
    golden(
        SnapshotFailed {
            reason: "no".into(),
        },
        "026e6f",
    );
}

#[test]
fn tags_keep_their_numbers() {
    let tags = [
        (Tag::Hello, 1),
        (Tag::Welcome, 2),
        (Tag::Refuse, 3),
        (Tag::Ping, 4),
        (Tag::Pong, 5),
        (Tag::Heartbeat, 10),
        (Tag::PreVote, 11),
        (Tag::Vote, 12),
        (Tag::TransferLeader, 13),
        (Tag::Forward, 14),
        (Tag::Answer, 15),
        (Tag::NotTaken, 16),
        (Tag::Cancel, 17),
        (Tag::Append, 20),
        (Tag::AppendAnswer, 21),
        (Tag::SnapshotBegin, 30),
        (Tag::SnapshotAt, 31),
        (Tag::SnapshotChunk, 32),
        (Tag::SnapshotEnd, 33),
        (Tag::SnapshotBusy, 34),
        (Tag::SnapshotDone, 35),
        (Tag::SnapshotFailed, 36),
    ];
    for (tag, number) in tags {
        assert_eq!(tag as u8, number, "{tag:?}");
    }
}

fn whole_append() -> AppendEntriesRequest<types::TypeConfig> {
    let entry = |index, payload| Entry {
        log_id: log_id(3, index),
        payload,
    };
    AppendEntriesRequest {
        vote: VOTE.into(),
        prev_log_id: Some(log_id(3, 300)),
        leader_commit: Some(log_id(3, 299)),
        entries: vec![
            entry(301, EntryPayload::Blank),
            entry(
                302,
                EntryPayload::Normal(EntryBytes(Bytes::from_static(b"work"))),
            ),
            entry(
                303,
                EntryPayload::Membership(membership().try_into().unwrap()),
            ),
        ],
    }
}

#[tokio::test]
async fn an_append_frame_keeps_its_bytes_and_reads_back() {
    let mut out = Vec::new();
    let mut writer = FrameWriter::new(&mut out, 1 << 20);
    writer
        .push_with(Tag::Append, |buffer| put_append(7, &whole_append(), buffer))
        .unwrap();
    writer.drive().await.unwrap();
    let expected = "0000002e 14 07 030201 01 03ac02 01 03ab02 03\
                    03ad02 00 00\
                    03ae02 01 04 776f726b\
                    03af02 02 0d 02010102010202010161020162";
    assert_eq!(hex(&out), expected.replace(' ', ""));

    let (session, read) = read_append(Bytes::from(out).slice(5..)).unwrap();
    assert_eq!(session, 7);
    assert_eq!(format!("{read:?}"), format!("{:?}", whole_append()));
}

#[test]
fn a_payload_that_arrives_is_a_slice_of_its_frame() {
    let mut buffer = BytesMut::new();
    put_append(1, &append(5, &Bytes::from(vec![7; 4096])), &mut buffer).unwrap();
    let frame = buffer.freeze();
    let (_, read) = read_append(frame.clone()).unwrap();
    let EntryPayload::Normal(EntryBytes(payload)) = &read.entries[0].payload else {
        panic!("a normal entry")
    };
    assert!(frame.as_ptr_range().contains(&payload.as_ptr()));
}

#[test]
fn an_append_that_lies_about_its_entries_is_malformed() {
    let mut buffer = BytesMut::new();
    put_append(1, &whole_append(), &mut buffer).unwrap();
    let whole = buffer.freeze();
    for cut in 0..whole.len() {
        let error = read_append(whole.slice(..cut)).err();
        assert!(
            matches!(error, Some(FrameError::Malformed { .. })),
            "cut at {cut}"
        );
    }
    let mut longer = whole.to_vec();
    longer.push(0);
    assert!(read_append(longer.into()).is_err());

    let mut gap = whole_append();
    gap.entries.remove(1);
    let mut buffer = BytesMut::new();
    put_append(1, &gap, &mut buffer).unwrap();
    assert!(read_append(buffer.freeze()).is_err());
}
