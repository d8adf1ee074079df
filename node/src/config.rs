//! A member's configuration, validated: what the arguments say, in the types the rest uses.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::backup::credentials::Credentials;
use crate::backup::destination::Destination;
use crate::backup::restore::Wanted;
use crate::limits::LOG_BUDGET_BYTES_MIN;
use crate::raft::config::Timings;

/// The ports of a member (`taskstore.dev` reserves 7400 to 7403).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    pub client: u16,
    pub admin: u16,
    pub peer: u16,
    pub health: u16,
}

impl Default for Ports {
    fn default() -> Ports {
        Ports {
            client: 7400,
            admin: 7401,
            peer: 7402,
            health: 7403,
        }
    }
}

/// What a blank volume is filled with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreOrder {
    pub from: Destination,
    pub credentials: Credentials,
    pub wanted: Wanted,
}

/// Who this member is told to be. Its disk must agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberIdentity {
    pub cluster_id: String,
    pub incarnation: u16,
    pub member_id: u64,
    pub volume_uid: String,
    /// The stable DNS name, with `:port` where the peer port is not the usual one.
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub data_dir: PathBuf,
    pub member: MemberIdentity,
    /// Holds ca.crt, peer.crt, peer.key, client.crt and client.key; read again when they change.
    pub tls_dir: PathBuf,
    /// Off for `taskstore dev`: the client port then speaks plain HTTP.
    pub client_tls: bool,
    /// The address of the client and health ports.
    pub listen: IpAddr,
    /// The address of the admin and peer ports; the same, but for `taskstore dev`.
    pub internal: IpAddr,
    pub ports: Ports,
    pub raft: Timings,
    /// Disk reserved for the log, in bytes.
    pub log_budget_bytes: u64,
    /// Holds a folder for each set of credentials that a backup may name.
    pub backup_credentials_dir: Option<PathBuf>,
    /// Open read-only, report and serve nothing else.
    pub inspect: bool,
    /// The member that the volume belongs to: it is given to this one, of a later incarnation, then reported as by
    /// `inspect`.
    pub rewrite_from: Option<u64>,
    /// What a blank volume is filled with, for the only voter of a later incarnation; then reported as by `inspect`.
    pub restore: Option<RestoreOrder>,
    /// Format a blank volume and initialize a cluster of one without being asked.
    pub standalone: bool,
}

impl Config {
    /// A member with the defaults of the design.
    pub fn new(data_dir: PathBuf, member: MemberIdentity, tls_dir: PathBuf) -> Config {
        Config {
            data_dir,
            member,
            tls_dir,
            client_tls: true,
            listen: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            internal: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            ports: Ports::default(),
            raft: Timings::default(),
            log_budget_bytes: 1 << 30,
            backup_credentials_dir: None,
            inspect: false,
            rewrite_from: None,
            restore: None,
            standalone: false,
        }
    }

    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.listen, port)
    }

    /// Names the first argument that cannot be, with its bound.
    pub fn validate(&self) -> Result<(), String> {
        let incarnation = self.member.member_id >> 32;
        if self.member.incarnation == 0 {
            return Err("incarnation must be at least 1".into());
        }
        if incarnation != u64::from(self.member.incarnation)
            || self.member.member_id & 0xffff_ffff == 0
        {
            return Err("member-id must be incarnation * 2^32 + n with n of at least 1".into());
        }
        let starts = [
            self.inspect,
            self.rewrite_from.is_some(),
            self.restore.is_some(),
        ];
        if starts.into_iter().filter(|is_asked| *is_asked).count() > 1 {
            return Err("inspect, rewrite-from and restore exclude each other".into());
        }
        if let Some(order) = &self.restore
            && order.wanted.lineage.incarnation >= self.member.incarnation
        {
            return Err(format!(
                "restore must name a lineage with an incarnation below {}, the incarnation of member-id: tokens only \
                 grow",
                self.member.incarnation
            ));
        }
        if let Some(before) = self.rewrite_from
            && (!(1..incarnation).contains(&(before >> 32)) || before & 0xffff_ffff == 0)
        {
            return Err(format!(
                "rewrite-from must be incarnation * 2^32 + n with an incarnation of at least 1 and below \
                 {incarnation}, the incarnation of member-id, and n of at least 1"
            ));
        }
        if self.raft.election_ms_min < 2 * self.raft.heartbeat_ms {
            return Err("election-ms-min must be at least twice heartbeat-ms".into());
        }
        if self.raft.election_ms_max <= self.raft.election_ms_min {
            return Err("election-ms-max must be greater than election-ms-min".into());
        }
        if self.log_budget_bytes < LOG_BUDGET_BYTES_MIN {
            return Err(format!(
                "log-budget-bytes must be at least {LOG_BUDGET_BYTES_MIN}"
            ));
        }
        Ok(())
    }
}
