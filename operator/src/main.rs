//! `taskstore-operator`: flags, signals, and the order of start and stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use kube::{Client, Config};
use operator::clients::members::Members;
use operator::clients::orders::Orders;
use operator::context::Context;
use operator::events::Events;
use operator::leadership::{self, Role, Settings};
use operator::metrics::Metrics;
use operator::{controller, server};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;

/// News of members that wait to be routed; a full queue makes streams wait, nothing is dropped.
const NEWS: usize = 1_024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Parser)]
#[command(
    name = "taskstore-operator",
    version,
    about = "Runs TaskStoreCluster objects"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watches clusters and makes them what their spec says, until SIGTERM.
    Run(Run),
}

#[derive(Args)]
struct Run {
    /// Namespaces to look after, separated by commas; none means all.
    #[arg(long, env = "WATCH_NAMESPACES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// Where /live, /ready and /metrics are served.
    #[arg(long, env = "METRICS_ADDRESS", default_value = "0.0.0.0:8080")]
    metrics_address: SocketAddr,
    /// Image of members whose cluster names none.
    #[arg(long, env = "DEFAULT_IMAGE")]
    default_image: String,
    /// Name of the Lease that elects the operator that acts.
    #[arg(long, env = "LEASE_NAME", default_value = "taskstore-operator")]
    lease_name: String,
    /// Namespace of that Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pod_namespace: String,
    /// Who we are in the Lease and in Events.
    #[arg(long, env = "POD_NAME", default_value = "taskstore-operator")]
    pod_name: String,
    /// Logs as JSON, one object a line.
    #[arg(long, env = "LOG_JSON")]
    log_json: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Command::Run(run) = Cli::parse().command;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter);
    if run.log_json {
        logs.json().init();
    } else {
        logs.with_ansi(false).init();
    }
    start(run).await
}

async fn start(run: Run) -> anyhow::Result<()> {
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        anyhow::bail!("another TLS provider is installed already");
    }
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;

    let mut config = Config::infer()
        .await
        .context("no kubeconfig and not in a cluster")?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // A retry inside the client would hide how late it is from the Lease and from each pass.
    config.default_retry = false;
    let client = Client::try_from(config)?;

    // A container that restarts keeps its pod's name; the Lease must tell the two processes apart.
    let identity = format!("{}-{:08x}", run.pod_name, fastrand::u32(..));
    let (role, role_seen) = watch::channel(Role::Standby);
    let settings = Settings {
        namespace: run.pod_namespace,
        name: run.lease_name,
        identity,
    };
    let leader_stop = CancellationToken::new();
    let election = tokio::spawn(leadership::run(
        client.clone(),
        settings,
        role,
        leader_stop.clone(),
    ));

    let (wake, news) = mpsc::channel(NEWS);
    let orders = Orders::new(wake.clone());
    let metrics = Metrics::new({
        let orders = orders.clone();
        move || orders.unshipped(Instant::now())
    });
    let ready = server::Readiness::default();
    let http = tokio::spawn(server::serve(
        run.metrics_address,
        metrics.clone(),
        ready.clone(),
        leader_stop.clone(),
    ));

    let ctx = Arc::new(Context::new(
        client.clone(),
        Members::new(wake),
        orders,
        metrics,
        Events::new(client, run.pod_name),
        role_seen,
        run.default_image,
    ));
    let namespaces: Vec<String> = run
        .watch_namespaces
        .into_iter()
        .filter(|namespace| !namespace.is_empty())
        .collect();
    info!(
        version = env!("CARGO_PKG_VERSION"),
        ?namespaces,
        "operator starts"
    );
    controller::run(ctx, namespaces, news, stop, move || ready.set()).await;

    // Only now, so that nobody else acts while our last passes do.
    leader_stop.cancel();
    election.await.context("election ended badly")?;
    http.await
        .context("server ended badly")?
        .context("health and metrics")?;
    info!("operator stopped");
    Ok(())
}

fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("stop asked for");
        stop.cancel();
    });
    Ok(())
}
