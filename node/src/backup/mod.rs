//! Backups in object storage: a snapshot in parts, proven by reading it back, and a manifest, written last.
//!
//! ```text
//! <prefix>/<cluster id>/<incarnation>/backups/<name>/<snapshot id>/00000.part, 00001.part, …
//!                                                   /manifest.json
//!
//! snapshot ─▶ parts with a hash each ─▶ read back, audited ─▶ manifest (conditional create) ─▶ done
//! ```
//!
//! What has a manifest is a backup; nothing else is, whatever lies there. The manifest is created only if
//! there is none, after every part was read back, so two members that work on one name end with one backup,
//! and a crash at any step leaves none or a whole one. Parts stand under the id of their snapshot: attempts
//! never overwrite each other. A lineage (cluster id and incarnation) has a folder of its own and is written
//! by its own members alone: the folder's name is taken from the snapshot itself.

pub mod bucket;
pub mod check;
pub mod credentials;
pub mod delete;
pub mod destination;
pub mod download;
pub mod drill;
pub mod error;
mod http;
pub mod layout;
pub mod list;
pub mod log;
pub mod manifest;
mod pace;
pub mod parts;
pub mod progress;
pub mod restore;
pub mod retention;
pub mod verify;
pub mod write;

#[cfg(test)]
mod tests;
