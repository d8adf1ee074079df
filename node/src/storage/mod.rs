//! What a member keeps on disk, and the openraft traits over it.

pub mod codec;
pub mod files;
pub mod identity;
pub mod image;
pub mod log;
pub mod log_store;
pub mod machine;
pub mod on_panic;
pub mod rewrite;
pub mod room;
pub mod snapshot;
pub mod start;
pub mod step;
pub mod store;
pub mod types;
