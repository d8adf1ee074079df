//! All checks by name.
