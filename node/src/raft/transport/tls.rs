//! Mutual TLS 1.3 with the cluster's own CA, and the synthetic names its certificates carry.
//!
//! A name is bound to the member, never to an address: `m<n>.i<incarnation>.<cluster-id>.taskstore`.
//! So a certificate of another cluster or of an old incarnation fits no name that anyone asks for.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

pub const CA_FILE: &str = "ca.crt";
pub const CERTIFICATE_FILE: &str = "peer.crt";
pub const KEY_FILE: &str = "peer.key";

/// The name in the certificate of a member.
pub fn member_name(cluster_id: &str, member_id: u64) -> String {
    format!(
        "m{}.i{}.{cluster_id}.taskstore",
        member_id & u64::from(u32::MAX),
        member_id >> 32
    )
}

/// The name in the certificate of a cluster's operator.
pub fn operator_name(cluster_id: &str) -> String {
    format!("operator.{cluster_id}.taskstore")
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{file}: {reason}")]
    File { file: &'static str, reason: String },
    #[error("certificate and key are not accepted: {0}")]
    Refused(String),
    #[error("the certificate is not valid for {name}: {reason}")]
    WrongName { name: String, reason: String },
}

/// One loaded set of CA bundle, certificate and key.
pub struct TlsMaterial {
    /// Accepts whoever holds a certificate of the bundle; the name is checked by `verify_name`.
    pub server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
    /// SHA-256 of the leaf, in hex.
    pub certificate_sha256: String,
    /// SHA-256 of each CA certificate of the bundle, in hex.
    pub bundle_sha256: Vec<String>,
    certificates: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    files: [Vec<u8>; 3],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    Unchanged,
    Changed,
}

/// The set in use. A reload swaps it whole; open connections keep theirs.
pub struct TlsStore {
    current: RwLock<Arc<TlsMaterial>>,
}

impl TlsStore {
    pub fn load(dir: &Path) -> Result<TlsStore, TlsError> {
        Ok(TlsStore {
            current: RwLock::new(Arc::new(TlsMaterial::read(dir)?)),
        })
    }

    pub fn current(&self) -> Arc<TlsMaterial> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again. A set that does not fit together (written by half, another CA) is an error
    /// and the one in use stays.
    pub fn reload(&self, dir: &Path) -> Result<Reloaded, TlsError> {
        let files = read_files(dir)?;
        if files == self.current().files {
            return Ok(Reloaded::Unchanged);
        }
        let fresh = Arc::new(TlsMaterial::from_files(files)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(Reloaded::Changed)
    }
}

fn read_files(dir: &Path) -> Result<[Vec<u8>; 3], TlsError> {
    let read = |file: &'static str| {
        std::fs::read(dir.join(file)).map_err(|e| TlsError::File {
            file,
            reason: e.to_string(),
        })
    };
    Ok([read(CA_FILE)?, read(CERTIFICATE_FILE)?, read(KEY_FILE)?])
}

fn certificates(file: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| TlsError::File {
            file,
            reason: e.to_string(),
        })?;
    if certificates.is_empty() {
        return Err(TlsError::File {
            file,
            reason: "holds no certificate".into(),
        });
    }
    Ok(certificates)
}

impl TlsMaterial {
    pub fn read(dir: &Path) -> Result<TlsMaterial, TlsError> {
        TlsMaterial::from_files(read_files(dir)?)
    }

    fn from_files(files: [Vec<u8>; 3]) -> Result<TlsMaterial, TlsError> {
        let refused = |e: &dyn std::fmt::Display| TlsError::Refused(e.to_string());
        let [ca_pem, certificate_pem, key_pem] = &files;
        let bundle = certificates(CA_FILE, ca_pem)?;
        let chain = certificates(CERTIFICATE_FILE, certificate_pem)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|e| TlsError::File {
            file: KEY_FILE,
            reason: e.to_string(),
        })?;

        let mut roots = RootCertStore::empty();
        for ca in &bundle {
            roots.add(ca.clone()).map_err(|e| TlsError::File {
                file: CA_FILE,
                reason: e.to_string(),
            })?;
        }
        let roots = Arc::new(roots);

        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|e| refused(&e))?;
        verifier
            .verify_client_cert(&chain[0], &chain[1..], rustls::pki_types::UnixTime::now())
            .map_err(|e| {
                TlsError::Refused(format!(
                    "the bundle does not vouch for the certificate: {e}"
                ))
            })?;

        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| refused(&e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|e| refused(&e))?;
        // A resumed session would outlive the CA that vouched for it.
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| refused(&e))?
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(chain.clone(), key)
            .map_err(|e| refused(&e))?;
        client.resumption = Resumption::disabled();

        Ok(TlsMaterial {
            server: Arc::new(server),
            client: Arc::new(client),
            certificate_sha256: sha256_hex(&chain[0]),
            bundle_sha256: bundle.iter().map(|ca| sha256_hex(ca)).collect(),
            certificates: chain,
            roots,
            files,
        })
    }

    /// The leaf first.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// The key of the leaf, for listeners with rules of their own.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(&self.files[2])
            .expect("it was parsed when the set was loaded")
    }

    /// The CA certificates as a root store, for listeners with rules of their own.
    pub fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }
}

/// Checks that a peer's leaf is valid for exactly this name. The chain was checked by the handshake.
pub fn verify_name(presented: Option<&[CertificateDer<'_>]>, name: &str) -> Result<(), TlsError> {
    let wrong = |reason: String| TlsError::WrongName {
        name: name.to_owned(),
        reason,
    };
    let leaf = presented
        .and_then(|chain| chain.first())
        .ok_or_else(|| wrong("none was presented".into()))?;
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(|e| wrong(e.to_string()))?;
    leaf.verify_is_valid_for_subject_name(&server_name(name)?)
        .map_err(|e| wrong(e.to_string()))
}

pub fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|e| TlsError::WrongName {
        name: name.to_owned(),
        reason: e.to_string(),
    })
}

/// The hash that the TLS library already holds, so that SHA-256 needs no crate of its own.
pub fn sha256_hex(bytes: &[u8]) -> String {
    let suite = ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let hash = suite
        .tls13()
        .expect("a TLS 1.3 suite")
        .common
        .hash_provider
        .hash(bytes);
    hash.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}
