//! The single door: every request of a client, from here or forwarded by another member, passes through
//! `Service::call`.

pub mod request;
