//! The operator: observe, plan, apply, report.
//!
//! ```text
//!  API server ──watch──▶ caches ─┐                      ┌─▶ creates, patches, deletes
//!                                ├─▶ observe ─▶ plan ─▶ apply
//!  members ──status streams──────┘      pure ▲  │       └─▶ admin calls
//!                                            │  └──▶ status (pure) ─▶ API server
//!                                           now
//! ```
//!
//! Imports run one way: main ▶ controller ▶ reconcile ▶ {observe, apply} ▶ clients;
//! reconcile ▶ {plan, status} ▶ resources ▶ crds. `plan`, `status` and `resources` are pure: no async, no
//! clock, no randomness, no client. Beside them `plugin`, which is `kubectl taskstore`, looks with the same
//! observe and plan, and changes nothing.
//!
//! Invariants: O1 plan is pure and total. O2 all progress is visible in Kubernetes or in Raft. O3 one
//! disruptive action at a time; voters alive never drop below quorum through an action of ours (but by name: one
//! replica, hibernation, deletion, an acknowledged recovery). O4 unknown is not dead. O5 data is deleted only on the user's explicit word. O6 every wait has a named reason in
//! status. O7 steady state writes nothing. O8 the desired size comes from the spec alone. O9 reconcile
//! never sleeps; it returns with `wake_at`.

pub mod apply;
pub mod certificates;
pub mod clients;
pub mod context;
pub mod controller;
pub mod error;
pub mod events;
pub mod leadership;
pub mod metrics;
pub mod observe;
pub mod orphans;
pub mod plan;
pub mod plugin;
pub mod reconcile;
pub mod resources;
pub mod restores;
pub mod server;
pub mod status;
