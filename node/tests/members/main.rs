//! End to end: real members as processes of the real binary, over real ports, with TLS.

mod admin;
mod backup;
mod crashes;
mod damage;
mod harness;
mod tasks;
