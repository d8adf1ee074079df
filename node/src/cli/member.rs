//! `taskstore member` and `taskstore dev`: from arguments to a running member, and its signals.

use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{DevArgs, MemberArgs};
use crate::app;
use crate::config::{Config, MemberIdentity, Ports};
use crate::raft::certs::Authority;
use crate::raft::config::Timings;
use crate::storage::identity::Volume;

/// The member of a laptop's store.
const DEV_INCARNATION: u16 = 1;
const DEV_MEMBER_ID: u64 = (1 << 32) + 1;
/// Smaller than a cluster's: a laptop has other things on its disk.
const DEV_LOG_BUDGET_BYTES: u64 = 256 << 20;

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
    config.raft = Timings {
        heartbeat_ms: args.heartbeat_ms,
        election_ms_min: args.election_ms_min,
        election_ms_max: args.election_ms_max,
    };
    serve(config)
}

/// Runs a store of one durable member. Its peer and admin ports are open on loopback alone, with
/// certificates of its own.
pub fn run_dev(args: DevArgs) -> anyhow::Result<ExitCode> {
    let cluster_id = "dev".to_string();
    let tls_dir = args.data_dir.join("tls");
    if !tls_dir.exists() {
        write_certificates(&cluster_id, &tls_dir)
            .with_context(|| format!("cannot write {}", tls_dir.display()))?;
    }
    // A member that finds its volume in use waits for an operator; a person wants to know at once.
    let store_dir = args.data_dir.join("store");
    Volume::open(&store_dir)?;
    let identity = MemberIdentity {
        cluster_id,
        incarnation: DEV_INCARNATION,
        member_id: DEV_MEMBER_ID,
        volume_uid: String::new(),
        name: "127.0.0.1".into(),
    };
    let mut config = Config::new(store_dir, identity, tls_dir);
    config.listen = args.listen_ip;
    config.ports = Ports {
        client: args.client_port,
        admin: 0,
        peer: 0,
        health: args.health_port,
    };
    config.internal = IpAddr::from([127, 0, 0, 1]);
    config.client_tls = false;
    config.log_budget_bytes = DEV_LOG_BUDGET_BYTES;
    config.standalone = true;
    println!(
        "clients: http://{} (gRPC and JSON)",
        config.address(config.ports.client)
    );
    println!("data:    {}", args.data_dir.display());
    serve(config)
}

/// Whole or not at all: a folder that a kill has left half written would stop every later start.
fn write_certificates(cluster_id: &str, tls_dir: &Path) -> anyhow::Result<()> {
    let unfinished = tls_dir.with_extension("unfinished");
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished)?;
    }
    std::fs::create_dir_all(&unfinished)?;
    let authority = Authority::new(cluster_id)?;
    authority.member(DEV_MEMBER_ID)?.write_to(&unfinished)?;
    std::fs::rename(&unfinished, tls_dir)?;
    Ok(())
}

fn serve(config: Config) -> anyhow::Result<ExitCode> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::transport::tls::TlsStore;

    #[test]
    fn certificates_are_written_anew_after_a_kill_in_the_middle() {
        let dir = tempfile::tempdir().unwrap();
        let tls_dir = dir.path().join("tls");
        let half = tls_dir.with_extension("unfinished");
        std::fs::create_dir_all(&half).unwrap();
        std::fs::write(half.join("ca.crt"), "half").unwrap();
        write_certificates("dev", &tls_dir).unwrap();
        assert!(TlsStore::load(&tls_dir).is_ok());
        assert!(!half.exists());
    }
}
