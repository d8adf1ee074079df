//! The HTTP client under S3, Google's and Azure's storage: TLS by ring, the public authorities and those
//! that the destination brings, bounded waiting.

use std::sync::Arc;
use std::time::Duration;

use object_store::ClientOptions;
use object_store::client::{ClientConfigKey, HttpClient, HttpConnector};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::error::Error;

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Silence in the middle of an answer.
const READ_PATIENCE: Duration = Duration::from_secs(30);
/// One request, with a part on its way.
const REQUEST_PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub struct Connector {
    tls: ClientConfig,
}

impl Connector {
    /// `ca_pem` is trusted beside the public authorities: an identity is often proven to one of those.
    pub fn new(ca_pem: Option<&str>) -> Result<Connector, Error> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if let Some(pem) = ca_pem {
            let refused = |reason: String| Error::invalid("ca_pem", reason);
            let own = CertificateDer::pem_slice_iter(pem.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| refused(format!("cannot be read: {error}")))?;
            if own.is_empty() {
                return Err(refused("holds no certificate".into()));
            }
            for certificate in own {
                roots
                    .add(certificate)
                    .map_err(|error| refused(format!("holds a bad certificate: {error}")))?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::invalid("ca_pem", error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Connector { tls })
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let may_be_plain = options.get_config_value(&ClientConfigKey::AllowHttp);
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .http1_only()
            .https_only(may_be_plain.as_deref() != Some("true"))
            .connect_timeout(CONNECT_PATIENCE)
            .read_timeout(READ_PATIENCE)
            .timeout(REQUEST_PATIENCE)
            .user_agent(concat!("taskstore/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|source| object_store::Error::Generic {
                store: "HTTP",
                source: Box::new(source),
            })?;
        Ok(HttpClient::new(client))
    }
}
