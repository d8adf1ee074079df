//! Mints a CA and the certificates of members and operators: for `taskstore dev`, the bench and tests.
//! On Kubernetes the operator does it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use super::transport::tls::{self, CA_FILE, CERTIFICATE_FILE, KEY_FILE};

/// The CA of one cluster.
pub struct Authority {
    cluster_id: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key and the CA that signed it, all as PEM.
#[derive(Clone)]
pub struct Issued {
    pub ca_pem: String,
    pub certificate_pem: String,
    pub key_pem: String,
}

impl Authority {
    pub fn new(cluster_id: &str) -> Result<Authority, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params
            .distinguished_name
            .push(DnType::CommonName, format!("taskstore CA of {cluster_id}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Authority {
            cluster_id: cluster_id.to_owned(),
            issuer,
        })
    }

    pub fn ca_pem(&self) -> String {
        self.issuer.pem()
    }

    pub fn member(&self, member_id: u64) -> Result<Issued, rcgen::Error> {
        self.issue(vec![tls::member_name(&self.cluster_id, member_id)])
    }

    pub fn operator(&self) -> Result<Issued, rcgen::Error> {
        self.issue(vec![tls::operator_name(&self.cluster_id)])
    }

    /// A certificate for any names: a client port's host names, or a wrong name in a test.
    pub fn issue(&self, names: Vec<String>) -> Result<Issued, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params
            .distinguished_name
            .push(DnType::CommonName, "taskstore");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            ca_pem: self.ca_pem(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}

impl Issued {
    /// Writes `ca.crt`, `peer.crt` and `peer.key`.
    pub fn write_to(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        fs::write(dir.join(CA_FILE), &self.ca_pem)?;
        self.write_pair(dir, CERTIFICATE_FILE, KEY_FILE)
    }

    /// Writes the certificate and its key under these names. The key is readable by the owner only.
    pub fn write_pair(&self, dir: &Path, certificate: &str, key: &str) -> io::Result<()> {
        fs::write(dir.join(certificate), &self.certificate_pem)?;
        let mut key = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(dir.join(key))?;
        key.write_all(self.key_pem.as_bytes())
    }
}
