//! The first frames of a connection: both sides say who they are, and whoever is not expected is refused
//! with a reason that both sides log.

use super::frame::{FrameError, Tag, decode_whole};
use super::tls::{self, TlsError};
use super::wire::{Hello, Lane, Refuse, RefuseCause, VERSION_MAX, VERSION_MIN, Welcome};
use super::{Conn, Me};
use crate::limits::FRAME_BYTES_MAX;
use crate::storage::types::MemberName;

#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("refused by the peer ({cause:?}): {reason}", cause = .0.cause, reason = .0.reason)]
    RefusedByPeer(Refuse),
    #[error("refused the peer ({cause:?}): {reason}", cause = .0.cause, reason = .0.reason)]
    RefusedPeer(Refuse),
    #[error(transparent)]
    Certificate(#[from] TlsError),
}

/// A dialer that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub member_id: u64,
    pub name: MemberName,
    pub lane: Lane,
}

fn refuse(cause: RefuseCause, reason: String) -> Refuse {
    Refuse { cause, reason }
}

/// The dialer's half. TLS has already proven that the acceptor holds the certificate of `to`.
pub async fn dial(conn: &mut Conn, me: &Me, to: u64, lane: Lane) -> Result<(), HandshakeError> {
    let hello = Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        cluster_id: me.cluster_id.clone(),
        incarnation: me.incarnation,
        from: me.member_id,
        from_name: me.name.0.clone(),
        to,
        lane,
    };
    conn.writer.push(Tag::Hello, &hello)?;
    conn.writer.drive().await.map_err(FrameError::from)?;
    let frame = conn.reader.expect().await?;
    match frame.tag {
        Tag::Welcome => {
            let welcome: Welcome = decode_whole(frame.tag, frame.body)?;
            check_welcome(me, to, &welcome).map_err(HandshakeError::RefusedPeer)?;
            conn.reader.set_bytes_max(FRAME_BYTES_MAX);
            Ok(())
        }
        Tag::Refuse => Err(HandshakeError::RefusedByPeer(decode_whole(
            frame.tag, frame.body,
        )?)),
        other => Err(FrameError::Unexpected(other).into()),
    }
}

fn check_welcome(me: &Me, to: u64, welcome: &Welcome) -> Result<(), Refuse> {
    if !(VERSION_MIN..=VERSION_MAX).contains(&welcome.version) {
        return Err(refuse(
            RefuseCause::Version,
            format!("it chose version {}", welcome.version),
        ));
    }
    if welcome.from != to {
        return Err(refuse(
            RefuseCause::MemberId,
            format!("wanted member {to}, met {}", welcome.from),
        ));
    }
    check_identity(me, &welcome.cluster_id, welcome.incarnation)
}

fn check_identity(me: &Me, cluster_id: &str, incarnation: u32) -> Result<(), Refuse> {
    if cluster_id != me.cluster_id {
        let reason = format!("this is cluster {}, not {cluster_id}", me.cluster_id);
        return Err(refuse(RefuseCause::ClusterId, reason));
    }
    if incarnation != me.incarnation {
        let reason = format!("this is incarnation {}, not {incarnation}", me.incarnation);
        return Err(refuse(RefuseCause::Incarnation, reason));
    }
    Ok(())
}

/// The acceptor's half: reads who calls and answers.
pub async fn accept(
    conn: &mut Conn,
    certificates: Presented,
    me: &Me,
) -> Result<Caller, HandshakeError> {
    let frame = conn.reader.expect().await?;
    if frame.tag != Tag::Hello {
        return Err(FrameError::Unexpected(frame.tag).into());
    }
    let hello: Hello = decode_whole(frame.tag, frame.body)?;
    match check_hello(me, &hello, &certificates) {
        Ok(version) => {
            let welcome = Welcome {
                version,
                cluster_id: me.cluster_id.clone(),
                incarnation: me.incarnation,
                from: me.member_id,
            };
            conn.writer.push(Tag::Welcome, &welcome)?;
            conn.writer.drive().await.map_err(FrameError::from)?;
            conn.reader.set_bytes_max(FRAME_BYTES_MAX);
            Ok(Caller {
                member_id: hello.from,
                name: MemberName(hello.from_name),
                lane: hello.lane,
            })
        }
        Err(refuse) => {
            send_refuse(conn, &refuse).await?;
            Err(HandshakeError::RefusedPeer(refuse))
        }
    }
}

pub async fn send_refuse(conn: &mut Conn, refuse: &Refuse) -> Result<(), FrameError> {
    conn.writer.push(Tag::Refuse, refuse)?;
    conn.writer.drive().await?;
    Ok(())
}

/// The chain that TLS has verified, leaf first.
pub type Presented = Option<Vec<rustls::pki_types::CertificateDer<'static>>>;

fn check_hello(me: &Me, hello: &Hello, certificates: &Presented) -> Result<u16, Refuse> {
    let version = VERSION_MAX.min(hello.version_max);
    if version < VERSION_MIN.max(hello.version_min) {
        let reason = format!(
            "versions {}-{} are spoken here, {}-{} there",
            VERSION_MIN, VERSION_MAX, hello.version_min, hello.version_max
        );
        return Err(refuse(RefuseCause::Version, reason));
    }
    check_identity(me, &hello.cluster_id, hello.incarnation)?;
    if hello.to != me.member_id {
        let reason = format!("this is member {}, not {}", me.member_id, hello.to);
        return Err(refuse(RefuseCause::MemberId, reason));
    }
    if hello.from == me.member_id || hello.from >> 32 != u64::from(me.incarnation) {
        let reason = format!(
            "no peer of member {} can be member {}",
            me.member_id, hello.from
        );
        return Err(refuse(RefuseCause::MemberId, reason));
    }
    tls::verify_name(
        certificates.as_deref(),
        &tls::member_name(&me.cluster_id, hello.from),
    )
    .map_err(|e| refuse(RefuseCause::Certificate, e.to_string()))?;
    Ok(version)
}
