//! What a member does on its own: watching its disk and its certificates, noticing
//! its removal.

pub mod high_water;
pub mod reload;
pub mod removal;
