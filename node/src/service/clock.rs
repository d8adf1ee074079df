//! The two clocks that entries are stamped with. Only what they stamp into entries reaches the state.
//!
//! `lease_time` is monotonic time in office, summed over all leaders: a sample every 250 ms and one with
//! every look, each adding at most a second. So a paused process counts a second at most, and time
//! without a leader counts nothing. `wall_time` is what this member believes of its system clock, watched
//! while it follows as well, and never behind what was applied: a step ahead of more than a minute is not
//! taken, only reported, until the clock is right again or the member is started again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::metrics::Metrics;
use crate::raft::consensus::{Consensus, Role};
use crate::storage::store::Store;

/// How often the clocks are sampled when nobody looks at them.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);
/// The most that one sample adds to the time in office.
const SAMPLE_MAX: Duration = Duration::from_secs(1);
/// A step of the system clock that is not believed.
const STEP_MAX: Duration = Duration::from_secs(60);

/// The clocks of a leader at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub term: u64,
    pub lease_time_ms: u64,
    pub wall_time_ms: u64,
}

/// A member's clocks; all who look at them see the same ones.
#[derive(Clone)]
pub struct Clock {
    clocks: Arc<Mutex<Clocks>>,
    consensus: Consensus,
    state: Arc<Store>,
}

impl Clock {
    /// Starts sampling; it ends with the engine.
    pub fn start(consensus: Consensus, state: Arc<Store>, metrics: Arc<Metrics>) -> Clock {
        let clocks = Clocks::new(Instant::now(), SystemTime::now());
        let clock = Clock {
            clocks: Arc::new(Mutex::new(clocks)),
            consensus,
            state,
        };
        tokio::spawn(clock.clone().run(metrics));
        clock
    }

    /// What an entry proposed now is stamped with; none while this member does not lead.
    pub fn stamp(&self) -> Option<Stamp> {
        let term = match self.consensus.role() {
            Role::Leads { term } => Some(term),
            Role::Follows { .. } => None,
        };
        let applied = self
            .state
            .read(|state| (state.lease_time_ms(), state.wall_time_ms()));
        self.lock()
            .sample(term, applied, Instant::now(), SystemTime::now())
    }

    async fn run(self, metrics: Arc<Metrics>) {
        let mut role = self.consensus.watch_role();
        let mut sample = tokio::time::interval(SAMPLE_EVERY);
        sample.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = sample.tick() => {}
                changed = role.changed() => if changed.is_err() { return },
            }
            self.stamp();
            let refused = self.lock().step_refused;
            metrics
                .gauges
                .clock_step_refused_ms
                .set(refused.as_millis() as u64);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Clocks> {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One term in office.
#[derive(Debug)]
struct Office {
    term: u64,
    lease_base_ms: u64,
    lasted: Duration,
}

#[derive(Debug)]
struct Clocks {
    sampled_at: Instant,
    /// Since 1970; never goes back.
    wall: Duration,
    /// Where the system clock is expected: it goes on by monotonic time, also while `wall` waits for a
    /// system clock that was set back.
    expected: Duration,
    /// How far the system clock is ahead of what is believed; zero when it is believed.
    step_refused: Duration,
    office: Option<Office>,
}

impl Clocks {
    /// A system clock is believed once, when the process starts: nothing is known to hold against it.
    fn new(now: Instant, system: SystemTime) -> Clocks {
        let system = since_1970(system);
        Clocks {
            sampled_at: now,
            wall: system,
            expected: system,
            step_refused: Duration::ZERO,
            office: None,
        }
    }

    /// Advances the clocks. `applied` are those of the state, (lease time, wall time); `term` is that of
    /// the office held.
    fn sample(
        &mut self,
        term: Option<u64>,
        applied: (u64, u64),
        now: Instant,
        system: SystemTime,
    ) -> Option<Stamp> {
        let elapsed = now.saturating_duration_since(self.sampled_at);
        self.sampled_at = self.sampled_at.max(now);
        self.sample_wall(
            elapsed,
            Duration::from_millis(applied.1),
            since_1970(system),
        );
        let Some(term) = term else {
            self.office = None;
            return None;
        };
        let office = match &mut self.office {
            Some(office) if office.term == term => {
                office.lasted += elapsed.min(SAMPLE_MAX);
                office
            }
            begun => begun.insert(Office {
                term,
                lease_base_ms: applied.0,
                lasted: Duration::ZERO,
            }),
        };
        Some(Stamp {
            term,
            lease_time_ms: office.lease_base_ms + office.lasted.as_millis() as u64,
            wall_time_ms: self.wall.as_millis() as u64,
        })
    }

    fn sample_wall(&mut self, elapsed: Duration, applied: Duration, system: Duration) {
        self.expected = (self.expected + elapsed).max(applied);
        let ahead = system.saturating_sub(self.expected);
        let believed = if ahead > STEP_MAX {
            self.step_refused = ahead;
            self.expected
        } else {
            self.step_refused = Duration::ZERO;
            self.expected = self.expected.max(system);
            system
        };
        self.wall = self.wall.max(believed).max(applied);
    }
}

fn since_1970(system: SystemTime) -> Duration {
    system.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The system clock as it stands, for what people and retention compare. Nothing that entries are stamped with.
pub fn now_ms() -> u64 {
    unix_ms(SystemTime::now())
}

/// Milliseconds since 1970; 0 before.
pub fn unix_ms(system: SystemTime) -> u64 {
    since_1970(system).as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000_000;
    const HOUR: u64 = 3_600_000;

    /// Clocks that a test moves, of a member that has just started.
    struct Rig {
        clocks: Clocks,
        now: Instant,
        system_ms: u64,
        applied: (u64, u64),
    }

    impl Rig {
        fn new() -> Rig {
            let now = Instant::now();
            Rig {
                clocks: Clocks::new(now, UNIX_EPOCH + Duration::from_millis(START)),
                now,
                system_ms: START,
                applied: (0, 0),
            }
        }

        /// Time goes on for both clocks of the machine.
        fn pass(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
            self.system_ms += ms;
        }

        fn sample(&mut self, term: Option<u64>) -> Option<Stamp> {
            let system = UNIX_EPOCH + Duration::from_millis(self.system_ms);
            self.clocks.sample(term, self.applied, self.now, system)
        }

        fn lead(&mut self) -> Stamp {
            self.sample(Some(1)).expect("a leader has clocks")
        }

        fn refused_ms(&self) -> u64 {
            self.clocks.step_refused.as_millis() as u64
        }
    }

    #[test]
    fn lease_time_continues_from_the_state_and_counts_time_in_office() {
        let mut rig = Rig::new();
        rig.applied = (5_000, 0);
        assert_eq!(rig.sample(None), None);
        rig.pass(10_000);
        rig.lead();
        rig.pass(250);
        let stamp = rig.lead();
        assert_eq!(stamp.lease_time_ms, 5_250);
        assert_eq!(stamp.wall_time_ms, START + 10_250);
        rig.applied = (5_250, START + 10_250);
        rig.pass(500);
        let next_term = rig.sample(Some(2)).unwrap();
        assert_eq!(next_term.lease_time_ms, 5_250, "a new office begins anew");
    }

    #[test]
    fn a_paused_process_counts_a_second_at_most() {
        let mut rig = Rig::new();
        rig.lead();
        rig.pass(30_000);
        assert_eq!(rig.lead().lease_time_ms, 1_000);
    }

    #[test]
    fn thirty_seconds_of_silence_count_as_thirty_when_sampled() {
        let mut rig = Rig::new();
        rig.lead();
        for _ in 0..120 {
            rig.pass(250);
            rig.lead();
        }
        assert_eq!(rig.lead().lease_time_ms, 30_000);
    }

    #[test]
    fn wall_time_never_goes_back_and_takes_no_step_over_a_minute() {
        let mut rig = Rig::new();
        rig.applied = (0, START + 10_000);
        assert_eq!(rig.lead().wall_time_ms, START + 10_000);
        rig.system_ms = START + HOUR;
        assert_eq!(rig.lead().wall_time_ms, START + 10_000);
        assert_eq!(rig.refused_ms(), HOUR - 10_000);
        rig.system_ms = START + 20_000;
        assert_eq!(rig.lead().wall_time_ms, START + 20_000);
        assert_eq!(rig.refused_ms(), 0);
    }

    #[test]
    fn a_step_that_was_seen_while_following_is_not_taken_in_office_either() {
        let mut rig = Rig::new();
        rig.sample(None);
        rig.pass(250);
        rig.system_ms += HOUR;
        rig.sample(None);
        rig.pass(250);
        assert_eq!(rig.lead().wall_time_ms, START + 500);
        assert_eq!(rig.refused_ms(), HOUR);
    }

    #[test]
    fn wall_time_loses_nothing_to_samples_while_a_step_is_refused() {
        let mut rig = Rig::new();
        rig.system_ms += HOUR;
        for _ in 0..10_000 {
            rig.now += Duration::from_micros(100);
            rig.lead();
        }
        assert_eq!(rig.lead().wall_time_ms, START + 1_000);
    }

    #[test]
    fn a_clock_that_was_set_back_may_return_to_where_it_belongs() {
        let mut rig = Rig::new();
        rig.lead();
        rig.system_ms -= HOUR;
        rig.pass(600_000);
        assert_eq!(rig.lead().wall_time_ms, START, "it waits");
        rig.system_ms += HOUR;
        assert_eq!(rig.lead().wall_time_ms, START + 600_000);
        assert_eq!(rig.refused_ms(), 0);
    }
}
