//! `kubectl taskstore`: kubectl finds it in the PATH by its name.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use operator::plugin::{Place, plan, status, switchover};

#[derive(Parser)]
#[command(
    name = "kubectl-taskstore",
    bin_name = "kubectl taskstore",
    version,
    about = "Looks at a TaskStoreCluster, and hands over its leadership"
)]
struct Cli {
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    command: Command,
}

/// Where to look: what kubectl would take, unless it is given here.
#[derive(Args)]
struct At {
    /// Instead of the one that kubectl uses.
    #[arg(long, global = true)]
    kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig.
    #[arg(long, global = true)]
    context: Option<String>,
    /// Namespace of the cluster.
    #[arg(long, short, global = true)]
    namespace: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Shows members, the change in flight and what it waits for. Needs `get` on the cluster; how far members
    /// are behind is asked of them with the rights that `switchover` needs.
    Status { cluster: String },
    /// Shows what the operator would do next and why it waits, by the operator's own rules; nothing is changed.
    /// Needs `list` on pods, claims, services, accounts, budgets, backups and restores of the namespace,
    /// and the rights of `switchover`.
    Plan { cluster: String },
    /// Has the leader hand over to another voter. Needs `get` on the Secret CLUSTER-ca, which makes whoever reads
    /// it as strong as the operator, and `get` and `create` on pods/portforward.
    Switchover {
        cluster: String,
        /// Who is to lead: m2, or the name of its pod. Without it, whoever is furthest along.
        #[arg(long)]
        to: Option<String>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<String> {
    // The process-wide choice; nobody has made another one yet.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = config(&cli.at).await?;
    let namespace = cli.at.namespace;
    let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config)?;
    let open = async |cluster: &str| Place::open(client, &namespace, cluster).await;
    match &cli.command {
        Command::Status { cluster } => status::run(&open(cluster).await?).await,
        Command::Plan { cluster } => plan::run(&open(cluster).await?).await,
        Command::Switchover { cluster, to } => {
            switchover::run(&open(cluster).await?, to.as_deref()).await
        }
    }
}

async fn config(at: &At) -> anyhow::Result<Config> {
    if at.kubeconfig.is_none() && at.context.is_none() {
        return Config::infer()
            .await
            .context("no kubeconfig and not in a cluster");
    }
    let found = match &at.kubeconfig {
        Some(path) => Kubeconfig::read_from(path)?,
        None => Kubeconfig::read()?,
    };
    let options = KubeConfigOptions {
        context: at.context.clone(),
        ..KubeConfigOptions::default()
    };
    Ok(Config::from_custom_kubeconfig(found, &options).await?)
}
