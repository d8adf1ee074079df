//! Real members in one process: log on disk, sockets on the loopback, certificates.

mod cluster;
mod members;
mod raft;
