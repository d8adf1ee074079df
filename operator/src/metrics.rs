//! What the operator counts. No label carries a name of a cluster or a member: their number has no bound.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Done {
    action: &'static str,
    outcome: &'static str,
}

#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    reconciles: Family<Outcome, Counter>,
    actions: Family<Done, Counter>,
    seconds: Histogram,
    leads: Gauge<i64, std::sync::atomic::AtomicI64>,
    status_writes: Counter<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(|| Duration::ZERO)
    }
}

/// Asked with each scrape.
struct Unshipped<F>(F);

impl<F> fmt::Debug for Unshipped<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unshipped")
    }
}

impl<F: Fn() -> Duration + Send + Sync + 'static> Collector for Unshipped<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauge = ConstGauge::new((self.0)().as_secs_f64());
        let help = "How long the log of some cluster is not shipped although it is to be, the longest of all: a \
                    disaster would lose what was written since";
        let encoder = encoder.encode_descriptor(
            "log_unshipped",
            help,
            Some(&Unit::Seconds),
            gauge.metric_type(),
        )?;
        gauge.encode(encoder)
    }
}

impl Metrics {
    pub fn new(unshipped: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        let mut registry = Registry::with_prefix("taskstore_operator");
        let reconciles = Family::<Outcome, Counter>::default();
        let actions = Family::<Done, Counter>::default();
        // 0.5 ms to 16 s.
        let seconds = Histogram::new(exponential_buckets(0.0005, 2.0, 16));
        let leads = Gauge::default();
        let status_writes = Counter::default();
        registry.register(
            "reconciles",
            "Passes over a cluster, by how they ended",
            reconciles.clone(),
        );
        registry.register("actions", "Effects, by kind and outcome", actions.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "How long a pass took",
            Unit::Seconds,
            seconds.clone(),
        );
        registry.register(
            "leads",
            "1 while this process acts, 0 while it stands by",
            leads.clone(),
        );
        registry.register(
            "status_writes",
            "Status updates sent",
            status_writes.clone(),
        );
        registry.register_collector(Box::new(Unshipped(unshipped)));
        Self {
            registry: Arc::new(registry),
            reconciles,
            actions,
            seconds,
            leads,
            status_writes,
        }
    }
}

impl Metrics {
    pub fn reconciled(&self, outcome: &'static str, took: Duration) {
        self.reconciles.get_or_create(&Outcome { outcome }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    pub fn action(&self, action: &'static str, is_ok: bool) {
        let outcome = if is_ok { "ok" } else { "failed" };
        self.actions.get_or_create(&Done { action, outcome }).inc();
    }

    pub fn leads(&self, leads: bool) {
        self.leads.set(i64::from(leads));
    }

    pub fn status_written(&self) {
        self.status_writes.inc();
    }

    /// The text that a scrape gets.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }
}
