//! The words users speak: the TaskStoreCluster kind, its rules, names and conditions.
