//! Addresses for members that run beside each other on one machine: each has one of its own, with the
//! usual ports.
//!
//! A port that was free a moment ago may be taken by any connection before the member binds it; nobody
//! connects from these addresses, so nothing is ever in the way.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering};

/// A loopback address that this process has not given out in its last 250 calls, in a range that goes by the
/// process id.
pub fn own_address() -> Ipv4Addr {
    static GIVEN: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let last = GIVEN.fetch_add(1, Ordering::Relaxed) % 250 + 1;
    // Far from 127.0.0.1 and its neighbours, which others use.
    Ipv4Addr::new(127, 64 | (high & 63), low, last)
}
