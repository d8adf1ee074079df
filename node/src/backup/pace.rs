//! A bound on bytes a second. Every part waits for its turn, so the network is used evenly over a few
//! parts and never above the bound in the long run.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub struct Pace {
    bytes_per_second_max: Option<u64>,
    free_at: Mutex<Instant>,
}

impl Pace {
    /// None and 0: as fast as it goes.
    pub fn new(bytes_per_second_max: Option<u64>) -> Pace {
        Pace {
            bytes_per_second_max: bytes_per_second_max.filter(|bytes| *bytes > 0),
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// Waits until so many bytes may be moved.
    pub async fn turn(&self, bytes: u64) {
        let Some(bytes_per_second) = self.bytes_per_second_max else {
            return;
        };
        let at = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let (at, next) = turn(*free_at, Instant::now(), bytes, bytes_per_second);
            *free_at = next;
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

/// When so many bytes may be moved, and from when on the next ones.
fn turn(free_at: Instant, now: Instant, bytes: u64, bytes_per_second: u64) -> (Instant, Instant) {
    let at = free_at.max(now);
    let takes = Duration::from_secs_f64(bytes as f64 / bytes_per_second as f64);
    (at, at + takes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_parts_take_the_time_that_the_bound_says_and_silence_saves_up_nothing() {
        let begun = Instant::now();
        let mut free_at = begun;
        let mut at = begun;
        for _ in 0..11 {
            (at, free_at) = turn(free_at, begun, 500, 1_000);
        }
        assert_eq!(at - begun, Duration::from_secs(5));
        let later = begun + Duration::from_secs(60);
        let (first, next) = turn(free_at, later, 500, 1_000);
        assert_eq!(
            (first - later, next - later),
            (Duration::ZERO, Duration::from_millis(500))
        );
    }
}
