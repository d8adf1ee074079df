//! Health and metrics over HTTP. Live: the runtime answers. Ready: the watches have been filled once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

#[derive(Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub async fn serve(
    address: SocketAddr,
    metrics: Metrics,
    ready: Readiness,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/live", get(|| async { "live" }))
        .route("/ready", get(readiness))
        .route("/metrics", get(text))
        .with_state((metrics, ready));
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn readiness(State((_, ready)): State<(Metrics, Readiness)>) -> (StatusCode, &'static str) {
    if ready.is_set() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "watches are being filled")
    }
}

async fn text(State((metrics, _)): State<(Metrics, Readiness)>) -> String {
    metrics.text()
}
