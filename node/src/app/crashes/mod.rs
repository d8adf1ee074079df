//! Crash at every step: before and after each operation that changes a file, the volume as it stands is
//! started again, also as a power cut would have left it, and must hold what was acknowledged and nothing that
//! was never asked for. The starts are crashed at their steps too.
//!
//! A kill leaves the kernel's memory, so a copy of the volume at that moment is what the next process finds.
//! What a power cut does inside the log's files, sector by sector, is tried beside the log.
//!
//! `CRASH_SCENARIO=load` runs one scenario. `CRASH_WITHOUT_SYNC=CutSync` leaves out the fsyncs of one step, to see
//! whether anything misses them.

pub mod history;
pub mod lab;
pub mod member;
pub mod promises;
mod recorder;
pub mod restores;
pub mod rewrites;
mod scenarios;
pub mod volume;

use crate::storage::step::Step;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_crashed_at_any_step_starts_again_with_what_was_acknowledged() {
    let report = scenarios::run_all().await;
    let is_whole = std::env::var(scenarios::ONLY).is_err();
    let never: Vec<_> = Step::ALL
        .iter()
        .filter(|step| !report.steps.contains_key(step))
        .collect();
    println!(
        "crash steps: scenarios={} steps={} of {} crashes={} restarts={} wrong={}",
        report.scenarios,
        report.steps.len(),
        Step::ALL.len(),
        report.crashes,
        report.starts,
        report.wrong.len()
    );
    for wrong in report.wrong.iter().take(40) {
        println!("{wrong}");
    }
    assert!(report.wrong.is_empty(), "{} of them", report.wrong.len());
    assert!(never.is_empty() || !is_whole, "never crashed: {never:?}");
}
