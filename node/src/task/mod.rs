//! The rules of tasks and queues: pure values, no clock, no randomness, no I/O.
//!
//! `State::apply(at, entry)` is the only way in which state changes; every member runs it on the same
//! entries in the same order and comes to the same state (I2).
//!
//! ```text
//! entry ─▶ time (clocks, what is due) ─▶ create · claim · settle · members ─▶ outcomes
//!                      └──────────────┬─────────────┘
//!                                     ▼
//!                state: tables (persistent maps, copied in O(1), hashed)
//!                       index (orders and look-ups, rebuilt from the tables)
//! ```

mod available;
mod claim;
pub mod command;
mod create;
pub mod hash;
pub mod id;
mod ids;
mod index;
pub mod load;
mod members;
pub mod queue;
pub mod read;
mod rewrite;
pub mod row;
pub mod rows;
mod seqs;
mod settle;
pub mod state;
pub mod tables;
#[cfg(test)]
pub mod tests;
pub mod time;
mod written;
