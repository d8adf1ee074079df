//! `taskstore member`: from arguments to a running member, and its signals.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::MemberArgs;
use crate::app;
use crate::config::{Config, MemberIdentity, Ports};
use crate::raft::config::Timings;

/// A stop that takes longer is cut short: a member may be killed at any moment.
const STOP_LONGEST: Duration = Duration::from_secs(9);
/// What still runs off the async threads at the end (a snapshot on its way to the disk) gets this long.
const BLOCKING_PATIENCE: Duration = Duration::from_secs(1);

/// Runs a member of a cluster until SIGTERM.
pub fn run(args: MemberArgs) -> anyhow::Result<ExitCode> {
    let identity = MemberIdentity {
        cluster_id: args.cluster_id,
        incarnation: args.incarnation,
        member_id: args.member_id,
        volume_uid: args.volume_uid,
        name: args.name,
    };
    let mut config = Config::new(args.data_dir, identity, args.tls_dir);
    config.listen = args.listen.listen_ip;
    config.internal = args.listen.listen_ip;
    config.ports = Ports {
        client: args.listen.client_port,
        admin: args.listen.admin_port,
        peer: args.listen.peer_port,
        health: args.listen.health_port,
    };
    config.log_budget_bytes = args.log_budget_bytes;
    config.backup_credentials_dir = args.backup_credentials_dir;
    config.inspect = args.inspect;
    config.rewrite_from = args.rewrite_from;
    let folder = config.backup_credentials_dir.as_deref();
    let order = args.restore.map(|order| order.checked(folder));
    config.restore = order.transpose()?;
    config.raft = Timings {
        heartbeat_ms: args.heartbeat_ms,
        election_ms_min: args.election_ms_min,
        election_ms_max: args.election_ms_max,
    };
    serve(config)
}

pub fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| format!("info,{}", crate::raft::QUIET).into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    block_on(async {
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let asked = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping");
            std::thread::spawn(|| {
                std::thread::sleep(STOP_LONGEST);
                tracing::error!("the stop took too long, the process ends");
                std::process::exit(1);
            });
            asked.cancel();
        });
        app::run(config, stop).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Runs a command's future on a runtime of its own.
pub fn block_on(
    command: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(command);
    runtime.shutdown_timeout(BLOCKING_PATIENCE);
    ended
}
