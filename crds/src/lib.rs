//! The words users speak: the kinds TaskStoreCluster, TaskStoreBackup and TaskStoreRestore, their rules, names
//! and conditions.
//!
//! ```text
//! cluster.rs  spec, one field after the other        names.rs       every derived name, label and address
//! status.rs   what the operator reports              conditions.rs  condition types and reasons
//! validate.rs rules, as CEL and as a pure function   schema.rs      the CRD that the API server gets
//! quantity.rs amounts that people write as text      duration.rs    times that people write as text
//! template.rs the user's pod around each member      destination.rs where backups are
//! backup.rs   one backup                             restore.rs     a cluster made from one
//! backup_policy.rs  when backups are made            schedule.rs    what is due of that
//! ```
//!
//! Pure: no async, no clock, no randomness, no Kubernetes client. The operator, the chart and the
//! tests all take their words from here, so a name or a condition is spelled exactly once.
//!
//! Decisions that bind this crate:
//! - `replicas` is bounded by a rule with a message of ours, not by a schema `enum`: an enum fails
//!   before any rule runs, and "Unsupported value: 4" does not tell why an even number is no good.
//! - The rules live in one table that feeds both the CRD and [`validate::validate`]; a reconcile
//!   repeats them because an object may be older than its rules.
//! - `schema` removes what schemars adds and GitOps tools trip over: `nullable`, float bounds,
//!   foreign number formats. It also bounds every string, list and map, or CEL's cost check fails.

pub mod backup;
pub mod backup_policy;
pub mod cluster;
pub mod conditions;
pub mod destination;
pub mod duration;
pub mod names;
pub mod quantity;
pub mod restore;
pub mod schedule;
pub mod schema;
pub mod status;
pub mod template;
pub mod validate;

pub use backup::{TaskStoreBackup, TaskStoreBackupStatus};
pub use backup_policy::BackupPolicy;
pub use cluster::{TaskStoreCluster, TaskStoreClusterSpec};
pub use conditions::{ConditionType, Reason};
pub use names::MemberId;
pub use restore::{TaskStoreRestore, TaskStoreRestoreStatus};
pub use status::TaskStoreClusterStatus;
pub use validate::{Violation, validate};

/// The API group of every kind of ours, and the prefix of labels and annotations.
pub const GROUP: &str = "taskstore.dev";
/// The only version so far.
pub const VERSION: &str = "v1alpha1";
