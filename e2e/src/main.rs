//! Command line of everything that runs around the product: `cargo cluster`, `cargo verify`, …

use anyhow::Result;
use clap::{Parser, Subcommand};
use e2e::progress::say;
use e2e::{cluster::Cluster, demo, install, local, stories, verify};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "taskstore-e2e",
    about = "The local Kubernetes, the demo, the stories and all checks"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A real Kubernetes on this machine, with an S3 server beside it.
    ///
    /// Pods reach the S3 server at https://s3.bucket.svc:7070, this machine at https://198.18.0.3:7070; with
    /// the path style. Its certificate is of the CA in /var/lib/taskstore-local/pki/ca.crt, its access key id is
    /// taskstore-local and the secret key is in pki/s3-secret-access-key beside it. A folder in
    /// /var/lib/taskstore-local-buckets is a bucket.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// The main job on real input: the machine's Debian index through a replicated store.
    Demo(demo::Settings),
    /// User stories on a Kubernetes; all of them, or those named.
    Stories(stories::Selection),
    /// All checks and tests; or the named parts.
    Verify(verify::Selection),
}

#[derive(Subcommand)]
enum ClusterCommand {
    /// Brings it up; does nothing when it is up, and switches killed nodes on again.
    Up,
    /// Removes it without a trace.
    Down {
        /// Leaves what is in the S3 server's buckets; the next `up` serves it again, under another secret key.
        #[arg(long)]
        keep_bucket: bool,
    },
    /// Says which of its machines and daemons run.
    Status,
    /// Builds the product's images, puts them onto every node and installs both charts.
    Install,
    /// Cuts a node's power.
    Kill { node: String },
    /// Switches a killed node on again.
    Start { node: String },
    /// Drops all packets from and to a node.
    Cut { node: String },
    /// Ends `cut`.
    Mend { node: String },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Cluster(command) => cluster(command).await.map(|()| ExitCode::SUCCESS),
        Command::Demo(settings) => demo::main(&settings).await,
        Command::Stories(selection) => stories::main(&selection).await,
        Command::Verify(selection) => verify::main(&selection).await,
    }
}

async fn cluster(command: ClusterCommand) -> Result<()> {
    match command {
        ClusterCommand::Up => up().await,
        ClusterCommand::Down { keep_bucket } => {
            let buckets = match keep_bucket {
                true => local::Buckets::Stay,
                false => local::Buckets::Go,
            };
            local::down(buckets).await
        }
        ClusterCommand::Status => {
            print!("{}", local::status().await?);
            Ok(())
        }
        ClusterCommand::Install => {
            let product = install::from_checkout(&Cluster::open(None).await?).await?;
            println!("{}\n{}", product.node.reference, product.operator.reference);
            Ok(())
        }
        ClusterCommand::Kill { node } => local::kill(local::node(&node)?).await,
        ClusterCommand::Start { node } => local::start(local::node(&node)?).await,
        ClusterCommand::Cut { node } => local::cut(local::node(&node)?).await,
        ClusterCommand::Mend { node } => local::mend(local::node(&node)?).await,
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
    println!(
        "export KUBECONFIG={}",
        local::layout::kubeconfig().display()
    );
    println!("export PATH={}/bin:$PATH", local::layout::STATE);
    Ok(())
}
