//! `taskstore dev`: a store of one durable member on a laptop.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use super::DevArgs;
use super::member::serve;
use crate::config::{Config, MemberIdentity, Ports};
use crate::raft::certs::Authority;
use crate::storage::identity::{Content, Volume};

const CLUSTER_ID: &str = "dev";
const FIRST_INCARNATION: u16 = 1;
/// Smaller than a cluster's: a laptop has other things on its disk.
const LOG_BUDGET_BYTES: u64 = 256 << 20;

/// Runs the store. Its peer and admin ports are open on loopback alone, with certificates of its own.
pub fn run(args: DevArgs) -> anyhow::Result<ExitCode> {
    let store_dir = store_dir(&args.data_dir);
    // A member that finds its volume in use waits for an operator; a person wants to know at once.
    let incarnation = match Volume::open(&store_dir)?.content() {
        // One that was restored has a later one.
        Ok(Content::Stamped(home)) => home.stamp().identity.incarnation,
        // What is wrong with it the member says itself.
        Ok(Content::Blank) | Err(_) => FIRST_INCARNATION,
    };
    let mut config = config(&args.data_dir, incarnation);
    if !config.tls_dir.exists() {
        write_certificates(&config.member, &config.tls_dir)
            .with_context(|| format!("cannot write {}", config.tls_dir.display()))?;
    }
    config.listen = args.listen_ip;
    config.ports = Ports {
        client: args.client_port,
        admin: 0,
        peer: 0,
        health: args.health_port,
    };
    config.internal = IpAddr::from([127, 0, 0, 1]);
    config.client_tls = false;
    config.standalone = true;
    println!(
        "clients: http://{} (gRPC and JSON)",
        config.address(config.ports.client)
    );
    println!("data:    {}", args.data_dir.display());
    serve(config)
}

/// The volume within a data directory.
pub fn store_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("store")
}

/// Of the only member.
pub fn config(data_dir: &Path, incarnation: u16) -> Config {
    let identity = MemberIdentity {
        cluster_id: CLUSTER_ID.into(),
        incarnation,
        member_id: u64::from(incarnation) << 32 | 1,
        volume_uid: String::new(),
        name: "127.0.0.1".into(),
    };
    let tls_dir = data_dir.join(format!("tls-{incarnation}"));
    let mut config = Config::new(store_dir(data_dir), identity, tls_dir);
    config.log_budget_bytes = LOG_BUDGET_BYTES;
    config
}

/// Whole or not at all: a folder that a kill has left half written would stop every later start.
fn write_certificates(identity: &MemberIdentity, tls_dir: &Path) -> anyhow::Result<()> {
    let unfinished = tls_dir.with_extension("unfinished");
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished)?;
    }
    std::fs::create_dir_all(&unfinished)?;
    let authority = Authority::new(&identity.cluster_id)?;
    authority
        .member(identity.member_id)?
        .write_to(&unfinished)?;
    std::fs::rename(&unfinished, tls_dir)?;
    Ok(())
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
        let config = config(dir.path(), FIRST_INCARNATION);
        write_certificates(&config.member, &tls_dir).unwrap();
        assert!(TlsStore::load(&tls_dir).is_ok());
        assert!(!half.exists());
    }
}
