//! All that others see of a member: the client and admin protocols, generated from `proto/`, and clients
//! for both.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use taskstore_api::{Endpoints, TaskStoreClient, Trust, v1};
//!
//! let endpoints = Endpoints { addresses: vec!["127.0.0.1:7400".into()], trust: Trust::Plain };
//! let client = TaskStoreClient::connect(&endpoints)?;
//! let task = v1::NewTask { payload: "hello".into(), ..Default::default() };
//! client.create(v1::CreateRequest { namespace: "shop".into(), queue: "mail".into(), task: Some(task) }).await?;
//! # Ok(())
//! # }
//! ```

pub mod admin;
mod client;
mod endpoints;
mod error;
pub mod tls;
mod worker;

pub use client::{CALL_DEADLINE, TaskStoreClient};
pub use endpoints::{Endpoints, Trust};
pub use error::CallError;
pub use worker::{Failure, Worker};

/// On every answer of the client port: the incarnation of the member that gave it. On a request: the latest
/// that the caller has heard of; a member of an earlier one refuses it with WRONG_INCARNATION.
pub const INCARNATION_HEADER: &str = "taskstore-incarnation";

/// The generated protocol, version 1.
pub mod v1 {
    #![allow(missing_docs, clippy::all)]
    tonic::include_proto!("taskstore.v1");
}
