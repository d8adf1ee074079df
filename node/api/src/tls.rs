//! Turns PEM texts into rustls settings, and dials one address under a name of its own.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long one dial may take, TLS handshake included.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Mutual TLS: whom we trust, and who we are. PEM texts as they stand in a Secret.
#[derive(Clone)]
pub struct ClientTls {
    pub ca_pem: String,
    pub cert_pem: String,
    pub key_pem: String,
}

/// Shows no key.
impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientTls")
    }
}

/// Why there is no connection. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A certificate, key or name of ours cannot be used.
    #[error("TLS settings: {0}")]
    Settings(String),
    /// The other side refused us, or its certificate does not carry the name.
    #[error("TLS with {address} as {server_name}: {reason}")]
    Handshake {
        address: String,
        server_name: String,
        reason: String,
    },
    #[error("{address} is unreachable: {reason}")]
    Unreachable { address: String, reason: String },
    #[error("{address} did not answer within {} ms", DIAL_TIMEOUT.as_millis())]
    TimedOut { address: String },
}

fn settings(what: &str) -> impl Fn(rustls::pki_types::pem::Error) -> ConnectError {
    let what = what.to_owned();
    move |error| ConnectError::Settings(format!("{what}: {error}"))
}

/// TLS settings for a client that offers HTTP/2 and, when `identity` is given, its own certificate.
pub fn client_config(
    ca_pem: &str,
    identity: Option<(&str, &str)>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ClientConfig, ConnectError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots
            .add(certificate.map_err(settings("CA bundle"))?)
            .map_err(|error| ConnectError::Settings(format!("CA bundle: {error}")))?;
    }
    if roots.is_empty() {
        return Err(ConnectError::Settings(
            "the CA bundle holds no certificate".to_owned(),
        ));
    }
    let unusable = |error: rustls::Error| ConnectError::Settings(error.to_string());
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .map_err(unusable)?
            .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((cert_pem, key_pem)) => {
            let chain = CertificateDer::pem_slice_iter(cert_pem.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(settings("certificate"))?;
            let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(settings("key"))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(unusable)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// One address to dial and the name its certificate must carry; the two need not agree.
#[derive(Clone)]
pub(crate) struct Dialler {
    pub address: String,
    pub server_name: ServerName<'static>,
    pub config: Arc<ClientConfig>,
}

impl Dialler {
    pub fn new(
        address: &str,
        server_name: &str,
        config: Arc<ClientConfig>,
    ) -> Result<Dialler, ConnectError> {
        let name = ServerName::try_from(server_name.to_owned()).map_err(|error| {
            ConnectError::Settings(format!("server name {server_name:?}: {error}"))
        })?;
        Ok(Dialler {
            address: address.to_owned(),
            server_name: name,
            config,
        })
    }

    pub async fn dial(self) -> Result<TokioIo<TlsStream<TcpStream>>, ConnectError> {
        let address = self.address.clone();
        tokio::time::timeout(DIAL_TIMEOUT, self.dial_untimed())
            .await
            .unwrap_or(Err(ConnectError::TimedOut { address }))
    }

    async fn dial_untimed(self) -> Result<TokioIo<TlsStream<TcpStream>>, ConnectError> {
        let socket = tcp(&self.address).await?;
        self.shake_hands(socket).await
    }

    /// Over a stream that leads to the address already.
    pub async fn over<S>(self, stream: S) -> Result<TokioIo<TlsStream<S>>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let address = self.address.clone();
        tokio::time::timeout(DIAL_TIMEOUT, self.shake_hands(stream))
            .await
            .unwrap_or(Err(ConnectError::TimedOut { address }))
    }

    async fn shake_hands<S>(self, stream: S) -> Result<TokioIo<TlsStream<S>>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = TlsConnector::from(self.config)
            .connect(self.server_name.clone(), stream)
            .await
            .map_err(|error| ConnectError::Handshake {
                address: self.address,
                server_name: self.server_name.to_str().into_owned(),
                reason: error.to_string(),
            })?;
        Ok(TokioIo::new(stream))
    }
}

pub(crate) async fn tcp(address: &str) -> Result<TcpStream, ConnectError> {
    let unreachable = |error: std::io::Error| ConnectError::Unreachable {
        address: address.to_owned(),
        reason: error.to_string(),
    };
    let socket = TcpStream::connect(address).await.map_err(unreachable)?;
    socket.set_nodelay(true).map_err(unreachable)?;
    Ok(socket)
}
