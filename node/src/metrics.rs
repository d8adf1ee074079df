//! Every metric of a member, named in one place. Labels are bounded: operations, reasons of the error
//! table and states of a task; never a namespace, queue or id.

use std::fmt::Write;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge as AnyGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

pub type Gauge = AnyGauge<u64, AtomicU64>;

/// What a client can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Create,
    CreateBatch,
    Claim,
    Extend,
    Complete,
    Fail,
    Release,
    SettleBatch,
    Get,
    List,
    QueueStats,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "create",
            Operation::CreateBatch => "create_batch",
            Operation::Claim => "claim",
            Operation::Extend => "extend",
            Operation::Complete => "complete",
            Operation::Fail => "fail",
            Operation::Release => "release",
            Operation::SettleBatch => "settle_batch",
            Operation::Get => "get",
            Operation::List => "list",
            Operation::QueueStats => "queue_stats",
        }
    }
}

impl EncodeLabelValue for Operation {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    operation: Operation,
    /// OK, or a reason of the error table.
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOperation {
    operation: Operation,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

fn latency() -> Histogram {
    // 250 µs to 65 s, the longest wait of a claim.
    Histogram::new(exponential_buckets(0.000_25, 2.0, 19))
}

macro_rules! gauges {
    ($($(#[$doc:meta])* $field:ident: $name:literal, $help:literal;)*) => {
        /// Values that others set: as they change, or when a scrape asks for them.
        #[derive(Debug, Default)]
        pub struct Gauges {
            $(pub $field: Gauge,)*
        }

        impl Gauges {
            fn register(&self, registry: &mut Registry) {
                $(registry.register($name, $help, self.$field.clone());)*
            }
        }
    };
}

gauges! {
    queues: "queues", "Queues of the store";
    payload_bytes: "payload_bytes", "Payload bytes of tasks that are not finished, on the disk and on their way to it";
    waiters: "waiters", "Claims parked on this member";
    proposals_waiting: "proposals_waiting", "Commands waiting for the next entry";
    forwards: "forwards_in_flight", "Requests of clients that this member has forwarded to the leader";
    connections: "connections", "Open connections of clients";
    ready: "ready", "1 once this member has caught up since its start";
    term: "raft_term", "Raft term";
    leader: "raft_leader_id", "Member id of the leader, 0 when none is known";
    leads: "raft_leads", "1 while this member leads";
    last_log_index: "raft_last_log_index", "Index of the last entry in the log";
    committed_index: "raft_committed_index", "Index of the last committed entry";
    applied_index: "raft_applied_index", "Index of the last applied entry";
    snapshot_index: "raft_snapshot_index", "Index of the newest snapshot";
    log_bytes: "log_bytes", "Bytes of the log on disk, reserved segments included";
    log_live_bytes: "log_live_bytes", "Bytes of the log since the last purge";
    log_shipped_index: "log_shipped_index", "Index of the last entry that this member has shipped to a bucket; 0 while it ships none";
    log_unshipped_ms: "log_unshipped_milliseconds", "What a disaster would lose now, by the store's clock, while this member ships its log; everything until the bucket has answered";
    image_lag_entries: "image_lag_entries", "Entries applied that the image does not hold yet; all of them while it is rebuilt";
    image_dirty_bytes: "image_dirty_bytes", "Bytes held in memory for the next batch of the image";
    resident_bytes: "resident_bytes", "Memory of the process, the image's cache included";
    disk_high_water: "disk_high_water", "1 while this member's disk is nearly full";
    clock_step_refused_ms: "clock_step_refused_milliseconds", "Step of the system clock that is not believed";
    feature_level: "feature_level", "Feature level that the cluster runs at";
}

pub struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    request_seconds: Family<OfOperation, Histogram, fn() -> Histogram>,
    tasks: Family<OfState, Gauge>,
    pub gauges: Gauges,
    /// Commands gathered into one Raft entry.
    pub entry_commands: Histogram,
    /// Time from a proposal to its outcome.
    pub commit_seconds: Histogram,
    /// One write and one fdatasync of the log.
    pub log_flush_seconds: Histogram,
    pub log_torn_frames: Counter,
    /// One batch of the image, its wait for the log's flush included.
    pub image_batch_seconds: Histogram,
    pub snapshots: Counter,
    pub connections_refused: Counter,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("taskstore"),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(latency),
            tasks: Family::default(),
            gauges: Gauges::default(),
            entry_commands: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            commit_seconds: latency(),
            log_flush_seconds: latency(),
            log_torn_frames: Counter::default(),
            image_batch_seconds: latency(),
            snapshots: Counter::default(),
            connections_refused: Counter::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "requests",
            "Requests answered, by operation and code",
            metrics.requests.clone(),
        );
        registry.register(
            "request_seconds",
            "Time from a request to its answer, waits of claims included",
            metrics.request_seconds.clone(),
        );
        registry.register(
            "tasks",
            "Tasks by state, finished rows included",
            metrics.tasks.clone(),
        );
        metrics.gauges.register(registry);
        registry.register(
            "entry_commands",
            "Commands in one Raft entry",
            metrics.entry_commands.clone(),
        );
        registry.register(
            "commit_seconds",
            "Time from a proposal to its outcome",
            metrics.commit_seconds.clone(),
        );
        registry.register(
            "log_flush_seconds",
            "One write and fdatasync of the log",
            metrics.log_flush_seconds.clone(),
        );
        registry.register(
            "log_torn_frames",
            "Unacknowledged last frames cut at start, after a power cut",
            metrics.log_torn_frames.clone(),
        );
        registry.register(
            "image_batch_seconds",
            "One batch of the image, its wait for the log's flush included",
            metrics.image_batch_seconds.clone(),
        );
        registry.register("snapshots", "Snapshots cut", metrics.snapshots.clone());
        registry.register(
            "connections_refused",
            "Connections of clients closed before their first request",
            metrics.connections_refused.clone(),
        );
        metrics
    }
}

impl Metrics {
    pub fn answered(&self, operation: Operation, code: &'static str, took: Duration) {
        self.requests
            .get_or_create(&Answered { operation, code })
            .inc();
        self.request_seconds
            .get_or_create(&OfOperation { operation })
            .observe(took.as_secs_f64());
    }

    /// `state` is one of the six states in lower case.
    pub fn set_tasks(&self, state: &'static str, tasks: u64) {
        self.tasks.get_or_create(&OfState { state }).set(tasks);
    }

    /// In the text format of OpenMetrics.
    pub fn text(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)
            .expect("a String takes everything that is written to it");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_operations_codes_and_states() {
        let metrics = Metrics::default();
        metrics.answered(Operation::Create, "OK", Duration::from_millis(3));
        metrics.answered(Operation::Create, "QUOTA", Duration::from_millis(3));
        metrics.set_tasks("available", 7);
        metrics.gauges.applied_index.set(41);
        metrics.entry_commands.observe(12.0);
        let text = metrics.text();
        for line in [
            r#"taskstore_requests_total{operation="create",code="OK"} 1"#,
            r#"taskstore_requests_total{operation="create",code="QUOTA"} 1"#,
            r#"taskstore_request_seconds_count{operation="create"} 2"#,
            r#"taskstore_tasks{state="available"} 7"#,
            "taskstore_raft_applied_index 41",
            "taskstore_entry_commands_count 1",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is missing in\n{text}"
            );
        }
    }
}
