//! Consensus: openraft's settings, its network, and guarded membership changes.

pub mod certs;
pub mod config;
pub mod consensus;
pub mod door;
pub mod engine;
pub mod inspect;
pub mod leader;
pub mod loopback;
pub mod membership;
pub mod network;
mod snapshots;
mod succession;
pub mod transport;
pub mod view;

/// The engine tells its every step at info, and every lost heartbeat at warn: a log filter that leaves what
/// a person can use.
pub const QUIET: &str = "openraft=warn,openraft::core::heartbeat=error";

#[cfg(test)]
pub(crate) mod tests;
