//! A connection to one member's admin port: mutual TLS 1.3, where the name in the member's certificate
//! is synthetic (`m<n>.i<incarnation>.<cluster id>.taskstore`) and independent of the address dialled.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint, Uri};

pub use crate::tls::{ClientTls, ConnectError};
use crate::tls::{Dialler, client_config};
use crate::v1::admin_client::AdminClient;

/// Silence after which a peer is asked for a sign of life, and how long it has to give one. A status
/// stream of a vanished member ends within their sum.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
const WINDOW_BYTES: u32 = 1 << 20;

/// Dials now. `address` is `host:port`.
pub async fn connect(
    address: &str,
    server_name: &str,
    tls: ClientTls,
) -> Result<AdminClient<Channel>, ConnectError> {
    let dialler = dialler(address, server_name, &tls)?;
    // The first dial is made here, so that its error keeps its meaning; tonic would only say "transport
    // error". The channel is handed that connection and dials again by itself when it is lost.
    let first = dialler.clone().dial().await?;
    let first = Arc::new(std::sync::Mutex::new(Some(first)));
    let connector = tower::service_fn(move |_: Uri| {
        let (dialler, first) = (dialler.clone(), first.clone());
        async move {
            let ready = first.lock().ok().and_then(|mut first| first.take());
            match ready {
                Some(connection) => Ok(connection),
                None => dialler.dial().await,
            }
        }
    });
    Ok(AdminClient::new(
        endpoint().connect_with_connector_lazy(connector),
    ))
}

/// Over a stream that leads to the port already, such as a forwarded one. `address` is for errors only. A lost
/// connection is not made again.
pub async fn connect_over<S>(
    stream: S,
    address: &str,
    server_name: &str,
    tls: ClientTls,
) -> Result<AdminClient<Channel>, ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let dialler = dialler(address, server_name, &tls)?;
    let only = Arc::new(std::sync::Mutex::new(Some(dialler.over(stream).await?)));
    let address = address.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let ready = only.lock().ok().and_then(|mut only| only.take());
        let lost = ConnectError::Unreachable {
            address: address.clone(),
            reason: "the connection was lost".to_owned(),
        };
        std::future::ready(ready.ok_or(lost))
    });
    Ok(AdminClient::new(
        endpoint().connect_with_connector_lazy(connector),
    ))
}

/// Dials with the first call, and again whenever the connection was lost.
pub fn connect_lazy(
    address: &str,
    server_name: &str,
    tls: ClientTls,
) -> Result<AdminClient<Channel>, ConnectError> {
    let dialler = dialler(address, server_name, &tls)?;
    let connector = tower::service_fn(move |_: Uri| dialler.clone().dial());
    Ok(AdminClient::new(
        endpoint().connect_with_connector_lazy(connector),
    ))
}

fn dialler(address: &str, server_name: &str, tls: &ClientTls) -> Result<Dialler, ConnectError> {
    let config = client_config(
        &tls.ca_pem,
        Some((&tls.cert_pem, &tls.key_pem)),
        &[&rustls::version::TLS13],
    )?;
    Dialler::new(address, server_name, Arc::new(config))
}

fn endpoint() -> Endpoint {
    // The scheme says what runs inside the connector's stream, which is encrypted already.
    Endpoint::from_static("http://admin.taskstore")
        .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
}
