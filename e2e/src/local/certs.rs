//! One certificate authority per cluster, a certificate per component, and kubeconfigs from both.

use super::layout::{
    API_SERVICE, CONTROL, HOST, S3, S3_NAME, S3_NAMESPACE, WORKERS, Worker, home, kubeconfig, pki,
    s3_secret,
};
use anyhow::Result;
use base64::Engine;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Writes every key, certificate and kubeconfig of the cluster.
pub fn create() -> Result<()> {
    fs::create_dir_all(pki())?;
    fs::set_permissions(pki(), fs::Permissions::from_mode(0o700))?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params
        .distinguished_name
        .push(DnType::CommonName, "taskstore-local");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::CrlSign,
    ];
    let authority = Authority {
        pem: params.self_signed(&key)?.pem(),
        issuer: Issuer::new(params, key),
    };
    fs::write(pki().join("ca.crt"), &authority.pem)?;

    // The service account tokens' key is no certificate's.
    let tokens = KeyPair::generate()?;
    secret(&pki().join("tokens.key"), &tokens.serialize_pem())?;
    fs::write(pki().join("tokens.pub"), tokens.public_key_pem())?;

    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        CONTROL,
        API_SERVICE,
    ];
    authority.pair("apiserver", "kube-apiserver", None, &names)?;
    authority.pair(
        "apiserver-to-kubelet",
        "kube-apiserver-kubelet-client",
        Some("system:masters"),
        &[],
    )?;
    authority.kubeconfig(
        &kubeconfig(),
        "taskstore-local-admin",
        Some("system:masters"),
    )?;
    for component in [
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
        "coredns",
        "local-provisioner",
    ] {
        authority.kubeconfig(
            &pki().join(format!("{component}.kubeconfig")),
            &format!("system:{component}"),
            None,
        )?;
    }
    authority.s3()?;
    for worker in &WORKERS {
        authority.worker(worker)?;
    }
    Ok(())
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn worker(&self, worker: &Worker) -> Result<()> {
        fs::create_dir_all(home(worker.name))?;
        self.pair(
            worker.name,
            worker.name,
            None,
            &[worker.name, worker.address, HOST],
        )?;
        self.kubeconfig(
            &home(worker.name).join("kubelet.kubeconfig"),
            &format!("system:node:{}", worker.name),
            Some("system:nodes"),
        )
    }

    /// Its certificate, and the secret by which it knows its users.
    fn s3(&self) -> Result<()> {
        let service = format!("{S3_NAME}.{S3_NAMESPACE}.svc");
        let whole = format!("{service}.cluster.local");
        self.pair(S3_NAME, S3_NAME, None, &[&service, &whole, S3])?;
        let chance = KeyPair::generate()?.serialize_pem();
        let drawn = blake3::hash(chance.as_bytes()).to_hex();
        secret(&s3_secret(), &drawn[..40])
    }

    fn pair(
        &self,
        file: &str,
        name: &str,
        group: Option<&str>,
        alternative: &[&str],
    ) -> Result<()> {
        let (certificate, key) = self.issue(name, group, alternative)?;
        fs::write(pki().join(format!("{file}.crt")), certificate)?;
        secret(&pki().join(format!("{file}.key")), &key)
    }

    fn issue(
        &self,
        name: &str,
        group: Option<&str>,
        alternative: &[&str],
    ) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(
            alternative
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
        )?;
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params
                .distinguished_name
                .push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        Ok((
            params.signed_by(&key, &self.issuer)?.pem(),
            key.serialize_pem(),
        ))
    }

    /// Self-contained, so that it can be copied anywhere on the machine.
    fn kubeconfig(&self, path: &Path, user: &str, group: Option<&str>) -> Result<()> {
        let (certificate, key) = self.issue(user, group, &[])?;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let text = format!(
            "apiVersion: v1
kind: Config
clusters:
- name: taskstore-local
  cluster:
    server: https://{CONTROL}:6443
    certificate-authority-data: {authority}
users:
- name: {user}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: taskstore-local
  context: {{ cluster: taskstore-local, user: \"{user}\" }}
current-context: taskstore-local
",
            authority = encode(&self.pem),
            certificate = encode(&certificate),
            key = encode(&key),
        );
        secret(path, &text)
    }
}

fn secret(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let mut file = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
