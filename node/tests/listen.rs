//! The client port on real sockets: TLS and its renewal, both protocols on one port, bounds, a soft end.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use taskstore::member::Readiness;
use taskstore::metrics::Metrics;
use taskstore::server::calls::Calls;
use taskstore::server::health::Health;
use taskstore::server::listen::{Security, Settings, client_port_tls, serve};
use taskstore::service::Door;
use taskstore::service::request::{Error, Request, Response};
use taskstore::task::command::{Command, Created, Outcome};
use taskstore_api::{Endpoints, TaskStoreClient, Trust, v1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Tells of each create, then answers once it is let through.
struct Gate {
    arrived: mpsc::UnboundedSender<()>,
    through: Semaphore,
}

impl Door for Gate {
    fn call(&self, request: Request, _: Instant) -> BoxFuture<'_, Result<Response, Error>> {
        Box::pin(async move {
            let Request::Write(Command::Create(create)) = request else {
                return Err(Error::DiskHighWater);
            };
            let _ = self.arrived.send(());
            self.through.acquire().await.unwrap().forget();
            let created = Created {
                id: create.tasks[0].id.clone(),
                revision: 1,
                existed: false,
            };
            Ok(Response::Outcome(Outcome::Created(vec![Ok(created)])))
        })
    }
}

struct Port {
    address: String,
    gate: Arc<Gate>,
    arrived: mpsc::UnboundedReceiver<()>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

async fn port(security: Security, connections_max: usize) -> Port {
    let (sender, arrived) = mpsc::unbounded_channel();
    let gate = Arc::new(Gate {
        arrived: sender,
        through: Semaphore::new(0),
    });
    let metrics = Arc::new(Metrics::default());
    let router = taskstore::server::router(Calls::new(gate.clone(), metrics.clone()), 1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    let settings = Settings {
        security,
        connections_max,
        connections: metrics.gauges.connections.clone(),
        connections_refused: metrics.connections_refused.clone(),
        grace: Duration::from_secs(10),
    };
    let served = tokio::spawn(serve(listener, router, settings, stop.clone()));
    Port {
        address,
        gate,
        arrived,
        metrics,
        stop,
        served,
    }
}

fn create() -> v1::CreateRequest {
    v1::CreateRequest {
        namespace: "n".into(),
        queue: "q".into(),
        task: Some(v1::NewTask::default()),
    }
}

fn client(address: &str, trust: Trust) -> TaskStoreClient {
    TaskStoreClient::connect(&Endpoints {
        addresses: vec![address.to_owned()],
        trust,
    })
    .unwrap()
}

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ca {
            pem: params.self_signed(&key).unwrap().pem(),
            issuer: Issuer::new(params, key),
        }
    }

    fn server(&self) -> Arc<rustls::ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Arc::new(client_port_tls(certificate.as_bytes(), key.serialize_pem().as_bytes()).unwrap())
    }

    fn trust(&self) -> Trust {
        Trust::Tls {
            ca_pem: self.pem.clone(),
            server_name: None,
        }
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_at_the_next_handshake_and_garbage_changes_nothing() {
    let (old, new) = (Ca::new(), Ca::new());
    let current = Arc::new(Mutex::new(old.server()));
    let provider = current.clone();
    let port = port(
        Security::Tls(Arc::new(move || provider.lock().unwrap().clone())),
        16,
    )
    .await;
    port.gate.through.add_permits(2);
    client(&port.address, old.trust())
        .create(create())
        .await
        .unwrap();

    let mut garbage = TcpStream::connect(&port.address).await.unwrap();
    garbage
        .write_all(&[0x16, 0x03, 0xff, 0xff, 0xff, 0, 1, 2, 3])
        .await
        .unwrap();
    let _ = garbage.read_to_end(&mut Vec::new()).await;

    *current.lock().unwrap() = new.server();
    client(&port.address, new.trust())
        .create(create())
        .await
        .unwrap();
    let short = client(&port.address, old.trust()).with_deadline(Duration::from_millis(200));
    let error = short.create(create()).await.unwrap_err();
    assert!(
        error.message.contains("invalid peer certificate"),
        "{error}"
    );
    assert!(port.metrics.connections_refused.get() >= 1);
    port.stop.cancel();
    port.served.await.unwrap();
}

/// One request over HTTP/1.1, the connection closed after it.
async fn http1(address: &str, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

const POST: &str = "POST /v1/namespaces/n/queues/q/tasks HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                    content-length: 12\r\n\r\n{\"id\": \"a1\"}";

#[tokio::test]
async fn both_protocols_share_the_port_and_requests_in_flight_finish_at_the_end() {
    let mut port = port(Security::Plain, 16).await;
    let grpc = client(&port.address, Trust::Plain);
    let grpc = tokio::spawn(async move { grpc.create(create()).await });
    let address = port.address.clone();
    let http = tokio::spawn(async move { http1(&address, POST).await });
    for _ in 0..2 {
        port.arrived.recv().await.unwrap();
    }
    port.stop.cancel();
    // The port is closed to newcomers before those inside are through.
    while TcpStream::connect(&port.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!port.served.is_finished());
    port.gate.through.add_permits(2);
    grpc.await.unwrap().unwrap();
    let http = http.await.unwrap();
    assert!(http.starts_with("HTTP/1.1 201"), "{http}");
    assert!(http.contains(r#""id":"a1""#), "{http}");
    port.served.await.unwrap();
    assert_eq!(port.metrics.gauges.connections.get(), 0);
}

#[tokio::test]
async fn connections_over_the_bound_wait_until_one_ends() {
    let mut port = port(Security::Plain, 1).await;
    let first = client(&port.address, Trust::Plain);
    let first = tokio::spawn(async move { first.create(create()).await });
    port.arrived.recv().await.unwrap();
    let address = port.address.clone();
    let second = tokio::spawn(async move { http1(&address, POST).await });
    tokio::task::yield_now().await;
    assert_eq!(port.metrics.gauges.connections.get(), 1);
    port.gate.through.add_permits(2);
    first.await.unwrap().unwrap();
    assert!(second.await.unwrap().starts_with("HTTP/1.1 201"));
    port.stop.cancel();
    port.served.await.unwrap();
}

#[tokio::test]
async fn a_megabyte_passes_and_too_much_is_refused_on_the_wire() {
    let port = port(Security::Plain, 16).await;
    port.gate.through.add_permits(1);
    let mut large = create();
    large.task = Some(v1::NewTask {
        payload: vec![7; 1 << 20].into(),
        ..Default::default()
    });
    client(&port.address, Trust::Plain)
        .create(large.clone())
        .await
        .unwrap();
    large.task = Some(v1::NewTask {
        payload: vec![7; (1 << 20) + 1].into(),
        ..Default::default()
    });
    let error = client(&port.address, Trust::Plain)
        .create(large)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "TOO_LARGE");
    let head = "POST /v1/namespaces/n/queues/q/tasks HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n";
    let answer = http1(&port.address, head).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    port.stop.cancel();
    port.served.await.unwrap();
}

#[tokio::test]
async fn the_health_port_tells_why_a_member_is_not_ready() {
    let (readiness, receiver) = watch::channel(Readiness::NotReady("reads its log".to_owned()));
    let metrics = Arc::new(Metrics::default());
    let refresh = Arc::new(|metrics: &Metrics| {
        metrics.gauges.term.set(7);
    });
    let router = taskstore::server::health::router(Health {
        readiness: receiver,
        metrics: metrics.clone(),
        refresh,
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let settings = Settings {
        security: Security::Plain,
        connections_max: 4,
        connections: Default::default(),
        connections_refused: Default::default(),
        grace: Duration::ZERO,
    };
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(listener, router, settings, stop.clone()));
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(
        http1(&address, &get("/live"))
            .await
            .starts_with("HTTP/1.1 200")
    );
    let answer = http1(&address, &get("/ready")).await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("reads its log"),
        "{answer}"
    );
    readiness.send_replace(Readiness::Ready);
    assert!(
        http1(&address, &get("/ready"))
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        http1(&address, &get("/metrics"))
            .await
            .contains("taskstore_raft_term 7")
    );
    stop.cancel();
    served.await.unwrap();
}

#[tokio::test]
async fn the_command_line_creates_a_task() {
    use clap::Parser;
    use taskstore::cli::{Cli, Command as Subcommand, task};
    let port = port(Security::Plain, 16).await;
    port.gate.through.add_permits(1);
    let line = format!(
        "taskstore task create mail --id=a1 --payload=hello --endpoint={}",
        port.address
    );
    let Subcommand::Task(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
        panic!()
    };
    assert_eq!(
        task::run(args).await.unwrap(),
        std::process::ExitCode::SUCCESS
    );
    let line = format!("taskstore task get a1 --endpoint={}", port.address);
    let Subcommand::Task(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
        panic!()
    };
    assert_eq!(
        task::run(args).await.unwrap(),
        std::process::ExitCode::FAILURE
    );
    port.stop.cancel();
    port.served.await.unwrap();
}
