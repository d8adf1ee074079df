//! All that others see of a member: the client and admin protocols, generated from `proto/`.

/// The generated protocol, version 1.
pub mod v1 {
    #![allow(missing_docs, clippy::all)]
    tonic::include_proto!("taskstore.v1");
}
