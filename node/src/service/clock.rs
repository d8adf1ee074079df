//! The leader's two clocks, in memory. Only what they stamp into entries reaches the state.
//!
//! `lease_time` is monotonic time in office, summed over all leaders: a sample every 250 ms and one with
//! every proposal, each adding at most a second. So a paused process counts a second at most, and time
//! without a leader counts nothing. `wall_time` follows the system clock, except that a step ahead of
//! more than a minute while in office is not taken, only reported.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often time in office is sampled.
pub const SAMPLE_EVERY: Duration = Duration::from_millis(250);
/// The most that one sample adds.
const SAMPLE_MAX: Duration = Duration::from_secs(1);
/// A step of the system clock that is not believed.
const STEP_MS_MAX: u64 = 60_000;

/// The clocks of one term in office.
#[derive(Debug)]
pub struct OfficeClock {
    lease_base_ms: u64,
    in_office: Duration,
    sampled_at: Instant,
    wall_ms: u64,
    /// How far the system clock is ahead of what we believe; 0 when it is believed.
    pub step_refused_ms: u64,
}

impl OfficeClock {
    /// Takes office on a state whose clocks stand at `lease_time_ms` and `wall_time_ms`.
    pub fn new(
        lease_time_ms: u64,
        wall_time_ms: u64,
        now: Instant,
        system: SystemTime,
    ) -> OfficeClock {
        OfficeClock {
            lease_base_ms: lease_time_ms,
            in_office: Duration::ZERO,
            sampled_at: now,
            wall_ms: wall_time_ms.max(unix_ms(system)),
            step_refused_ms: 0,
        }
    }

    /// Advances both clocks and answers (lease time, wall time), each never less than before.
    pub fn sample(&mut self, now: Instant, system: SystemTime) -> (u64, u64) {
        let elapsed = now.saturating_duration_since(self.sampled_at);
        self.sampled_at = now;
        self.in_office += elapsed.min(SAMPLE_MAX);
        let expected = self.wall_ms + elapsed.as_millis() as u64;
        let system_ms = unix_ms(system);
        if system_ms > expected + STEP_MS_MAX {
            self.step_refused_ms = system_ms - expected;
            self.wall_ms = expected;
        } else {
            self.step_refused_ms = 0;
            self.wall_ms = self.wall_ms.max(system_ms);
        }
        (self.lease_time_ms(), self.wall_ms)
    }

    fn lease_time_ms(&self) -> u64 {
        self.lease_base_ms + self.in_office.as_millis() as u64
    }
}

/// Milliseconds since 1970; 0 before.
pub fn unix_ms(system: SystemTime) -> u64 {
    system
        .duration_since(UNIX_EPOCH)
        .map(|since| since.as_millis() as u64)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000_000;

    fn system(ms: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(ms)
    }

    #[test]
    fn lease_time_continues_from_the_state_and_counts_time_in_office() {
        let begin = Instant::now();
        let mut clock = OfficeClock::new(5_000, 0, begin, system(START));
        let (lease, wall) = clock.sample(begin + Duration::from_millis(250), system(START + 250));
        assert_eq!((lease, wall), (5_250, START + 250));
    }

    #[test]
    fn a_paused_process_counts_a_second_at_most() {
        let begin = Instant::now();
        let mut clock = OfficeClock::new(0, 0, begin, system(START));
        let (lease, _) = clock.sample(begin + Duration::from_secs(30), system(START + 30_000));
        assert_eq!(lease, 1_000);
    }

    #[test]
    fn thirty_seconds_of_silence_count_as_thirty_when_sampled() {
        let begin = Instant::now();
        let mut clock = OfficeClock::new(0, 0, begin, system(START));
        for step in 1..=120 {
            clock.sample(begin + SAMPLE_EVERY * step, system(START));
        }
        assert_eq!(
            clock.sample(begin + SAMPLE_EVERY * 120, system(START)).0,
            30_000
        );
    }

    #[test]
    fn wall_time_never_goes_back_and_takes_no_step_over_a_minute() {
        let begin = Instant::now();
        let mut clock = OfficeClock::new(0, START + 10_000, begin, system(START));
        assert_eq!(clock.sample(begin, system(START)).1, START + 10_000);
        let hour = 3_600_000;
        assert_eq!(clock.sample(begin, system(START + hour)).1, START + 10_000);
        assert_eq!(clock.step_refused_ms, hour - 10_000);
        assert_eq!(
            clock.sample(begin, system(START + 20_000)).1,
            START + 20_000
        );
        assert_eq!(clock.step_refused_ms, 0);
    }
}
