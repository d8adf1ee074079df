//! The way to members of a cluster whose networks do not reach to here: a local port for each pod, kept
//! open by kubectl, which is started again when its pod died.

use crate::cluster::Cluster;
use crate::store::READY_LIMIT;
use anyhow::{Context, Result};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const TRY_AGAIN: Duration = Duration::from_millis(300);

/// Ends with its last owner.
#[derive(Debug)]
pub struct Forward {
    /// One address per pod.
    pub addresses: Vec<String>,
    _kept_open: JoinSet<()>,
}

impl Forward {
    /// Returns once every pod is reached.
    pub async fn open(
        cluster: &Cluster,
        namespace: &str,
        pods: &[String],
        port: u16,
    ) -> Result<Self> {
        let (mut addresses, mut kept_open) = (Vec::new(), JoinSet::new());
        for pod in pods {
            // Free now, and nobody but us asks for it in the next moment.
            let free = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
            addresses.push(format!("127.0.0.1:{free}"));
            let (cluster, namespace) = (cluster.clone(), namespace.to_owned());
            let (pod, ports) = (format!("pod/{pod}"), format!("{free}:{port}"));
            kept_open.spawn(async move {
                loop {
                    let arguments = ["--namespace", &namespace, "port-forward", &pod, &ports];
                    let mut kubectl = cluster.kubectl_command(&arguments);
                    // It ends when the pod does; a pod that is being made is tried until it runs.
                    let _ = kubectl
                        .stdout(Stdio::null())
                        .stderr(Stdio::null())
                        .status()
                        .await;
                    tokio::time::sleep(TRY_AGAIN).await;
                }
            });
        }
        for address in &addresses {
            let start = Instant::now();
            while let Err(error) = TcpStream::connect(address).await {
                if start.elapsed() > READY_LIMIT {
                    return Err(error).context("kubectl port-forward reaches no member");
                }
                tokio::time::sleep(TRY_AGAIN).await;
            }
        }
        Ok(Self {
            addresses,
            _kept_open: kept_open,
        })
    }
}
