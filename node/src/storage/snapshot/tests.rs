//! What a snapshot file must survive.
