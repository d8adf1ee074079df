//! The rules of tasks and queues: pure values, no clock, no randomness, no I/O.
//!
//! `State::apply(at, entry)` is the only way in which state changes; every member runs it on the same
//! entries in the same order and comes to the same state (I2).

pub mod command;
pub mod id;
