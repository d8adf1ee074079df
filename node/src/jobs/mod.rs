//! What a member does on its own: watching its disk and its certificates, noticing
//! its removal, keeping out of office while it is fenced.

pub mod fence;
pub mod high_water;
pub mod reload;
pub mod removal;
