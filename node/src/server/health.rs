//! The health port, plain HTTP for kubelets and scrapers: `/live`, `/ready` and `/metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::watch;

use crate::member::Readiness;
use crate::metrics::Metrics;

#[derive(Clone)]
pub struct Health {
    pub readiness: watch::Receiver<Readiness>,
    pub metrics: Arc<Metrics>,
    /// Sets the gauges right before they are read.
    pub refresh: Arc<dyn Fn(&Metrics) + Send + Sync>,
}

pub fn router(health: Health) -> axum::Router {
    axum::Router::new()
        .route("/live", get(|| async { "the runtime ticks\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn ready(State(health): State<Health>) -> (StatusCode, String) {
    match &*health.readiness.borrow() {
        Readiness::Ready => (StatusCode::OK, "ready\n".to_owned()),
        Readiness::NotReady(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn metrics(State(health): State<Health>) -> impl IntoResponse {
    (health.refresh)(&health.metrics);
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        [(header::CONTENT_TYPE, content_type)],
        health.metrics.text(),
    )
}
