//! One line per step on standard error, with its time; a long step says every 10 s that it lives.

use anyhow::{Context, Result};
use std::future::Future;
use std::time::{Duration, Instant};

const STILL_ALIVE_EVERY: Duration = Duration::from_secs(10);

/// Runs a step under a name that also opens its error.
pub async fn step<T>(name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let start = Instant::now();
    tokio::pin!(work);
    let mut ticks = tokio::time::interval_at((start + STILL_ALIVE_EVERY).into(), STILL_ALIVE_EVERY);
    loop {
        tokio::select! {
            done = &mut work => {
                let seconds = start.elapsed().as_secs_f64();
                match &done {
                    Ok(_) => say(&format!("{name:<52} {seconds:>6.1} s")),
                    Err(_) => say(&format!("{name:<52} {seconds:>6.1} s  FAILED")),
                }
                return done.with_context(|| name.to_owned());
            }
            _ = ticks.tick() => say(&format!("… {name}, {:.0} s so far", start.elapsed().as_secs_f64())),
        }
    }
}

pub fn say(text: &str) {
    eprintln!("  {text}");
}
