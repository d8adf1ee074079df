//! Keys and certificates: the cluster's own authority, the members' synthetic names, the client port.
//!
//! Peers and admin trust this authority only; a user's certificate cannot carry our names, so the spec
//! chooses the client port alone. Minting needs randomness and the time, and nothing else in here does.

use std::net::{Ipv4Addr, Ipv6Addr};

use crds::MemberId;
use crds::names;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use x509_parser::extensions::GeneralName;

/// The authority outlives what it signs many times; its rotation comes with overlapping bundles.
const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(24 * 365 * 10);
/// A leaf of a member, the client port or the operator.
pub const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(24 * 365);
/// A leaf is issued again when less than this is left.
pub const LEAF_RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(24 * 120);
/// Clocks of nodes differ: a certificate is valid a little before it was made.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(10);

/// A certificate and its key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for Pair {
    /// Keys never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("certificate not made")]
    Make(#[from] rcgen::Error),
    #[error("certificate not readable: {what}")]
    Read { what: String },
}

pub fn authority(cluster_id: &str, now: Timestamp) -> Result<Pair, CertificateError> {
    let mut params = params(Vec::new(), now, AUTHORITY_LIFE)?;
    params
        .distinguished_name
        .push(DnType::CommonName, format!("taskstore {cluster_id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Pair {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    })
}

/// A member proves itself by one synthetic name, as a server and as a client.
pub fn member(
    authority: &Pair,
    cluster_id: &str,
    member: MemberId,
    now: Timestamp,
) -> Result<Pair, CertificateError> {
    leaf(
        authority,
        vec![names::member_tls_name(cluster_id, member)],
        now,
    )
}

/// What the operator shows on the admin port. It is kept in memory only.
pub fn operator(
    authority: &Pair,
    cluster_id: &str,
    now: Timestamp,
) -> Result<Pair, CertificateError> {
    leaf(authority, vec![names::operator_tls_name(cluster_id)], now)
}

/// The names clients use: the Service in all its spellings, each member behind it, and the member that an app
/// runs beside.
pub fn client_names(cluster: &str, namespace: &str) -> Vec<String> {
    let service = names::client_service(cluster);
    let peers = names::peer_service(cluster);
    vec![
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
        format!("{service}.{namespace}"),
        service,
        format!("*.{peers}.{namespace}.svc"),
        format!("*.{peers}.{namespace}.svc.cluster.local"),
        "localhost".into(),
        "127.0.0.1".into(),
        "::1".into(),
    ]
}

/// Whether a certificate holds every name that an app beside a member may call it by.
pub fn is_local(certificate_pem: &[u8]) -> bool {
    let holds = || {
        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate_pem).ok()?;
        let certificate = pem.parse_x509().ok()?;
        let names = certificate.subject_alternative_name().ok()??.value;
        let has = |wanted: GeneralName<'_>| names.general_names.contains(&wanted);
        Some(
            has(GeneralName::DNSName("localhost"))
                && has(GeneralName::IPAddress(&Ipv4Addr::LOCALHOST.octets()))
                && has(GeneralName::IPAddress(&Ipv6Addr::LOCALHOST.octets())),
        )
    };
    holds().unwrap_or(false)
}

pub fn client(
    authority: &Pair,
    cluster: &str,
    namespace: &str,
    now: Timestamp,
) -> Result<Pair, CertificateError> {
    leaf(authority, client_names(cluster, namespace), now)
}

/// When a certificate runs out.
pub fn expires(certificate_pem: &[u8]) -> Result<Timestamp, CertificateError> {
    let unreadable = |what: &dyn std::fmt::Display| CertificateError::Read {
        what: what.to_string(),
    };
    let (_, pem) =
        x509_parser::pem::parse_x509_pem(certificate_pem).map_err(|error| unreadable(&error))?;
    let certificate = pem.parse_x509().map_err(|error| unreadable(&error))?;
    Timestamp::from_second(certificate.validity().not_after.timestamp())
        .map_err(|error| unreadable(&error))
}

fn leaf(authority: &Pair, names: Vec<String>, now: Timestamp) -> Result<Pair, CertificateError> {
    let key = KeyPair::from_pem(&authority.key_pem)?;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate_pem, key)?;
    let mut params = params(names, now, LEAF_LIFE)?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Pair {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    })
}

fn params(
    names: Vec<String>,
    now: Timestamp,
    life: SignedDuration,
) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::new(names)?;
    let at = |moment: Timestamp| {
        let seconds = u64::try_from(moment.as_second()).unwrap_or(0);
        rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(seconds)
    };
    params.not_before = at(now.checked_sub(CLOCK_SKEW).unwrap_or(now));
    params.not_after = at(now.checked_add(life).unwrap_or(now));
    params.distinguished_name = rcgen::DistinguishedName::new();
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_certificate_carries_its_synthetic_name_and_runs_out_in_time() {
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        let ca = authority("uid", now).unwrap();
        let pair = member(&ca, "uid", MemberId::new(1, 3), now).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(pair.certificate_pem.as_bytes()).unwrap();
        let parsed = pem.parse_x509().unwrap();
        let names = format!(
            "{:?}",
            parsed
                .subject_alternative_name()
                .unwrap()
                .unwrap()
                .value
                .general_names
        );
        assert!(names.contains("m3.i1.uid.taskstore"), "{names}");
        assert_eq!(
            expires(pair.certificate_pem.as_bytes()).unwrap(),
            now + LEAF_LIFE
        );
    }

    #[test]
    fn an_app_may_call_its_member_by_name_or_by_address() {
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        let ca = authority("uid", now).unwrap();
        let pair = client(&ca, "demo", "shop", now).unwrap();
        assert!(is_local(pair.certificate_pem.as_bytes()));
        let names = vec!["demo.shop.svc".into(), "localhost".into()];
        let earlier = leaf(&ca, names, now).unwrap();
        assert!(!is_local(earlier.certificate_pem.as_bytes()));
        assert!(!is_local(b"no certificate"));
    }

    #[test]
    fn a_key_never_shows_in_debug_output() {
        let ca = authority(
            "uid",
            Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1000),
        )
        .unwrap();
        assert_eq!(format!("{ca:?}"), "Pair");
    }
}
