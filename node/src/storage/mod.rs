//! What a member keeps on disk, and the openraft traits over it.

pub mod types;
