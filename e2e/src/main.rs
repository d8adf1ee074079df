//! Command line of everything that runs around the product: `cargo cluster`, `cargo verify`, …

use anyhow::Result;
use clap::{Parser, Subcommand};
use e2e::local;
use e2e::progress::say;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "taskstore-e2e", about = "The local Kubernetes, the demo, the stories and all checks")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A real Kubernetes on this machine.
    #[command(subcommand)]
    Cluster(ClusterCommand),
}

#[derive(Subcommand)]
enum ClusterCommand {
    /// Brings it up; does nothing when it is up.
    Up,
    /// Removes it without a trace.
    Down,
    /// Says which of its machines and daemons run.
    Status,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Cluster(ClusterCommand::Up) => up().await,
        Command::Cluster(ClusterCommand::Down) => local::down().await,
        Command::Cluster(ClusterCommand::Status) => {
            print!("{}", local::status().await?);
            Ok(())
        }
    }
}

async fn up() -> Result<()> {
    let start = std::time::Instant::now();
    let found = local::up().await?;
    let state = match found {
        local::Found::Made => format!("up after {:.1} s", start.elapsed().as_secs_f64()),
        local::Found::Running => "already up".to_owned(),
    };
    say(&format!("The local Kubernetes is {state}. To use it:"));
    println!("export KUBECONFIG={}", local::layout::kubeconfig().display());
    println!("export PATH={}/bin:$PATH", local::layout::STATE);
    Ok(())
}
