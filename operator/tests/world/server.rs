//! An operator's context before an API server that a test answers for.

use operator::clients::members::Members;
use operator::clients::orders::Orders;
use operator::context::Context;
use operator::events::Events;
use operator::leadership::Role;
use operator::metrics::Metrics;

/// No member is connected, and the operator leads.
pub async fn context(answers: axum::Router) -> Context {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, answers).await });
    let config = kube::Config::new(format!("http://{address}").parse().unwrap());
    let client = kube::Client::try_from(config).unwrap();
    let (wake, _) = tokio::sync::mpsc::channel(1);
    let (_, role) = tokio::sync::watch::channel(Role::Leading);
    Context::new(
        client.clone(),
        Members::new(wake.clone()),
        Orders::new(wake),
        Metrics::default(),
        Events::new(client, "test".into()),
        role,
        "taskstore:1".into(),
    )
}
