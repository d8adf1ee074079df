//! What talks to the outside: members' admin ports, and writes of the API server that more than one part makes.

pub mod members;
pub mod objects;
pub mod orders;
