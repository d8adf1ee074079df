//! `taskstore`: one member of the store, and a small client for people.

fn main() {}
