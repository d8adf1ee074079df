//! `taskstore-operator`: reconciles TaskStoreCluster objects.

fn main() {}
