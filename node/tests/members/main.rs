//! End to end: real members as processes of the real binary, over real ports, with TLS.

mod admin;
mod asked;
mod crashes;
mod damage;
mod fence;
mod harness;
mod recovery;
mod small_disk;
mod tasks;
