//! The command line of `taskstore`. `member` is the contract with the operator: its arguments are stable.

pub mod backup;
pub mod bench;
pub mod dev;
pub mod drill;
pub mod member;
pub mod restore;
pub mod task;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::limits::LOG_BUDGET_BYTES;
use crate::raft::config::Timings;

/// A replicated store for tasks.
#[derive(Debug, Parser)]
#[command(name = "taskstore", version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs one member of a cluster; the operator starts these.
    Member(MemberArgs),
    /// Runs a store of one durable member on this machine, without TLS.
    Dev(DevArgs),
    /// Creates, claims, settles and shows tasks.
    Task(task::TaskArgs),
    /// Lists, inspects, verifies, exports and deletes backups in object storage, and orders them.
    Backup(backup::BackupArgs),
    /// Fills a new store on this machine from a backup in object storage; `taskstore dev` runs it.
    Restore(restore::RestoreArgs),
    /// Restores what lies in a bucket into nothing, and tells what came of it; the operator starts these.
    Drill(drill::DrillArgs),
    /// Measures a store of three members on this machine, or an existing one.
    Bench(bench::BenchArgs),
}

#[derive(Debug, Clone, Args)]
pub struct MemberArgs {
    /// The member's volume.
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Holds ca.crt, peer.crt and peer.key (peers and admin) and client.crt and client.key (clients), in PEM.
    /// Read again when they change.
    #[arg(long)]
    pub tls_dir: PathBuf,
    /// The UID of the TaskStoreCluster that bootstrapped the cluster.
    #[arg(long)]
    pub cluster_id: String,
    #[arg(long)]
    pub incarnation: u16,
    /// incarnation * 2^32 + number.
    #[arg(long)]
    pub member_id: u64,
    /// The UID of the PersistentVolumeClaim: the id is bound to one volume for life.
    #[arg(long)]
    pub volume_uid: String,
    /// What peers dial: a stable DNS name, followed by `:port` where the peers' port is not 7402.
    #[arg(long)]
    pub name: String,
    /// Opens the volume read-only and reports what is on it; no vote, no serving.
    #[arg(long)]
    pub inspect: bool,
    /// The id of the member that the volume belongs to, of an earlier incarnation: offline, the volume is given to the
    /// member that the other arguments name, which becomes the only voter, and is then reported as by --inspect.
    /// Everything in the log counts as committed. It may be repeated, also after it was cut off.
    #[arg(long, value_name = "MEMBER_ID", conflicts_with = "inspect")]
    pub rewrite_from: Option<u64>,
    /// A bucket and what of it, as a JSON object: offline, the blank volume is filled with that for the member that
    /// the other arguments name, which becomes the only voter, and is then reported as by --inspect. It may be
    /// repeated, also after it was cut off.
    #[arg(long, value_name = "JSON", conflicts_with_all = ["inspect", "rewrite_from"])]
    pub restore: Option<restore::Order>,
    /// Disk reserved for the log when the volume is formatted.
    #[arg(long, default_value_t = LOG_BUDGET_BYTES)]
    pub log_budget_bytes: u64,
    /// The leader's sign of life.
    #[arg(long, default_value_t = Timings::default().heartbeat_ms)]
    pub heartbeat_ms: u64,
    /// Silence of the leader after which a voter asks for an election; each time at random between the two.
    #[arg(long, default_value_t = Timings::default().election_ms_min)]
    pub election_ms_min: u64,
    #[arg(long, default_value_t = Timings::default().election_ms_max)]
    pub election_ms_max: u64,
    /// Holds a folder for each set of credentials that backups may use, with a file for each value. Read for
    /// each backup.
    #[arg(long)]
    pub backup_credentials_dir: Option<PathBuf>,
    #[command(flatten)]
    pub listen: Listen,
}

/// Where a member listens. Port 0 takes a free one.
#[derive(Debug, Clone, Args)]
pub struct Listen {
    #[arg(long, default_value = "::")]
    pub listen_ip: IpAddr,
    /// gRPC and JSON for clients.
    #[arg(long, default_value_t = 7400)]
    pub client_port: u16,
    /// The operator's.
    #[arg(long, default_value_t = 7401)]
    pub admin_port: u16,
    /// The other members'.
    #[arg(long, default_value_t = 7402)]
    pub peer_port: u16,
    /// /live, /ready and /metrics.
    #[arg(long, default_value_t = 7403)]
    pub health_port: u16,
}

#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// Kept between runs.
    #[arg(long, default_value = "taskstore-data")]
    pub data_dir: PathBuf,
    #[arg(long, default_value = "127.0.0.1")]
    pub listen_ip: IpAddr,
    #[arg(long, default_value_t = 7400)]
    pub client_port: u16,
    #[arg(long, default_value_t = 7403)]
    pub health_port: u16,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_operators_arguments_are_understood() {
        let arguments = "taskstore member --data-dir=/data --tls-dir=/tls --cluster-id=c --incarnation=1 \
                         --member-id=4294967297 --volume-uid=v --name=demo-1-1.demo-peers.shop.svc --inspect";
        let cli = Cli::try_parse_from(arguments.split_whitespace()).unwrap();
        let Command::Member(member) = cli.command else {
            panic!("{cli:?}")
        };
        assert_eq!(
            (member.member_id, member.listen.peer_port),
            ((1 << 32) + 1, 7402)
        );
        let times = (
            member.heartbeat_ms,
            member.election_ms_min,
            member.election_ms_max,
        );
        assert_eq!(times, (100, 400, 700));
    }

    #[test]
    fn a_volume_is_rewritten_or_inspected_but_not_both() {
        let arguments = "taskstore member --data-dir=/data --tls-dir=/tls --cluster-id=c --incarnation=2 \
                         --member-id=8589934596 --volume-uid=v --name=m --rewrite-from=4294967297";
        let parse = |more: &str| {
            let arguments = arguments.split_whitespace().chain(more.split_whitespace());
            Cli::try_parse_from(arguments)
        };
        let Ok(Command::Member(member)) = parse("").map(|cli| cli.command) else {
            panic!("it is understood")
        };
        assert_eq!(member.rewrite_from, Some((1 << 32) + 1));
        let refused = parse("--inspect").unwrap_err().to_string();
        assert!(refused.contains("cannot be used with"), "{refused}");
    }
}
