//! One port: accepts connections, with TLS or (for a laptop) without, and serves HTTP/1.1 and HTTP/2 on
//! each. Everything is bounded: connections, handshakes, headers, streams and silence.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::counter::Counter;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::limits::{CONNECTION_REQUESTS_MAX, REQUEST_HEADER_BYTES_MAX};
use crate::metrics::Gauge;

/// Time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time until a connection has said which HTTP it speaks.
const FIRST_WORDS_TIMEOUT: Duration = Duration::from_secs(20);
/// With these an HTTP/2 client begins.
const HTTP2_FIRST_WORDS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Time for the headers of an HTTP/1 request, and how long its connection may rest between two.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(75);
/// Silence after which an HTTP/2 peer is asked for a sign of life, and its time to give one.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2's own 64 KiB would stall a payload of 1 MiB sixteen times for a round trip each.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
const FRAME_BYTES_MAX: u32 = 128 << 10;
const SEND_BUFFER_BYTES: usize = 1 << 20;
/// What HTTP/1 reads at a time, headers included.
const HTTP1_BUFFER_BYTES: usize = 64 << 10;
/// Rest after a failed accept: out of file descriptors, mostly.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Asked at each handshake, so that renewed certificates need no restart.
pub type TlsProvider = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

#[derive(Clone)]
pub enum Security {
    Tls(TlsProvider),
    /// For a laptop and for the health port.
    Plain,
}

pub struct Settings {
    pub security: Security,
    pub connections_max: usize,
    /// Open connections, as a metric.
    pub connections: Gauge,
    pub connections_refused: Counter,
    /// How long requests in flight may take to finish at the end.
    pub grace: Duration,
}

/// Serves until `stop`, then lets the requests in flight finish, for `grace` at most.
pub async fn serve(
    listener: TcpListener,
    router: axum::Router,
    settings: Settings,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(settings.connections_max));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        // At the bound, further connections wait in the kernel's queue.
        let permit = tokio::select! {
            permit = permits.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
            () = stop.cancelled() => break,
        };
        let socket = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => socket,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                }
            },
            () = stop.cancelled() => break,
        };
        let connection = Connection {
            router: router.clone(),
            security: settings.security.clone(),
            watcher: graceful.watcher(),
            open: Open::new(settings.connections.clone()),
            refused: settings.connections_refused.clone(),
            permit,
        };
        connections.spawn(connection.serve(socket));
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    if tokio::time::timeout(settings.grace, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = connections.len(),
            "requests in flight did not finish in time"
        );
    }
}

/// Counts one connection for as long as it lives.
struct Open(Gauge);

impl Open {
    fn new(gauge: Gauge) -> Open {
        gauge.inc();
        Open(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

struct Connection {
    router: axum::Router,
    security: Security,
    watcher: Watcher,
    open: Open,
    refused: Counter,
    permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn serve(self, socket: TcpStream) {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a connection was lost at once");
            return;
        }
        match &self.security {
            Security::Plain => self.http(socket).await,
            Security::Tls(provider) => {
                let handshake = TlsAcceptor::from(provider()).accept(socket);
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
                    Ok(Ok(stream)) => self.http(stream).await,
                    Ok(Err(error)) => {
                        self.refused.inc();
                        tracing::debug!(%error, "a TLS handshake failed");
                    }
                    Err(_) => {
                        self.refused.inc();
                        tracing::debug!("a TLS handshake took too long");
                    }
                }
            }
        }
    }

    async fn http(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let builder = builder();
        let service = TowerToHyperService::new(self.router);
        let stream = TokioIo::new(FirstWords::of(stream, FIRST_WORDS_TIMEOUT));
        let connection = builder.serve_connection(stream, service);
        if let Err(error) = self.watcher.watch(connection).await {
            tracing::debug!(%error, "a connection ended early");
        }
        drop((self.open, self.permit));
    }
}

/// A stream that fails when its peer does not say in time which HTTP it speaks. From then on the time
/// limits of that HTTP hold; until then there are none.
struct FirstWords<S> {
    stream: S,
    /// How many of HTTP/2's first words were read; gone once they are complete or something else came.
    heard: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<S> FirstWords<S> {
    fn of(stream: S, limit: Duration) -> FirstWords<S> {
        FirstWords {
            stream,
            heard: Some((0, Box::pin(tokio::time::sleep(limit)))),
        }
    }

    fn hear(&mut self, words: &[u8]) {
        let Some((heard, _)) = &mut self.heard else {
            return;
        };
        let rest = &HTTP2_FIRST_WORDS[*heard..];
        match rest.starts_with(words) && rest.len() > words.len() {
            true => *heard += words.len(),
            false => self.heard = None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstWords<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        match (read, &mut self.heard) {
            (Poll::Pending, Some((_, limit))) => {
                let over = limit.as_mut().poll(cx);
                over.map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
            (read, _) => {
                self.hear(&buffer.filled()[before..]);
                read
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstWords<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .max_buf_size(HTTP1_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(REQUEST_HEADER_BYTES_MAX as u32)
        .max_concurrent_streams(CONNECTION_REQUESTS_MAX)
        .keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    builder
}

/// TLS for the client port: our certificate, no certificate asked of clients.
pub fn client_port_tls(cert_pem: &[u8], key_pem: &[u8]) -> Result<ServerConfig, String> {
    let chain = CertificateDer::pem_slice_iter(cert_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("certificate: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| format!("key: {error}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(60);

    /// A client that says `words` and no more; true once the connection has ended.
    async fn ends(words: &[u8], limit: Duration, within: Duration) -> bool {
        let (mut client, server) = tokio::io::duplex(1 << 10);
        client.write_all(words).await.unwrap();
        let service = TowerToHyperService::new(axum::Router::new());
        let stream = TokioIo::new(FirstWords::of(server, limit));
        let builder = builder();
        let connection = builder.serve_connection(stream, service);
        tokio::time::timeout(within, connection).await.is_ok()
    }

    #[tokio::test]
    async fn a_connection_that_never_says_what_it_speaks_ends() {
        for words in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
            assert!(ends(words, SHORT, LONG).await, "{words:?}");
        }
    }

    #[tokio::test]
    async fn once_it_has_said_so_that_protocols_own_limits_hold() {
        for words in [&b"GET / HT"[..], HTTP2_FIRST_WORDS] {
            assert!(!ends(words, SHORT, 4 * SHORT).await, "{words:?}");
        }
        let mut stream = FirstWords::of(&b"PRI * GET"[..], LONG);
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        assert!(stream.heard.is_none());
    }
}
