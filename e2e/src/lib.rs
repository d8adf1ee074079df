//! Everything that drives the product from outside: a local Kubernetes, images, stories, checks.
//!
//! - `local`: upstream Kubernetes on this machine, four workers as namespaces, an S3 server; the only
//!   module that needs root.
//! - `audit`: what pods asked that Kubernetes' API server for.
//! - `bucket`: that S3 server, as those who keep backups see it.
//! - `cluster`: a Kubernetes to talk to, local or given by a kubeconfig.
//! - `images`: the product's two images, and any other single-binary image.
//! - `install`: the product on a cluster, by its charts.
//! - `forward`: the way to pods whose network does not reach to here.
//! - `store`: one TaskStoreCluster there: wait for it, talk to it, kill parts of it.
//! - `demo`: the main job on real input, for people to watch.
//! - `stories`: user stories on a cluster, one function each.
//! - `verify`: all checks by name.

pub mod audit;
pub mod binaries;
pub mod bucket;
pub mod cache;
pub mod cluster;
pub mod demo;
pub mod forward;
pub mod host;
pub mod images;
pub mod install;
pub mod local;
pub mod process;
pub mod progress;
pub mod store;
pub mod stories;
pub mod verify;
