//! One member of a TaskStore cluster.
//!
//! ```text
//! clients ─▶ server ─▶ service ─▶ raft ─▶ storage/log ──fsync──▶ disk
//!                         ▲         │           │ committed
//!                         │         ▼           ▼
//!                      outcome ◀─ storage/machine ─▶ task::apply (rows in memory)
//!                                                       │ what changed, and new payloads
//!                                                       ▼
//!                                  snapshot files ◀─ storage/image (sled: rows, all payloads)
//! ```
//!
//! The log is the truth, memory decides, the image remembers: it is written behind and may be thrown away at
//! any time. Neither image nor snapshot ever holds an entry that the local log could still lose.
//!
//! Imports run one way: `cli ▶ app ▶ jobs ▶ server ▶ member ▶ service ▶ backup ▶ raft ▶ storage ▶ task`.
//!
//! Invariants:
//! - I1 nothing is acknowledged before it is fsynced on a quorum.
//! - I2 apply is deterministic.
//! - I3 the applied index moves in the same step as its effects.
//! - I4 a member id is never re-used; a wiped disk never rejoins under its old id.
//! - I5 corruption is never taken for a torn tail: a member whose acknowledged log cannot be read does
//!   not start Raft (window: a last frame within 20 ms of its fsync whose damage looks like missing
//!   sectors).
//! - I6 any failed write, fsync or rename of log, vote or identity ends the process.
//! - I7 a settle needs the current lease token; tokens only grow.
//! - I8 a create (by id), a settle (by token) and a claim (by claim id) take effect once.
//! - I9 every queue, page, payload, batch, connection count and buffer has a cap, all in `limits.rs`.
//! - I10 reads are linearizable unless the caller asks otherwise.

pub mod app;
pub mod backup;
pub mod cli;
pub mod config;
pub mod jobs;
pub mod limits;
pub mod member;
pub mod metrics;
pub mod process;
pub mod raft;
pub mod server;
pub mod service;
pub mod storage;
pub mod task;
