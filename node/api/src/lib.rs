//! All that others see of a member: the client and admin protocols, generated from `proto/`, and clients
//! for both.

pub mod admin;
pub mod tls;

/// The generated protocol, version 1.
pub mod v1 {
    #![allow(missing_docs, clippy::all)]
    tonic::include_proto!("taskstore.v1");
}
