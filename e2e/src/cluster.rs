//! A Kubernetes to talk to: the local one, or any that a kubeconfig leads to. Node faults and
//! image loading exist only for the local one.

use crate::process::{feed, find, output, program};
use crate::{binaries, local};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Whose cluster it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On this machine: nodes may be killed. Whoever made it may also take it down.
    Local(local::Found),
    /// The user's: we only add and remove objects of our own.
    Given,
}

#[derive(Clone, Debug)]
pub struct Cluster {
    pub kind: Kind,
    pub kubeconfig: PathBuf,
    kubectl: PathBuf,
    helm: PathBuf,
}

impl Cluster {
    /// The given cluster, or the local one, brought up when it is not.
    pub async fn open(kubeconfig: Option<&Path>) -> Result<Self> {
        let Some(path) = kubeconfig else {
            let helm = binaries::helm().await?;
            let found = local::up().await?;
            let kubectl = local::layout::state().join("bin/kubectl");
            return Ok(Self {
                kind: Kind::Local(found),
                kubeconfig: local::layout::kubeconfig(),
                kubectl,
                helm,
            });
        };
        let kubeconfig = std::path::absolute(path)?;
        anyhow::ensure!(
            kubeconfig.is_file(),
            "there is no kubeconfig at {}",
            kubeconfig.display()
        );
        // The user's own tools fit the user's cluster, and need not be built.
        let kubectl = match find("kubectl") {
            Some(file) => file,
            None => binaries::local().await?.kubectl,
        };
        let helm = match find("helm") {
            Some(file) => file,
            None => binaries::helm().await?,
        };
        Ok(Self {
            kind: Kind::Given,
            kubeconfig,
            kubectl,
            helm,
        })
    }

    /// Runs kubectl and returns what it prints.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        output(&mut self.command(&self.kubectl, arguments)).await
    }

    /// Runs kubectl with text on its standard input: `-f -`.
    pub async fn kubectl_feed(&self, arguments: &[&str], input: &str) -> Result<String> {
        feed(&mut self.command(&self.kubectl, arguments), input).await
    }

    /// A kubectl that the caller starts itself, because it goes on beside other things.
    pub fn kubectl_command(&self, arguments: &[&str]) -> tokio::process::Command {
        self.command(&self.kubectl, arguments)
    }

    pub async fn helm(&self, arguments: &[&str]) -> Result<String> {
        output(&mut self.command(&self.helm, arguments)).await
    }

    /// A typed client for the same cluster.
    pub async fn client(&self) -> Result<kube::Client> {
        Ok(kube::Client::try_from(self.config().await?)?)
    }

    /// A client that shows every refusal: the other tries again by itself when the server says
    /// "too many requests", which is also how an eviction is refused.
    pub async fn client_without_retries(&self) -> Result<kube::Client> {
        let mut config = self.config().await?;
        config.default_retry = false;
        Ok(kube::Client::try_from(config)?)
    }

    async fn config(&self) -> Result<kube::Config> {
        // The process-wide choice is needed once; a second caller finds it made.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = kube::config::Kubeconfig::read_from(&self.kubeconfig)?;
        let options = kube::config::KubeConfigOptions::default();
        kube::Config::from_custom_kubeconfig(config, &options)
            .await
            .context("read the kubeconfig")
    }

    /// Makes images of these archives available on every node.
    pub async fn load(&self, archive: &Path) -> Result<()> {
        match self.kind {
            Kind::Local(_) => local::load(archive).await,
            Kind::Given => bail!(
                "images cannot be put onto the nodes of a given cluster: push them to its registry"
            ),
        }
    }

    fn command(&self, program_path: &Path, arguments: &[&str]) -> tokio::process::Command {
        let mut command = program(program_path, arguments);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }
}
