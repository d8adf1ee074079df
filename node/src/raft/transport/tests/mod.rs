//! Real sockets on the loopback, real certificates, and a Raft that does what the test says.

mod appends;
mod calls;
mod golden;
mod handshakes;
mod rig;
mod snapshots;
mod tls;
