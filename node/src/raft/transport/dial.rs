//! Opens a connection to a member: look the name up, connect, TLS against the synthetic name, handshake.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::handshake::{self, HandshakeError};
use super::tls::{self, TlsError, TlsStore};
use super::wire::Lane;
use super::{Conn, Me, Options, PEER_PORT};
use crate::storage::types::MemberName;

#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody listens there: the process is gone.
    #[error("{name}: connection refused")]
    ConnectionRefused { name: MemberName },
    #[error("{name}: {source}")]
    Io { name: MemberName, source: io::Error },
    #[error("{name}: not connected within {timeout_ms} ms")]
    Timeout { name: MemberName, timeout_ms: u128 },
    #[error("{name}: {source}")]
    Handshake {
        name: MemberName,
        source: HandshakeError,
    },
    #[error(transparent)]
    Name(#[from] TlsError),
}

/// `host:port` of a name that may carry a port of its own.
pub fn address(name: &MemberName) -> String {
    match name.0.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => name.0.clone(),
        _ => format!("{}:{PEER_PORT}", name.0),
    }
}

/// Connects TCP only. Names are looked up each time: a pod's address changes with every restart.
pub async fn connect(
    options: &Options,
    to: u64,
    name: &MemberName,
) -> Result<TcpStream, DialError> {
    let name = options.detours.get(&to).unwrap_or(name);
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::ConnectionRefused => DialError::ConnectionRefused { name: name.clone() },
        _ => DialError::Io {
            name: name.clone(),
            source,
        },
    };
    let stream = TcpStream::connect(address(name)).await.map_err(io)?;
    stream.set_nodelay(true).map_err(io)?;
    Ok(stream)
}

pub async fn dial(
    me: &Me,
    tls: &TlsStore,
    options: &Options,
    to: u64,
    name: &MemberName,
    lane: Lane,
) -> Result<Conn, DialError> {
    let attempt = async {
        let server_name = tls::server_name(&tls::member_name(&me.cluster_id, to))?;
        let tcp = connect(options, to, name).await?;
        let stream = TlsConnector::from(Arc::clone(&tls.current().client))
            .connect(server_name, tcp)
            .await
            .map_err(|source| DialError::Io {
                name: name.clone(),
                source,
            })?;
        let mut conn = Conn::new(stream.into());
        handshake::dial(&mut conn, me, to, lane)
            .await
            .map_err(|source| DialError::Handshake {
                name: name.clone(),
                source,
            })?;
        Ok(conn)
    };
    timeout(options.connect_timeout, attempt)
        .await
        .unwrap_or_else(|_| {
            Err(DialError::Timeout {
                name: name.clone(),
                timeout_ms: options.connect_timeout.as_millis(),
            })
        })
}
