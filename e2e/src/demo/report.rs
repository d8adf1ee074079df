//! The demo's table and verdict.

use super::index::Totals;
use super::tally::Call;
use super::work::{Held, Job};
use crds::status::MemberStatus;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// Who died, who followed, and how long no write was acknowledged around it.
#[derive(Debug, Default)]
pub struct Kills {
    pub leader_before: String,
    pub leader_after: String,
    pub leader_gap: Duration,
    pub operator_before: String,
    pub operator_after: String,
    pub operator_gap: Duration,
}

pub struct Report {
    pub job: Arc<Job>,
    pub held: Held,
    pub expected: Totals,
    pub kills: Kills,
    pub seconds: f64,
    pub ready_seconds: f64,
    pub members: Vec<MemberStatus>,
}

impl Report {
    /// Acknowledged and yet without a result.
    fn lost(&self) -> u64 {
        let counts = self.job.tally.counts();
        counts.created.saturating_sub(self.held.completed)
    }

    /// Results accepted beyond the first, by the store's own counter and by what workers were told.
    fn twice(&self) -> u64 {
        let beyond = self.held.stats.completed_total.saturating_sub(self.tasks());
        beyond.max(self.job.tally.counts().twice)
    }

    fn tasks(&self) -> u64 {
        self.job.stanzas.len() as u64
    }

    pub fn is_good(&self) -> bool {
        self.lost() == 0
            && self.twice() == 0
            && self.held.completed == self.tasks()
            && self.held.totals == self.expected
    }

    pub fn last_line(&self) -> String {
        format!(
            "tasks={} settled={} lost={} twice={}",
            self.tasks(),
            self.held.completed,
            self.lost(),
            self.twice()
        )
    }

    /// What repeated runs compare.
    pub fn figures(&self) -> [(&'static str, f64); 3] {
        let gap_ms = |gap: Duration| gap.as_secs_f64() * 1e3;
        [
            ("demo_seconds", self.seconds),
            (
                "demo_leader_kill_write_gap_ms",
                gap_ms(self.kills.leader_gap),
            ),
            (
                "demo_operator_kill_write_gap_ms",
                gap_ms(self.kills.operator_gap),
            ),
        ]
    }

    pub fn table(&self) -> String {
        let mut text = String::from("\n");
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<32} {value}");
        };
        row("tasks", self.tasks().to_string());
        row("apply to Ready", format!("{:.1} s", self.ready_seconds));
        row(
            "create + claim + complete",
            format!(
                "{:.0} cycles per second ({:.1} s)",
                self.tasks() as f64 / self.seconds,
                self.seconds
            ),
        );
        for call in Call::ALL {
            let ([p50, p99, worst], calls) = self.job.tally.times(call);
            row(
                &format!("{} (batches of up to 50)", call.name()),
                format!("p50 {p50:.1} ms  p99 {p99:.1} ms  max {worst:.0} ms  ({calls} calls)"),
            );
        }
        let gap = |gap: Duration| format!("{:.0} ms", gap.as_secs_f64() * 1e3);
        let kills = &self.kills;
        row("write gap at the leader's kill", gap(kills.leader_gap));
        row("write gap at the operator's kill", gap(kills.operator_gap));
        row(
            "who led",
            format!("{}, then {}", kills.leader_before, kills.leader_after),
        );
        row(
            "which operator acted",
            format!("{}, then {}", kills.operator_before, kills.operator_after),
        );
        for member in &self.members {
            let place = |place: &Option<String>| place.clone().unwrap_or_default();
            row(
                &format!("member {}", member.pod),
                format!(
                    "{:?}, {:?}, on {} in {}",
                    member.role,
                    member.health,
                    place(&member.node),
                    place(&member.zone)
                ),
            );
        }
        let counts = self.job.tally.counts();
        row(
            "leases that ran out, refused",
            format!("{}, {}", self.held.abandonments, counts.leases_lost),
        );
        row("totals of the results", show(&self.held.totals));
        row("totals of the direct pass", show(&self.expected));
        text
    }
}

fn show(totals: &Totals) -> String {
    format!(
        "{} packages, {} KiB installed, {} bytes to load, {} dependencies, digest {:016x}",
        totals.packages,
        totals.installed_kib,
        totals.download_bytes,
        totals.dependencies,
        totals.digest
    )
}
