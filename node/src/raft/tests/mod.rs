//! Real members in one process: log on disk, sockets on the loopback, certificates.

pub(crate) mod cluster;
mod members;
mod raft;
