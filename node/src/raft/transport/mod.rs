//! Frames over TCP with mutual TLS between members.
//!
//! ```text
//! dialer                                        acceptor
//!   network.rs ─▶ peers ─┬─ mux: control ─────▶ server ─▶ calls  ─▶ heartbeat, vote, hand-over
//!                        ├─ append stream ────▶        ─▶ append ─▶ in order, many in flight
//!                        ├─ snapshot ─────────▶        ─▶ inbox  ─▶ temporary file, resumed
//!   service ─────────────┴─ mux: forward ─────▶        ─▶ calls  ─▶ the service of the leader
//! ```
//!
//! Each direction has its own four connections. A new connection of a member for a lane replaces the
//! older one. Garbage, a half frame or a giant length closes its connection and nothing else.

pub mod append;
pub(crate) mod append_stream;
pub mod dial;
pub mod frame;
pub mod handshake;
pub mod inbox;
pub mod mux;
pub mod peers;
mod serve_append;
mod serve_calls;
pub mod server;
pub mod snapshot;
pub mod tls;
pub mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::storage::identity::Identity;
use crate::storage::types::MemberName;

/// Peer port of a name that carries none.
pub const PEER_PORT: u16 = 7402;

/// Who this member is, as its disk and its certificate say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    pub cluster_id: String,
    pub incarnation: u32,
    /// incarnation · 2³² + n
    pub member_id: u64,
    pub name: MemberName,
}

impl Me {
    pub fn new(identity: &Identity, name: MemberName) -> Me {
        Me {
            cluster_id: identity.cluster_id.clone(),
            incarnation: identity.incarnation.into(),
            member_id: identity.member_id,
            name,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Options {
    /// TCP, TLS and handshake together.
    pub connect_timeout: Duration,
    /// What an accepted connection may take to say who it is.
    pub handshake_timeout: Duration,
    /// An append that is not answered in this time means the connection is dead.
    pub append_timeout: Duration,
    /// One chunk of a snapshot, not all of it.
    pub chunk_timeout: Duration,
    /// A ping goes out on a silent multiplexed connection after this; three in a row lost, and it is dead.
    pub keep_alive: Duration,
    /// First and longest pause between two attempts to connect.
    pub retry_first: Duration,
    pub retry_longest: Duration,
    /// Where a member is dialled instead of at its name; a test lays its cables here.
    pub detours: BTreeMap<u64, MemberName>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connect_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(5),
            append_timeout: Duration::from_secs(3),
            chunk_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(2),
            retry_first: Duration::from_millis(20),
            retry_longest: Duration::from_millis(250),
            detours: BTreeMap::new(),
        }
    }
}

/// Pauses that double, with jitter so that members started together do not knock together.
pub fn pauses(options: &Options) -> impl Iterator<Item = Duration> + Send + Sync + 'static {
    let (mut next, longest) = (options.retry_first, options.retry_longest);
    std::iter::from_fn(move || {
        let pause = next.mul_f64(0.5 + fastrand::f64());
        next = (next * 2).min(longest);
        Some(pause)
    })
}

type Stream = tokio_rustls::TlsStream<TcpStream>;
type Reader = frame::FrameReader<tokio::io::ReadHalf<Stream>>;
type Writer = frame::FrameWriter<tokio::io::WriteHalf<Stream>>;

/// A connection past its handshake.
pub struct Conn {
    reader: Reader,
    writer: Writer,
    /// The last append session that was begun on it.
    session: u64,
}

impl Conn {
    fn new(stream: Stream) -> Conn {
        let (read, write) = tokio::io::split(stream);
        Conn {
            reader: frame::FrameReader::new(read, crate::limits::HELLO_BYTES_MAX),
            writer: frame::FrameWriter::new(write, crate::limits::FRAME_BYTES_MAX),
            session: 0,
        }
    }
}
