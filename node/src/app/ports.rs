//! The ports of a member: bound before its disk is read, so that probes and the operator get answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::BoxFuture;
use prometheus_client::metrics::counter::Counter;
use taskstore_api::v1::admin_server::AdminServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::limits::{ADMIN_CONNECTIONS_MAX, CONNECTIONS_MAX, HEALTH_CONNECTIONS_MAX};
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
/// Advice to a client that came too early or too late.
const NOT_READY_RETRY_MS: u64 = 500;

/// The door of the client port: shut until the disk is accepted, while the member is fenced, and again from the
/// stop on.
pub struct ClientDoor<D = Service> {
    service: OnceLock<(Arc<D>, watch::Receiver<bool>)>,
    stopping: CancellationToken,
    in_flight: TaskTracker,
}

impl<D> Default for ClientDoor<D> {
    fn default() -> ClientDoor<D> {
        ClientDoor {
            service: OnceLock::new(),
            stopping: CancellationToken::new(),
            in_flight: TaskTracker::new(),
        }
    }
}

impl<D: Door> ClientDoor<D> {
    pub fn open(&self, service: Arc<D>, fenced: watch::Receiver<bool>) {
        let _ = self.service.set((service, fenced));
    }

    /// Turns away whoever comes from now on, and claims that wait; waits until the rest is answered.
    pub async fn drain(&self, patience: Duration) {
        self.stopping.cancel();
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

impl<D: Door> Door for ClientDoor<D> {
    fn call(&self, request: Request, deadline: Instant) -> BoxFuture<'_, Result<Response, Error>> {
        let token = self.in_flight.token();
        Box::pin(async move {
            let _in_flight = token;
            if self.stopping.is_cancelled() {
                return Err(not_ready("the member is stopping"));
            }
            let Some((service, fenced)) = self.service.get() else {
                return Err(not_ready("the member reads its disk"));
            };
            if *fenced.borrow() {
                return Err(not_ready("the member is fenced"));
            }
            let mut fenced = fenced.clone();
            let waits = matches!(request, Request::Claim { wait_ms, .. } if wait_ms > 0);
            tokio::select! {
                biased;
                answer = service.call(request, deadline) => answer,
                // Asked again with its claim id it gets what it was given, if it was given something.
                () = self.stopping.cancelled(), if waits => Err(not_ready("the member is stopping")),
                Ok(_) = fenced.wait_for(|is_fenced| *is_fenced), if waits => {
                    Err(not_ready("the member is fenced"))
                }
            }
        })
    }
}

fn not_ready(reason: &str) -> Error {
    Error::Unavailable {
        cause: UnavailableCause::NotReady,
        reason: reason.into(),
        retry_after_ms: NOT_READY_RETRY_MS,
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
            connections_refused: Counter::default(),
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
            connections_refused: metrics.connections_refused.clone(),
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
        let health_settings = plain(HEALTH_CONNECTIONS_MAX);
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
                server::router(calls, member.config.member.incarnation),
                client,
                serving.clone(),
            )),
        ];
        Ok((self.peer, Ports { serving }))
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::task::command::Claim;
    use crate::task::tests::{claim_of, id, name};

    const SOON: Duration = Duration::from_secs(20);

    /// Claims wait for ever; everything else waits for the gate.
    struct Slow(Semaphore);

    impl Door for Slow {
        fn call(
            &self,
            request: Request,
            _deadline: Instant,
        ) -> BoxFuture<'_, Result<Response, Error>> {
            Box::pin(async move {
                if matches!(request, Request::Claim { .. }) {
                    std::future::pending::<()>().await;
                }
                let _permit = self.0.acquire().await;
                Ok(Response::Claimed(Vec::new()))
            })
        }
    }

    fn get() -> Request {
        Request::Get {
            namespace: name("ns"),
            id: id("t"),
            with_payload: false,
        }
    }

    fn is_turned_away(answer: &Result<Response, Error>) -> bool {
        matches!(
            answer,
            Err(Error::Unavailable {
                cause: UnavailableCause::NotReady,
                ..
            })
        )
    }

    #[tokio::test]
    async fn a_stop_turns_away_who_comes_and_who_waits_and_lets_the_rest_finish() {
        let door = Arc::new(ClientDoor::<Slow>::default());
        let late = Instant::now() + SOON;
        assert!(is_turned_away(&door.call(get(), late).await), "no disk yet");
        let service = Arc::new(Slow(Semaphore::new(0)));
        door.open(service.clone(), watch::channel(false).1);
        let claim: Claim = claim_of(&["q"], "c", 1);
        let wait_ms = 60_000;
        let mut parked = door.call(Request::Claim { claim, wait_ms }, late);
        let mut running = door.call(get(), late);
        assert!(futures::poll!(&mut parked).is_pending());
        assert!(futures::poll!(&mut running).is_pending());
        let drained = tokio::spawn({
            let door = door.clone();
            async move { door.drain(SOON).await }
        });
        assert!(is_turned_away(&parked.await));
        assert!(is_turned_away(&door.call(get(), late).await));
        assert!(!drained.is_finished(), "one request is still running");
        service.0.add_permits(1);
        assert!(running.await.is_ok());
        tokio::time::timeout(SOON / 2, drained)
            .await
            .expect("nothing is in flight")
            .expect("drained");
    }

    #[tokio::test]
    async fn a_fence_turns_away_who_comes_and_who_waits_until_it_is_taken_back() {
        let door = ClientDoor::<Slow>::default();
        let late = Instant::now() + SOON;
        let (fence, fenced) = watch::channel(false);
        door.open(Arc::new(Slow(Semaphore::new(9))), fenced);
        let claim: Claim = claim_of(&["q"], "c", 1);
        let wait_ms = 60_000;
        let mut parked = door.call(Request::Claim { claim, wait_ms }, late);
        assert!(futures::poll!(&mut parked).is_pending());
        fence.send_replace(true);
        assert!(is_turned_away(&parked.await));
        assert!(is_turned_away(&door.call(get(), late).await));
        fence.send_replace(false);
        assert!(door.call(get(), late).await.is_ok());
    }
}
