//! The admin connection over real TLS on loopback: the synthetic name decides, not the address.

use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use taskstore_api::tls::{ClientTls, ConnectError};
use tokio::net::TcpListener;

const NAME: &str = "m1.i1.6f1c2b34-0000-4000-8000-000000000001.taskstore";

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Ca {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    fn leaf(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (
            params.signed_by(&key, &self.issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    }

    fn client(&self) -> ClientTls {
        let (cert_pem, key_pem) = self.leaf("operator.taskstore");
        ClientTls {
            ca_pem: self.pem.clone(),
            cert_pem,
            key_pem,
        }
    }
}

/// Answers every call with 404, over mutual TLS as `NAME`.
async fn serve(ca: &Ca) -> String {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .build()
            .unwrap();
    let (cert, key) = ca.leaf(NAME);
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(socket).await else {
                    return;
                };
                let service =
                    hyper_util::service::TowerToHyperService::new(tower::service_fn(|_| async {
                        let mut response =
                            tonic::codegen::http::Response::new(tonic::body::Body::empty());
                        *response.status_mut() = tonic::codegen::http::StatusCode::NOT_FOUND;
                        Ok::<_, std::convert::Infallible>(response)
                    }));
                let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_call_reaches_the_member_under_its_synthetic_name() {
    let ca = Ca::new();
    let address = serve(&ca).await;
    let mut client = taskstore_api::admin::connect(&address, NAME, ca.client())
        .await
        .unwrap();
    let answer = client
        .snapshot(taskstore_api::v1::SnapshotRequest {})
        .await
        .unwrap_err();
    assert_eq!(answer.code(), tonic::Code::Unimplemented, "{answer:?}");
}

#[tokio::test]
async fn another_member_under_the_same_address_is_refused() {
    let ca = Ca::new();
    let address = serve(&ca).await;
    let other = NAME.replace("m1", "m2");
    let error = taskstore_api::admin::connect(&address, &other, ca.client())
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Handshake { .. }), "{error}");
}

#[tokio::test]
async fn a_foreign_ca_and_a_closed_port_and_bad_settings_are_told_apart() {
    let ca = Ca::new();
    let address = serve(&ca).await;
    let foreign = ClientTls {
        ca_pem: Ca::new().pem,
        ..ca.client()
    };
    let error = taskstore_api::admin::connect(&address, NAME, foreign)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Handshake { .. }), "{error}");

    // Nothing listens on the first port, and no connection is ever given it.
    let error = taskstore_api::admin::connect("127.0.0.1:1", NAME, ca.client())
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");

    let empty = ClientTls {
        ca_pem: String::new(),
        ..ca.client()
    };
    let error = taskstore_api::admin::connect(&address, NAME, empty)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Settings(_)), "{error}");
}

#[tokio::test]
async fn a_stream_that_is_open_already_is_used_once() {
    let ca = Ca::new();
    let address = serve(&ca).await;
    let forwarded = async || tokio::net::TcpStream::connect(&address).await.unwrap();
    let mut client =
        taskstore_api::admin::connect_over(forwarded().await, "pod", NAME, ca.client())
            .await
            .unwrap();
    let answer = client
        .snapshot(taskstore_api::v1::SnapshotRequest {})
        .await
        .unwrap_err();
    assert_eq!(answer.code(), tonic::Code::Unimplemented, "{answer:?}");

    let other = NAME.replace("m1", "m2");
    let error = taskstore_api::admin::connect_over(forwarded().await, "pod", &other, ca.client())
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Handshake { .. }), "{error}");
}
