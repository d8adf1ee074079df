//! The rules of the election, without a client or a clock.

use std::time::{Duration, Instant};

/// What a Lease says, as far as the election reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its resourceVersion: any write, of anybody, changes it.
    pub version: String,
    pub holder: Option<String>,
    pub term: Duration,
}

/// A record, and when we first saw it in this version, on our own monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub record: Record,
    pub since: Instant,
}

impl Observed {
    pub fn first(record: Record, now: Instant) -> Self {
        Self { record, since: now }
    }

    /// The same version seen again keeps its age; that is how silence is measured.
    pub fn then(self, record: Record, now: Instant) -> Self {
        if record.version == self.record.version {
            self
        } else {
            Self { record, since: now }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Create,
    Take,
    Renew,
    Stand { until: Instant },
}

/// What `me` does about the Lease now.
pub fn decide(me: &str, seen: Option<&Observed>, now: Instant) -> Decision {
    let Some(seen) = seen else {
        return Decision::Create;
    };
    match seen.record.holder.as_deref() {
        None => Decision::Take,
        Some(holder) if holder == me => Decision::Renew,
        Some(_) => {
            let until = seen.since + seen.record.term;
            if now >= until {
                Decision::Take
            } else {
                Decision::Stand { until }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leadership::{RENEW_DEADLINE, RETRY_EVERY, TERM};

    fn record(version: &str, holder: Option<&str>) -> Record {
        Record {
            version: version.into(),
            holder: holder.map(Into::into),
            term: TERM,
        }
    }

    #[test]
    fn an_absent_lease_is_created_and_a_released_one_taken_at_once() {
        let now = Instant::now();
        assert_eq!(decide("a", None, now), Decision::Create);
        let released = Observed::first(record("1", None), now);
        assert_eq!(decide("a", Some(&released), now), Decision::Take);
    }

    #[test]
    fn another_holder_is_left_alone_until_its_term_passed_without_a_write() {
        let start = Instant::now();
        let seen = Observed::first(record("1", Some("b")), start);
        let until = start + TERM;
        let just_before = until - Duration::from_millis(1);
        assert_eq!(
            decide("a", Some(&seen), just_before),
            Decision::Stand { until }
        );
        assert_eq!(decide("a", Some(&seen), until), Decision::Take);
    }

    #[test]
    fn a_renewal_restarts_the_count_and_the_same_version_does_not() {
        let start = Instant::now();
        let later = start + TERM / 2;
        let seen = Observed::first(record("1", Some("b")), start);
        let silent = seen.clone().then(record("1", Some("b")), later);
        assert_eq!(silent.since, start);
        let renewed = seen.then(record("2", Some("b")), later);
        assert_eq!(
            decide("a", Some(&renewed), start + TERM),
            Decision::Stand {
                until: later + TERM
            }
        );
    }

    #[test]
    fn our_own_lease_is_renewed_even_when_it_looks_expired() {
        let start = Instant::now();
        let seen = Observed::first(record("1", Some("a")), start);
        assert_eq!(decide("a", Some(&seen), start + TERM * 3), Decision::Renew);
    }

    #[test]
    fn a_leader_steps_down_before_anybody_else_may_take_over() {
        // Its last renewal left at most this long before the others saw it.
        assert!(RENEW_DEADLINE + RETRY_EVERY < TERM);
    }
}
