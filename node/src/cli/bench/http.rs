//! The same calls over HTTP/1.1 and JSON, on one kept connection, as a plain client would make them.

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use taskstore_api::tls::client_config;
use taskstore_api::{Endpoints, Trust};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub struct HttpClient {
    address: String,
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    sender: Option<SendRequest<Full<Bytes>>>,
    new_task: Value,
}

impl HttpClient {
    pub fn new(endpoints: &Endpoints, payload: &[u8]) -> anyhow::Result<HttpClient> {
        let address = endpoints
            .addresses
            .first()
            .context("no address is given")?
            .clone();
        let tls = match &endpoints.trust {
            Trust::Plain => None,
            Trust::Tls {
                ca_pem,
                server_name,
            } => {
                let mut config = client_config(ca_pem, None, rustls::ALL_VERSIONS)?;
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                let host = address
                    .rsplit_once(':')
                    .map_or(address.as_str(), |(host, _)| host);
                let name = server_name.clone().unwrap_or(host.to_owned());
                Some((Arc::new(config), ServerName::try_from(name)?))
            }
        };
        let new_task = json!({"payload": STANDARD.encode(payload)});
        Ok(HttpClient {
            address,
            tls,
            sender: None,
            new_task,
        })
    }

    pub async fn create(&mut self, queue: &str, batch: usize) -> anyhow::Result<()> {
        let path = format!(
            "/v1/namespaces/{}/queues/{queue}/tasks",
            super::load::NAMESPACE
        );
        if batch == 1 {
            return self.post(&path, self.new_task.to_string()).await.map(drop);
        }
        let tasks = json!({"tasks": vec![&self.new_task; batch]});
        self.post(&format!("{path}:batch"), tasks.to_string())
            .await
            .map(drop)
    }

    /// The number of tasks carried through.
    pub async fn claim_and_complete(
        &mut self,
        queue: &str,
        batch: usize,
        wait_ms: u64,
    ) -> anyhow::Result<u64> {
        let namespace = format!("/v1/namespaces/{}", super::load::NAMESPACE);
        let claim = json!({"tasks_max": batch, "wait_ms": wait_ms});
        let claimed = self
            .post(
                &format!("{namespace}/queues/{queue}/tasks:claim"),
                claim.to_string(),
            )
            .await?;
        let tasks = claimed["tasks"]
            .as_array()
            .context("a claim without tasks")?;
        if batch == 1 {
            let Some(claimed) = tasks.first() else {
                return Ok(0);
            };
            let id = claimed["task"]["id"]
                .as_str()
                .context("a task without id")?;
            let complete = json!({"lease_token": claimed["lease_token"]});
            self.post(
                &format!("{namespace}/tasks/{id}:complete"),
                complete.to_string(),
            )
            .await?;
            return Ok(1);
        }
        let settle = |claimed: &Value| json!({"complete": {"id": claimed["task"]["id"], "lease_token": claimed["lease_token"]}});
        let settles: Vec<_> = tasks.iter().map(settle).collect();
        let count = settles.len() as u64;
        if count > 0 {
            let settles = json!({"settles": settles});
            self.post(&format!("{namespace}/tasks:settle"), settles.to_string())
                .await?;
        }
        Ok(count)
    }

    async fn post(&mut self, path: &str, body: String) -> anyhow::Result<Value> {
        let mut sender = match self.sender.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.connect().await?,
        };
        let request = Request::post(path)
            .header(header::HOST, &self.address)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        self.sender = Some(sender);
        ensure!(
            status.is_success(),
            "{status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(serde_json::from_slice(&body)?)
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let socket = TcpStream::connect(&self.address).await?;
        socket.set_nodelay(true)?;
        match &self.tls {
            None => start(socket).await,
            Some((config, name)) => {
                let connector = TlsConnector::from(config.clone());
                start(connector.connect(name.clone(), socket).await?).await
            }
        }
    }
}

async fn start(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Ends with the sender.
    tokio::spawn(async move { connection.await.is_ok() });
    if sender.is_closed() {
        bail!("the connection was closed at once");
    }
    Ok(sender)
}
