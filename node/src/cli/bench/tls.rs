//! A throw-away CA and the files that each member reads.

use std::path::Path;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use taskstore_api::tls::ClientTls;

/// The name in the certificate of a member.
pub fn member_name(cluster_id: &str, member_id: u64) -> String {
    format!(
        "m{}.i{}.{cluster_id}.taskstore",
        member_id & u64::from(u32::MAX),
        member_id >> 32
    )
}

fn operator_name(cluster_id: &str) -> String {
    format!("operator.{cluster_id}.taskstore")
}

pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> anyhow::Result<Authority> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let pem = params.self_signed(&key)?.pem();
        Ok(Authority {
            pem,
            issuer: Issuer::new(params, key),
        })
    }

    fn issue(&self, names: &[&str]) -> anyhow::Result<(String, String)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
        )?;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        Ok((
            params.signed_by(&key, &self.issuer)?.pem(),
            key.serialize_pem(),
        ))
    }

    /// Who calls the admin port.
    pub fn operator(&self, cluster_id: &str) -> anyhow::Result<ClientTls> {
        let (cert_pem, key_pem) = self.issue(&[&operator_name(cluster_id)])?;
        Ok(ClientTls {
            ca_pem: self.pem.clone(),
            cert_pem,
            key_pem,
        })
    }

    /// Writes what `--tls-dir` holds: the peers' side under `name`, the clients' side for this machine.
    pub fn write_member(&self, dir: &Path, name: &str) -> anyhow::Result<()> {
        std::fs::create_dir_all(dir)?;
        let (peer_cert, peer_key) = self.issue(&[name])?;
        let (client_cert, client_key) = self.issue(&["localhost", "127.0.0.1"])?;
        for (file, text) in [
            ("ca.crt", &self.pem),
            ("peer.crt", &peer_cert),
            ("peer.key", &peer_key),
            ("client.crt", &client_cert),
            ("client.key", &client_key),
        ] {
            std::fs::write(dir.join(file), text).with_context(|| format!("cannot write {file}"))?;
        }
        Ok(())
    }
}
