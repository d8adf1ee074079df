//! The ports of a member: bound before its disk is read, so that probes and the operator get answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::BoxFuture;
use taskstore_api::v1::admin_server::AdminServer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::limits::{ADMIN_CONNECTIONS_MAX, CONNECTIONS_MAX};
use crate::member::Member;
use crate::metrics::{Gauge, Metrics};
use crate::server::admin::AdminService;
use crate::server::calls::Calls;
use crate::server::client_tls::ClientTls;
use crate::server::health::{self, Health};
use crate::server::listen::{self, Security, Settings};
use crate::server::{self, admin_tls};
use crate::service::request::{Error, Request, Response, UnavailableCause};
use crate::service::{Door, Service};

/// Connections in flight get this long once serving has ended; requests were drained before.
const GRACE: Duration = Duration::from_secs(1);
/// Advice to a client that came too early.
const NOT_READY_RETRY_MS: u64 = 500;

/// The door of the client port: shut until the disk is accepted, drained at the stop.
#[derive(Default)]
pub struct ClientDoor {
    service: OnceLock<Arc<Service>>,
    in_flight: TaskTracker,
}

impl ClientDoor {
    pub fn open(&self, service: Arc<Service>) {
        let _ = self.service.set(service);
    }

    /// Waits until the requests that are in flight now are answered.
    pub async fn drain(&self, patience: Duration) {
        self.in_flight.close();
        if tokio::time::timeout(patience, self.in_flight.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                requests = self.in_flight.len(),
                "requests in flight did not finish in time"
            );
        }
    }
}

impl Door for ClientDoor {
    fn call(&self, request: Request, deadline: Instant) -> BoxFuture<'_, Result<Response, Error>> {
        let token = self.in_flight.token();
        Box::pin(async move {
            let _in_flight = token;
            match self.service.get() {
                Some(service) => service.call(request, deadline).await,
                None => Err(Error::Unavailable {
                    cause: UnavailableCause::NotReady,
                    reason: "the member reads its disk".into(),
                    retry_after_ms: NOT_READY_RETRY_MS,
                }),
            }
        })
    }
}

/// Bound sockets of the four ports.
pub struct Listeners {
    client: TcpListener,
    admin: TcpListener,
    peer: TcpListener,
    health: TcpListener,
}

/// What serves them.
pub struct Ports {
    serving: Vec<JoinHandle<()>>,
}

impl Ports {
    pub async fn finish(self) {
        for port in self.serving {
            let _ = port.await;
        }
    }
}

impl Listeners {
    pub async fn bind(config: &Config) -> anyhow::Result<Listeners> {
        let bind = |ip: IpAddr, port: u16, name: &'static str| {
            let address = SocketAddr::new(ip, port);
            async move {
                TcpListener::bind(address)
                    .await
                    .with_context(|| format!("{name} port {address}"))
            }
        };
        Ok(Listeners {
            client: bind(config.listen, config.ports.client, "client").await?,
            admin: bind(config.internal, config.ports.admin, "admin").await?,
            peer: bind(config.internal, config.ports.peer, "peer").await?,
            health: bind(config.listen, config.ports.health, "health").await?,
        })
    }

    /// Serves all but the peer port, which opens with Raft.
    pub fn serve(
        self,
        member: &Arc<Member>,
        door: &Arc<ClientDoor>,
        client_tls: Option<Arc<ClientTls>>,
        metrics: &Arc<Metrics>,
        serving: &CancellationToken,
    ) -> anyhow::Result<(TcpListener, Ports)> {
        let plain = |connections_max| Settings {
            security: Security::Plain,
            connections_max,
            connections: Gauge::default(),
            connections_refused: metrics.connections_refused.clone(),
            grace: GRACE,
        };
        let refreshed = member.clone();
        let readiness = member.watch_readiness();
        let health = Health {
            readiness,
            metrics: metrics.clone(),
            refresh: Arc::new(move |metrics: &Metrics| refreshed.set_gauges(metrics)),
        };
        let admin = AdminServer::new(AdminService {
            member: member.clone(),
        });
        let admin_router = tonic::service::Routes::new(admin).into_axum_router();
        let client = Settings {
            security: match client_tls {
                Some(tls) => Security::Tls(Arc::new(move || tls.current())),
                None => Security::Plain,
            },
            connections: metrics.gauges.connections.clone(),
            ..plain(CONNECTIONS_MAX)
        };
        let of_operator = member.clone();
        let cluster_id = member.config.member.cluster_id.clone();
        let in_use = admin_tls::server_config(&member.tls.current(), &cluster_id)
            .map_err(anyhow::Error::msg)?;
        let admin_tls = Security::Tls(Arc::new(move || {
            admin_tls::server_config(&of_operator.tls.current(), &cluster_id).unwrap_or_else(
                |error| {
                    tracing::warn!(
                        error,
                        "the renewed certificates do not serve the admin port"
                    );
                    in_use.clone()
                },
            )
        }));
        let admin = Settings {
            security: admin_tls,
            ..plain(ADMIN_CONNECTIONS_MAX)
        };
        let calls = Calls::new(door.clone(), metrics.clone());
        let health_settings = plain(ADMIN_CONNECTIONS_MAX);
        let serving = vec![
            tokio::spawn(listen::serve(
                self.health,
                health::router(health),
                health_settings,
                serving.clone(),
            )),
            tokio::spawn(listen::serve(
                self.admin,
                admin_router,
                admin,
                serving.clone(),
            )),
            tokio::spawn(listen::serve(
                self.client,
                server::router(calls),
                client,
                serving.clone(),
            )),
        ];
        Ok((self.peer, Ports { serving }))
    }
}
