//! Where the store is and whom to trust there.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::tls::{ConnectError, Dialler, client_config, tcp};

const WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// While a call is under way, silence after which the member is asked for a sign of life, and its time to
/// give one: a member whose machine died says nothing, and its calls are to go on elsewhere soon.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(1);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The client port of one store.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// `host:port` each. The first is used while it answers; all members serve alike.
    pub addresses: Vec<String>,
    pub trust: Trust,
}

#[derive(Debug, Clone)]
pub enum Trust {
    /// No TLS: `taskstore dev` on a laptop.
    Plain,
    Tls {
        ca_pem: String,
        /// The name in the certificate, where it is not the address's host.
        server_name: Option<String>,
    },
}

pub(crate) fn channels(endpoints: &Endpoints) -> Result<Vec<Channel>, ConnectError> {
    if endpoints.addresses.is_empty() {
        return Err(ConnectError::Settings("no address is given".to_owned()));
    }
    let Trust::Tls {
        ca_pem,
        server_name,
    } = &endpoints.trust
    else {
        return Ok(endpoints
            .addresses
            .iter()
            .map(|address| plain(address.clone()))
            .collect());
    };
    let config = Arc::new(client_config(ca_pem, None, rustls::ALL_VERSIONS)?);
    let channel = |address: &String| {
        let host = address
            .rsplit_once(':')
            .map_or(address.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = server_name.as_deref().unwrap_or(host);
        let dialler = Dialler::new(address, name, config.clone())?;
        let connector = tower::service_fn(move |_: Uri| dialler.clone().dial());
        Ok(endpoint().connect_with_connector_lazy(connector))
    };
    endpoints.addresses.iter().map(channel).collect()
}

fn plain(address: String) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let address = address.clone();
        async move { Ok::<_, ConnectError>(TokioIo::new(tcp(&address).await?)) }
    });
    endpoint().connect_with_connector_lazy(connector)
}

fn endpoint() -> Endpoint {
    // The connector knows address and encryption; this names the authority only.
    Endpoint::from_static("http://taskstore")
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(false)
}
