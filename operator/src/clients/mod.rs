//! What talks to the outside: members' admin ports. The API server is reached through kube's own client.

pub mod members;
pub mod orders;
