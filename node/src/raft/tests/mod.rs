//! Real members in one process: log on disk, sockets on the loopback, certificates.

mod cables;
pub(crate) mod cluster;
mod damage;
mod members;
mod partition;
mod raft;
