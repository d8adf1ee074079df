//! What a member does on its own: snapshots and purges, watching its disk and its certificates, noticing
//! its removal.

pub mod high_water;
pub mod reload;
pub mod removal;
pub mod snapshots;
