//! Consensus: openraft's settings, its network, and guarded membership changes.
