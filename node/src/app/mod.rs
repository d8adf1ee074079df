//! Runs one member: opens its disk, starts Raft, serves, and stops in order.
//!
//! ```text
//! health, admin and client ports open (not ready)
//!   ─▶ volume: blank? wait for format ─▶ start table ─▶ state ─▶ Raft ─▶ peer port
//!   ─▶ caught up once ─▶ ready ─▶ … SIGTERM ─▶ hand over ─▶ finish what is in flight ─▶ close the log
//! ```
//!
//! A disk that is refused keeps the process alive and talking to the operator, without Raft.

#[cfg(test)]
pub(crate) mod crashes;
pub mod disk;
mod inspect;
pub mod ports;
pub mod restore;
mod rewrite;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::disk::Opened;
use self::ports::ClientDoor;
use crate::config::Config;
use crate::jobs::{fence, high_water, reload, removal};
use crate::member::running::{Running, SILENT_FOR};
use crate::member::{Member, Phase};
use crate::metrics::Metrics;
use crate::raft::consensus::Role;
use crate::raft::transport::peers::Peers;
use crate::raft::transport::server::Forwarded;
use crate::raft::transport::tls::TlsStore;
use crate::raft::transport::{Me, Options};
use crate::raft::{engine, leader};
use crate::server::client_tls::ClientTls;
use crate::service::Service;
use crate::service::snapshots::Snapshots;
use crate::storage::types::MemberName;

/// Requests in flight at a stop may take this long.
const IN_FLIGHT_PATIENCE: Duration = Duration::from_secs(4);

/// Runs a member until `stop`, or until its disk ends it.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    config.validate().map_err(|reason| anyhow!(reason))?;
    let tls = Arc::new(TlsStore::load(&config.tls_dir).context("certificates")?);
    let metrics = Arc::new(Metrics::default());
    let client_tls = match config.client_tls {
        true => Some(
            ClientTls::load(&config.tls_dir).map_err(|reason| anyhow!("certificates: {reason}"))?,
        ),
        false => None,
    };
    let client_tls = client_tls.map(Arc::new);
    let member = Arc::new(Member::new(config, tls.clone()));
    let listeners = ports::Listeners::bind(&member.config).await?;
    let client_door = Arc::new(ClientDoor::default());
    let serving = CancellationToken::new();
    let (peer_listener, ports) = listeners.serve(
        &member,
        &client_door,
        client_tls.clone(),
        &metrics,
        &serving,
    )?;
    tokio::spawn(reload::run(member.clone(), client_tls, serving.clone()));

    let lived = live(
        &member,
        peer_listener,
        &client_door,
        &metrics,
        &stop,
        &serving,
    )
    .await;
    if let Err(reason) = lived {
        // No word on what the disk holds (no space, too many open files): the next start may succeed.
        tracing::error!("the member cannot run, the process ends: {reason:#}");
        std::process::exit(74);
    }
    serving.cancel();
    ports.finish().await;
    Ok(())
}

/// The life of a member; an error is neither an accepted disk nor a refused one.
async fn live(
    member: &Arc<Member>,
    peer_listener: TcpListener,
    client_door: &Arc<ClientDoor>,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
    serving: &CancellationToken,
) -> anyhow::Result<()> {
    if let Some(offline) = offline(member) {
        tokio::select! {
            done = offline => done?,
            () = stop.cancelled() => return Ok(()),
        }
        stop.cancelled().await;
        return Ok(());
    }
    let opened = tokio::select! {
        opened = disk::open(member, metrics) => opened?,
        () = stop.cancelled() => return Ok(()),
    };
    let opened = match opened {
        Opened::Ready(opened) => *opened,
        Opened::Idle(phase) => {
            member.enter(phase);
            stop.cancelled().await;
            return Ok(());
        }
    };
    let log = opened.log.clone();
    let batch_seconds = metrics.image_batch_seconds.clone();
    let wrote = move |took: Duration| batch_seconds.observe(took.as_secs_f64());
    let keep_image = opened.store.keep_image(log.clone(), wrote);
    let args = &member.config.member;
    let me = Me::new(&opened.home.stamp().identity, MemberName(args.name.clone()));
    let peers = Peers::new(me, member.tls.clone(), Options::default());
    let stamp = opened.home.stamp();
    member.set_fenced(stamp.is_fenced);
    let (timings, fenced) = (member.config.raft, member.watch_fenced());
    let consensus = engine::start(&peers, timings, opened.log, opened.store.clone(), fenced)
        .await
        .unwrap_or_else(|reason| end("Raft did not start", reason));
    let service = Arc::new(Service::new(
        consensus.clone(),
        opened.store.clone(),
        peers.clone(),
        member.watch_own(),
        metrics.clone(),
    ));
    let shipped = watch::Sender::new(None);
    let snapshots = Snapshots::start(
        consensus.clone(),
        opened.store.clone(),
        log.clone(),
        metrics.clone(),
        shipped.subscribe(),
    );
    let own = member.watch_own();
    let peer_server = engine::serve_peers(
        peer_listener,
        peers.clone(),
        &consensus,
        opened.store.clone(),
        move || own.borrow().clone(),
        Arc::new(FromPeers(service.clone())),
        serving.clone(),
    );
    let election_ms_max = member.config.raft.election_ms_max;
    let silence = SILENT_FOR.max(2 * Duration::from_millis(election_ms_max));
    let running = Arc::new(Running {
        heard_leader: leader::heard(&peers, silence),
        consensus: consensus.clone(),
        service: service.clone(),
        state: opened.store,
        home: opened.home.clone(),
        log: log.clone(),
        peers,
        snapshots,
        shipped,
    });
    member.set_running(running.clone());
    client_door.open(service, member.watch_fenced());
    member.enter(if running.initialized() {
        Phase::Recovering
    } else {
        Phase::Empty
    });
    if member.config.standalone {
        let alone = BTreeMap::from([(args.member_id, args.name.clone())]);
        consensus
            .initialize(alone)
            .await
            .unwrap_or_else(|error| end("initializing", error));
    }
    let catch_up = tokio::spawn(catch_up(member.clone(), running.clone()));
    let keep_out = tokio::spawn(fence::run(member.clone(), running.clone()));
    let high_water = tokio::spawn(high_water::run(
        member.clone(),
        log.clone(),
        running.state.clone(),
    ));

    tokio::select! {
        () = stop.cancelled() => {}
        () = removal::removed(consensus.clone(), args.member_id) => {
            member.enter(Phase::Removed);
            member.set_ready(false);
            if let Err(error) = opened.home.mark_removed() {
                end("noting the removal", error);
            }
        }
        // The engine only ends by itself when its storage failed.
        reason = consensus.ended() => end("raft ended", reason),
    }
    catch_up.abort();
    high_water.abort();
    keep_out.abort();
    keep_image.abort();
    member.shipping.stop();
    if member.phase() != Phase::Removed {
        member.enter(Phase::Stopping);
        hand_over(&running).await;
    }
    client_door.drain(IN_FLIGHT_PATIENCE).await;
    serving.cancel();
    consensus.shutdown().await;
    let _ = peer_server.await;
    // So that the next start has little to replay; without it that one only takes longer.
    if let Err(error) = running
        .state
        .write_behind(|log_id| log.flushed(log_id))
        .await
    {
        tracing::warn!(%error, "the image ends where it was");
    }
    if let Err(error) = tokio::task::spawn_blocking(move || log.close()).await {
        end("closing the log", error);
    }
    if member.phase() == Phase::Removed {
        stop.cancelled().await;
    }
    Ok(())
}

/// What a member does that is not to vote or serve.
fn offline(member: &Arc<Member>) -> Option<BoxFuture<'_, anyhow::Result<()>>> {
    let config = &member.config;
    if let Some(before) = config.rewrite_from {
        return Some(rewrite::run(member, before).boxed());
    }
    if let Some(order) = &config.restore {
        return Some(restore::run(member, order).boxed());
    }
    config.inspect.then(|| inspect::run(member).boxed())
}

/// Once Raft runs, whatever fails on the disk ends the process (I6): it could not be told from what the
/// others were promised.
fn end(doing: &str, reason: impl std::fmt::Display) -> ! {
    tracing::error!(%reason, "{doing}: the process ends");
    std::process::exit(74);
}

/// Sets the ready latch once this member has applied what the cluster had committed when it started.
async fn catch_up(member: Arc<Member>, running: Arc<Running>) {
    let mut watch = running.consensus.watch_metrics();
    let mut metrics = watch.current();
    while !metrics
        .membership_config
        .nodes()
        .any(|(id, _)| *id == metrics.id)
    {
        if !watch.changed().await {
            return;
        }
        metrics = watch.current();
    }
    member.enter(Phase::Recovering);
    if running.consensus.recovered().await {
        member.set_ready(true);
        member.enter(Phase::Serving);
    }
}

/// A leader hands over before it goes, so that nobody waits for an election.
async fn hand_over(running: &Running) {
    if !matches!(running.consensus.role(), Role::Leads { .. }) {
        return;
    }
    let begun = Instant::now();
    let handed = running.hand_over(None, fence::HAND_OVER_PATIENCE).await;
    let elapsed_ms = begun.elapsed().as_millis() as u64;
    match handed {
        Ok(successor) => tracing::info!(successor, elapsed_ms, "leadership handed over"),
        Err(error) => tracing::warn!(%error, elapsed_ms, "leadership was not handed over"),
    }
}

/// Requests of clients that reached another member first.
struct FromPeers(Arc<Service>);

impl Forwarded for FromPeers {
    async fn handle(&self, _from: u64, request: Bytes, deadline: tokio::time::Instant) -> Bytes {
        self.0.answer_peer(request, deadline.into_std()).await
    }
}
