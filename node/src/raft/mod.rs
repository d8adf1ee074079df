//! Consensus: openraft's settings, its network, and guarded membership changes.

pub mod certs;
pub mod config;
pub mod door;
pub mod membership;
pub mod network;
mod snapshots;
pub mod transport;

#[cfg(test)]
mod tests;
