//! The rows: one object each for programs, one table for people.

use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct Line {
    pub workload: String,
    pub protocol: &'static str,
    pub members: usize,
    pub clients: usize,
    pub batch: usize,
    pub payload_bytes: usize,
    pub cycles_per_second: f64,
    pub create_p50_ms: f64,
    pub create_p99_ms: f64,
    pub errors: u64,
    pub fdatasync_per_second: f64,
    /// The most that one member held during the row; 0 for a store that was not started here.
    pub resident_bytes_max: u64,
    /// Of the leader's kill only: the longest time without an acknowledged create.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_gap_ms: Option<f64>,
    /// Of the snapshot row only: snapshots cut; the create's times are of those that overlap one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<usize>,
}

pub fn print_head() {
    println!(
        "{:<16} {:<5} {:>7} {:>5} {:>10} {:>9} {:>9} {:>6} {:>11} {:>7} {:>8}",
        "workload",
        "via",
        "clients",
        "batch",
        "tasks/s",
        "p50 ms",
        "p99 ms",
        "errors",
        "fdatasync/s",
        "RSS MiB",
        "p50/fd"
    );
}

impl Line {
    pub fn print_json(&self) {
        let json = serde_json::to_string(self).expect("a line holds nothing that JSON cannot");
        println!("{json}");
    }

    /// The last column is the create's p50 in units of one append and fdatasync.
    pub fn print_text(&self) {
        println!(
            "{:<16} {:<5} {:>7} {:>5} {:>10.0} {:>9.3} {:>9.3} {:>6} {:>11.0} {:>7} {:>7.1}x",
            self.workload,
            self.protocol,
            self.clients,
            self.batch,
            self.cycles_per_second,
            self.create_p50_ms,
            self.create_p99_ms,
            self.errors,
            self.fdatasync_per_second,
            self.resident_bytes_max >> 20,
            self.create_p50_ms * self.fdatasync_per_second / 1_000.0,
        );
        if let Some(snapshots) = self.snapshots {
            println!(
                "{:<16} {snapshots} snapshots; times of creates during one",
                ""
            );
        }
        if let Some(write_gap_ms) = self.write_gap_ms {
            println!(
                "{:<16} longest time without an acknowledged create: {write_gap_ms:.0} ms",
                ""
            );
        }
    }
}
