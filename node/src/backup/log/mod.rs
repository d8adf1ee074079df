//! The log in object storage: committed entries in segments, each naming the hash of the one before, so that
//! a backup and what follows it can be replayed to any entry.
//!
//! ```text
//! <prefix>/<cluster id>/<incarnation>/log/<first index>.segment
//!
//! backup at 90 ─▶ 91.segment (91 to 120) ─▶ 121.segment ─▶ 133.segment ─▶ …   a chain
//!                                                backup at 200 ─▶ 201.segment ─▶ …   the next one
//! ```
//!
//! A segment is created only if there is none at its first index. Committed entries are the same on every
//! member, so two that ship at once build one chain together: who comes second goes on behind the other's
//! segment. Where a member no longer has what should come next, the chain has ended, and a new one starts
//! right behind a backup.

pub mod replay;
pub mod segment;
pub mod ship;
