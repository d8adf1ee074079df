//! Consensus: openraft's settings, its network, and guarded membership changes.

pub mod certs;
pub mod config;
pub mod consensus;
pub mod door;
pub mod engine;
pub mod inspect;
pub mod membership;
pub mod network;
mod snapshots;
pub mod transport;
pub mod view;

#[cfg(test)]
mod tests;
