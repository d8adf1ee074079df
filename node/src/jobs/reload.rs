//! Takes renewed certificates into use without a restart. A half-written set keeps the old one.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::member::Member;
use crate::raft::transport::tls::Reloaded;
use crate::server::client_tls::ClientTls;

/// The kubelet renews mounted Secrets about once a minute.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Runs until `stop`.
pub async fn run(member: Arc<Member>, client_tls: Option<Arc<ClientTls>>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return,
        }
        match member.tls.reload(&member.config.tls_dir) {
            Ok(Reloaded::Changed) => tracing::info!("renewed certificates are in use"),
            Ok(Reloaded::Unchanged) => {}
            Err(error) => tracing::warn!(%error, "renewed certificates are not usable yet"),
        }
        if let Some(Err(error)) = client_tls.as_ref().map(|tls| tls.reload()) {
            tracing::warn!(
                error,
                "the renewed certificate of the client port is not usable yet"
            );
        }
    }
}
