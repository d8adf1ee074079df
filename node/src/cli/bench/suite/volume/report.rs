//! What the volume row has seen, for programs and for people.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cli::bench::store::look::DiskUse;
use crate::cli::bench::suite::ms;
use crate::limits::IMAGE_CACHE_BYTES;
use crate::process::Memory;

#[derive(Debug, Serialize)]
pub struct Line {
    pub workload: &'static str,
    pub tasks: usize,
    pub payload_bytes: usize,
    pub fdatasync_per_second: f64,
    pub load_seconds: f64,
    /// Batches that the store has refused for want of room, and that were sent again.
    pub refused_batches: u64,
    /// From the last acknowledged task until nothing was left to write.
    pub rest_seconds: f64,
    /// A follower's memory without tasks, and with all of them, at rest.
    pub idle: Memory,
    pub full: Memory,
    /// Of the rows alone, loaded from a snapshot by this program.
    pub rows_bytes: u64,
    pub disk: DiskUse,
    /// Log, image and snapshots of all members, for each byte that they were given.
    pub written_per_task_byte: f64,
    pub image_lag_entries_max: u64,
    pub image_dirty_bytes_max: u64,
    /// While tasks are created one by one and claimed.
    pub busy_lag_entries_max: u64,
    pub claim_alone: Latency,
    pub claim_under_creates: Latency,
    pub create_alone: Latency,
    pub create_during_cut: Latency,
    pub cut_seconds: f64,
    pub create_during_send: Latency,
    pub send_seconds: f64,
    pub with_image: Restart,
    pub without_image: Restart,
    pub errors: u64,
}

#[derive(Debug, Serialize)]
pub struct Latency {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub count: u64,
}

impl Latency {
    pub fn of(us: &Histogram<u64>) -> Latency {
        Latency {
            p50_ms: ms(us, 50.0),
            p99_ms: ms(us, 99.0),
            max_ms: us.max() as f64 / 1_000.0,
            count: us.len(),
        }
    }

    fn text(&self) -> String {
        let Latency {
            p50_ms,
            p99_ms,
            max_ms,
            ..
        } = self;
        format!("{p50_ms:.1}/{p99_ms:.1}/{max_ms:.0}")
    }
}

#[derive(Debug, Serialize)]
pub struct Restart {
    pub ready_seconds: f64,
    pub at_ready: Memory,
    /// Once nothing is left to write.
    pub at_rest: Memory,
}

impl Line {
    pub fn print_json(&self) {
        let json = serde_json::to_string(self).expect("a line holds nothing that JSON cannot");
        println!("{json}");
    }

    /// Latencies are p50, p99 and the longest, in milliseconds.
    pub fn print_text(&self) {
        let say = |words: String| println!("{:<16} {words}", "");
        println!(
            "{:<16} {} pending tasks of {} bytes in {:.1} s, {:.0}/s; {} batches sent again",
            self.workload,
            self.tasks,
            self.payload_bytes,
            self.load_seconds,
            self.tasks as f64 / self.load_seconds,
            self.refused_batches,
        );
        say(format!(
            "memory: {} bytes a task of a member ({} MiB resident, {} of them heap; {} without tasks)",
            self.a_task(self.full.resident_bytes),
            mib(self.full.resident_bytes),
            mib(self.full.anonymous_bytes),
            mib(self.idle.resident_bytes),
        ));
        say(format!(
            "  rows alone {} bytes a task; the image is given {} MiB of cache; started again {} with the image, {} without",
            self.rows_bytes / self.tasks as u64,
            mib(IMAGE_CACHE_BYTES),
            self.a_task(self.with_image.at_rest.resident_bytes),
            self.a_task(self.without_image.at_rest.resident_bytes),
        ));
        say(format!(
            "disk: log {} MiB, snapshots {}, image {}; {:.1} bytes written for each of a task",
            mib(self.disk.log_bytes),
            mib(self.disk.snapshot_bytes),
            mib(self.disk.image_bytes),
            self.written_per_task_byte,
        ));
        say(format!(
            "image: at most {} entries and {} MiB behind, at rest after {:.1} s; {} entries under single creates",
            self.image_lag_entries_max,
            mib(self.image_dirty_bytes_max),
            self.rest_seconds,
            self.busy_lag_entries_max,
        ));
        say(format!(
            "claim ms: {} alone, {} beside creates",
            self.claim_alone.text(),
            self.claim_under_creates.text(),
        ));
        say(format!(
            "create ms: {} alone, {} while a snapshot is cut ({:.1} s), {} while one is sent ({:.1} s)",
            self.create_alone.text(),
            self.create_during_cut.text(),
            self.cut_seconds,
            self.create_during_send.text(),
            self.send_seconds,
        ));
        say(format!(
            "restart to ready: {:.1} s with the image, {:.1} s without",
            self.with_image.ready_seconds, self.without_image.ready_seconds,
        ));
    }

    fn a_task(&self, resident_bytes: u64) -> u64 {
        resident_bytes.saturating_sub(self.idle.resident_bytes) / self.tasks as u64
    }
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}
