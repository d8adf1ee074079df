//! What a member keeps on disk, and the openraft traits over it.

pub mod codec;
pub mod identity;
pub mod log;
pub mod log_store;
pub mod start;
pub mod types;
