//! What a backup must survive, and what it must refuse.

mod cut;
mod damage;
mod entries;
mod faults;
mod golden;
mod log;
mod rig;
mod rights;
mod whole;
