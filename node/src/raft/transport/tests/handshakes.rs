//! Who gets in, who does not, and that nobody else notices.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::rig::{CLUSTER, Member, SOON, id, me, options, store};
use crate::raft::certs::{Authority, Issued};
use crate::raft::transport::Me;
use crate::raft::transport::dial::{DialError, address, dial};
use crate::raft::transport::frame::{FrameReader, FrameWriter, Tag, decode_whole};
use crate::raft::transport::handshake::HandshakeError;
use crate::raft::transport::tls::member_name;
use crate::raft::transport::wire::{Hello, Lane, Refuse, RefuseCause, VERSION_MAX, VERSION_MIN};
use crate::storage::types::MemberName;

async fn try_dial(me: &Me, issued: &Issued, to: u64, name: &MemberName) -> Result<(), DialError> {
    let (_dir, tls) = store(issued);
    dial(me, &tls, &options(), to, name, Lane::Control)
        .await
        .map(drop)
}

fn cause(outcome: Result<(), DialError>) -> RefuseCause {
    match outcome {
        Err(DialError::Handshake {
            source: HandshakeError::RefusedByPeer(refuse),
            ..
        }) => refuse.cause,
        other => panic!("refused by the peer, not {other:?}"),
    }
}

async fn still_serves(server: &Member, authority: &Authority) {
    let caller = Member::start(authority, 9).await;
    let deadline = Instant::now() + SOON;
    let answer = caller
        .peers
        .forward(id(1), &server.name, "hello".into(), deadline)
        .await
        .unwrap();
    assert_eq!(answer, "hello from 9");
}

/// Past TLS, before the first frame.
async fn raw(server: &Member, issued: &Issued) -> std::io::Result<TlsStream<TcpStream>> {
    let (_dir, tls) = store(issued);
    let tcp = TcpStream::connect(&server.name.0).await?;
    let name = ServerName::try_from(member_name(CLUSTER, id(1))).unwrap();
    TlsConnector::from(Arc::clone(&tls.current().client))
        .connect(name, tcp)
        .await
}

fn hello(from: u64) -> Hello {
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        cluster_id: CLUSTER.into(),
        incarnation: 1,
        from,
        from_name: "127.0.0.1:1".into(),
        to: id(1),
        lane: Lane::Control,
    }
}

/// The server's answer to a greeting of our own making.
async fn refused(server: &Member, issued: &Issued, hello: &Hello) -> RefuseCause {
    let (read, write) = tokio::io::split(raw(server, issued).await.unwrap());
    let mut writer = FrameWriter::new(write, 4096);
    writer.push(Tag::Hello, hello).unwrap();
    writer.drive().await.unwrap();
    let frame = FrameReader::new(read, 4096).expect().await.unwrap();
    assert_eq!(frame.tag, Tag::Refuse);
    decode_whole::<Refuse>(frame.tag, frame.body).unwrap().cause
}

#[tokio::test]
async fn a_member_of_the_same_cluster_gets_in() {
    let authority = Authority::new(CLUSTER).unwrap();
    let server = Member::start(&authority, 1).await;
    let name = MemberName("127.0.0.1:1".into());
    try_dial(
        &me(2, &name),
        &authority.member(id(2)).unwrap(),
        id(1),
        &server.name,
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn strangers_are_refused_with_the_reason() {
    let authority = Authority::new(CLUSTER).unwrap();
    let server = Member::start(&authority, 1).await;
    let two = authority.member(id(2)).unwrap();

    let foreign = Hello {
        cluster_id: "another".into(),
        ..hello(id(2))
    };
    assert_eq!(
        refused(&server, &two, &foreign).await,
        RefuseCause::ClusterId
    );
    let old = Hello {
        incarnation: 0,
        ..hello(2)
    };
    assert_eq!(refused(&server, &two, &old).await, RefuseCause::Incarnation);
    let not_here = Hello {
        to: id(5),
        ..hello(id(2))
    };
    assert_eq!(
        refused(&server, &two, &not_here).await,
        RefuseCause::MemberId
    );
    let myself = hello(id(1));
    assert_eq!(refused(&server, &two, &myself).await, RefuseCause::MemberId);
    let future = Hello {
        version_min: VERSION_MAX + 1,
        version_max: VERSION_MAX + 2,
        ..hello(id(2))
    };
    assert_eq!(refused(&server, &two, &future).await, RefuseCause::Version);
    still_serves(&server, &authority).await;
}

#[tokio::test]
async fn a_certificate_counts_for_its_own_member_only() {
    let authority = Authority::new(CLUSTER).unwrap();
    let server = Member::start(&authority, 1).await;
    for issued in [
        authority.member(id(3)).unwrap(),
        authority.operator().unwrap(),
        // The same number in the incarnation before.
        authority.member(2).unwrap(),
    ] {
        assert_eq!(
            refused(&server, &issued, &hello(id(2))).await,
            RefuseCause::Certificate
        );
    }
}

#[tokio::test]
async fn an_old_incarnation_is_refused_by_certificate_and_by_handshake() {
    let authority = Authority::new(CLUSTER).unwrap();
    let server = Member::start(&authority, 1).await;
    let name = MemberName("127.0.0.1:1".into());
    // It asks for the member it knew: the server's certificate says another name.
    let old = Me {
        incarnation: 0,
        member_id: 2,
        ..me(2, &name)
    };
    let outcome = try_dial(&old, &authority.member(2).unwrap(), 1, &server.name).await;
    assert!(matches!(outcome, Err(DialError::Io { .. })), "{outcome:?}");
    // It knows whom to ask for, but not that the world has moved on.
    let old = Me {
        incarnation: 0,
        ..me(2, &name)
    };
    let outcome = try_dial(&old, &authority.member(id(2)).unwrap(), id(1), &server.name).await;
    assert_eq!(cause(outcome), RefuseCause::Incarnation);
}

#[tokio::test]
async fn a_member_of_a_later_incarnation_is_refused_by_one_that_was_left_behind() {
    let authority = Authority::new(CLUSTER).unwrap();
    let left_behind = Member::start(&authority, 1).await;
    let name = MemberName("127.0.0.1:1".into());
    let (new, new_first) = ((2 << 32) + 2, (2 << 32) + 1);
    let rewritten = Me {
        incarnation: 2,
        member_id: new,
        ..me(2, &name)
    };
    let issued = authority.member(new).unwrap();
    // It asks for a member of its own incarnation at an address that another one still has.
    let outcome = try_dial(&rewritten, &issued, new_first, &left_behind.name).await;
    assert!(matches!(outcome, Err(DialError::Io { .. })), "{outcome:?}");
    let outcome = try_dial(&rewritten, &issued, id(1), &left_behind.name).await;
    assert_eq!(cause(outcome), RefuseCause::Incarnation);
    still_serves(&left_behind, &authority).await;
}

#[tokio::test]
async fn another_clusters_ca_opens_nothing_in_either_direction() {
    let (ours, theirs) = (
        Authority::new(CLUSTER).unwrap(),
        Authority::new(CLUSTER).unwrap(),
    );
    let server = Member::start(&ours, 1).await;
    let name = MemberName("127.0.0.1:1".into());
    let outcome = try_dial(
        &me(2, &name),
        &theirs.member(id(2)).unwrap(),
        id(1),
        &server.name,
    )
    .await;
    assert!(matches!(outcome, Err(DialError::Io { .. })), "{outcome:?}");
    // A client that trusts the server but holds a foreign certificate.
    let mut issued = theirs.member(id(2)).unwrap();
    issued.ca_pem = format!("{}{}", ours.ca_pem(), theirs.ca_pem());
    let outcome = try_dial(&me(2, &name), &issued, id(1), &server.name).await;
    assert!(outcome.is_err());
    still_serves(&server, &ours).await;
}

#[tokio::test]
async fn the_dialer_checks_whom_it_met_whatever_the_address() {
    let authority = Authority::new(CLUSTER).unwrap();
    let server = Member::start(&authority, 1).await;
    let name = MemberName("127.0.0.1:1".into());
    let outcome = try_dial(
        &me(2, &name),
        &authority.member(id(2)).unwrap(),
        id(3),
        &server.name,
    )
    .await;
    assert!(matches!(outcome, Err(DialError::Io { .. })), "{outcome:?}");
}

async fn closed(stream: &mut (impl AsyncReadExt + Unpin)) {
    let mut rest = Vec::new();
    // A reset is as good as an end.
    let _ = timeout(SOON, stream.read_to_end(&mut rest))
        .await
        .expect("the server closes");
}

#[tokio::test]
async fn garbage_half_frames_and_giant_lengths_close_their_connection_only() {
    let authority = Authority::new(CLUSTER).unwrap();
    let options = crate::raft::transport::Options {
        handshake_timeout: Duration::from_millis(300),
        ..options()
    };
    let server = Member::start_with(&authority, 1, options).await;
    let two = authority.member(id(2)).unwrap();

    // Not even TLS.
    let mut plain = TcpStream::connect(&server.name.0).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    closed(&mut plain).await;
    // Nothing at all.
    let mut silent = TcpStream::connect(&server.name.0).await.unwrap();
    closed(&mut silent).await;

    let garbage: [&[u8]; 6] = [
        b"\x00\x00\x00\x05\xffabcd",
        b"\xff\xff\xff\xff\x01",
        b"\x00\x00\x00\x00",
        // A frame that belongs elsewhere, and a greeting that is none.
        b"\x00\x00\x00\x01\x04",
        b"\x00\x00\x00\x03\x01\xff\xff",
        // Half a frame; the time-out ends it.
        b"\x00\x00\x00\x20\x01half",
    ];
    for bytes in garbage {
        let mut stream = raw(&server, &two).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        closed(&mut stream).await;
    }
    still_serves(&server, &authority).await;
}

#[tokio::test]
async fn garbage_behind_a_good_handshake_closes_its_connection_only() {
    let authority = Authority::new(CLUSTER).unwrap();
    let server = Member::start(&authority, 1).await;
    let two = authority.member(id(2)).unwrap();
    let garbage: [&[u8]; 4] = [
        b"\xff\xff\xff\xff\x0a",
        b"\x00\x00\x00\x05\x0aabcd",
        b"\x00\x00\x00\x0c\x0a\0\0\0\0\0\0\0\x01\xff\xff\xff",
        b"\x00\x00\x00\x09\x14",
    ];
    for lane in [Lane::Control, Lane::Append, Lane::Snapshot, Lane::Forward] {
        for bytes in garbage {
            let (read, write) = tokio::io::split(raw(&server, &two).await.unwrap());
            let mut writer = FrameWriter::new(write, 4096);
            writer
                .push(
                    Tag::Hello,
                    &Hello {
                        lane,
                        ..hello(id(2))
                    },
                )
                .unwrap();
            writer.drive().await.unwrap();
            let mut reader = FrameReader::new(read, 4096);
            assert_eq!(reader.expect().await.unwrap().tag, Tag::Welcome);
            let mut stream = reader.into_inner().unsplit(writer.into_inner());
            stream.write_all(bytes).await.unwrap();
            stream.shutdown().await.unwrap();
            closed(&mut stream).await;
        }
    }
    still_serves(&server, &authority).await;
}

#[test]
fn a_name_without_a_port_means_the_peer_port() {
    assert_eq!(
        address(&MemberName("m-1.c-peers.ns.svc".into())),
        "m-1.c-peers.ns.svc:7402"
    );
    assert_eq!(
        address(&MemberName("127.0.0.1:4711".into())),
        "127.0.0.1:4711"
    );
}
