//! What the demo's producers and workers saw: who was acknowledged, how fast, and where it was silent.

use hdrhistogram::Histogram;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Calls are timed up to a minute, to three digits.
const CALL_MICROSECONDS_MAX: u64 = 60_000_000;

/// The calls that the demo makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Create,
    Claim,
    Complete,
}

impl Call {
    pub const ALL: [Call; 3] = [Call::Create, Call::Claim, Call::Complete];

    pub fn name(self) -> &'static str {
        match self {
            Call::Create => "create",
            Call::Claim => "claim",
            Call::Complete => "complete",
        }
    }
}

pub struct Tally {
    times: [Mutex<Histogram<u64>>; 3],
    silence: Mutex<Silence>,
    created: AtomicU64,
    /// Token of the settle that was acknowledged, by the task's number less one; 0 for none.
    settled_by: Vec<AtomicU64>,
    twice: AtomicU64,
    leases_lost: AtomicU64,
    /// Tasks with an acknowledged settle.
    pub settled: watch::Sender<u64>,
}

struct Silence {
    last: Instant,
    longest: Duration,
}

impl Tally {
    pub fn new(tasks: usize) -> Self {
        let histogram = || {
            let times = Histogram::new_with_max(CALL_MICROSECONDS_MAX, 3);
            Mutex::new(times.expect("the bounds are constant and in range"))
        };
        Self {
            times: [histogram(), histogram(), histogram()],
            silence: Mutex::new(Silence {
                last: Instant::now(),
                longest: Duration::ZERO,
            }),
            created: AtomicU64::new(0),
            settled_by: (0..tasks).map(|_| AtomicU64::new(0)).collect(),
            twice: AtomicU64::new(0),
            leases_lost: AtomicU64::new(0),
            settled: watch::Sender::new(0),
        }
    }

    /// A call that began then was answered now.
    pub fn answered(&self, call: Call, began: Instant) {
        let microseconds = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        lock(&self.times[call as usize]).saturating_record(microseconds);
        // A claim may wait for tasks; only the others are writes for sure.
        if call != Call::Claim {
            let mut silence = lock(&self.silence);
            let now = Instant::now();
            silence.longest = silence.longest.max(now - silence.last);
            silence.last = now;
        }
    }

    pub fn created(&self, tasks: u64) {
        self.created.fetch_add(tasks, Ordering::Relaxed);
    }

    /// The store acknowledged a settle of this task under this token.
    pub fn settled(&self, number: usize, token: u64) {
        let before = self.settled_by[number - 1].swap(token, Ordering::Relaxed);
        if before == 0 {
            self.settled.send_modify(|settled| *settled += 1);
        } else if before != token {
            self.twice.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn lease_lost(&self) {
        self.leases_lost.fetch_add(1, Ordering::Relaxed);
    }

    /// The longest time between two acknowledged writes since the last look.
    pub fn take_silence(&self) -> Duration {
        std::mem::take(&mut lock(&self.silence).longest)
    }

    /// p50, p99 and largest, in milliseconds, and how many there were.
    pub fn times(&self, call: Call) -> ([f64; 3], u64) {
        let times = lock(&self.times[call as usize]);
        let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
        ([at(0.5), at(0.99), at(1.0)], times.len())
    }

    pub fn counts(&self) -> Counts {
        Counts {
            created: self.created.load(Ordering::Relaxed),
            settled: *self.settled.borrow(),
            twice: self.twice.load(Ordering::Relaxed),
            leases_lost: self.leases_lost.load(Ordering::Relaxed),
        }
    }
}

/// Acknowledged to the demo's own producers and workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub created: u64,
    pub settled: u64,
    /// Settles of one task that were accepted under two tokens.
    pub twice: u64,
    pub leases_lost: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
