//! All checks by name. `cargo verify` runs every part in this order; `cargo verify fmt clippy`
//! runs those two. The last line says how many parts passed and failed.

use crate::cluster::{Cluster, Kind};
use crate::images::{self, cargo, workspace};
use crate::local::{self, Found};
use crate::process::{output, program};
use crate::progress::say;
use crate::{binaries, stories};
use anyhow::{Context, Result, bail};
use clap::Args;
use futures::future::BoxFuture;
use std::process::ExitCode;
use std::time::Instant;
use tokio::process::Command;

/// Which parts to run.
#[derive(Args, Debug)]
pub struct Selection {
    /// Names of parts; all without any.
    pub parts: Vec<String>,
    /// Prints the names and ends.
    #[arg(long)]
    pub list: bool,
}

struct Part {
    name: &'static str,
    what: &'static str,
    run: fn() -> BoxFuture<'static, Result<()>>,
}

macro_rules! part {
    ($name:literal, $what:literal, $function:expr) => {
        Part {
            name: $name,
            what: $what,
            run: || Box::pin($function),
        }
    };
}

/// Cheap ones first: a slip should show in seconds.
fn parts() -> Vec<Part> {
    vec![
        part!("fmt", "formatting of Rust and Go", fmt()),
        part!(
            "imports",
            "who imports whom, and what a file must hold",
            cargo_run(&["test", "--workspace", "--test", "tidy"])
        ),
        part!(
            "clippy",
            "lints of all code",
            cargo_run(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings"
            ])
        ),
        part!(
            "generated",
            "committed YAML equals what the types generate",
            cargo_run(&["test", "--workspace", "--test", "generated"])
        ),
        part!(
            "test",
            "all tests that need no cluster",
            cargo_run(&["test", "--workspace"])
        ),
        part!("charts", "charts lint and render", charts()),
        part!(
            "images",
            "both images are small, hold one file and do not run as root",
            image_sizes()
        ),
        part!(
            "stories",
            "user stories on a real Kubernetes",
            all_stories()
        ),
    ]
}

pub async fn main(selection: &Selection) -> Result<ExitCode> {
    let all = parts();
    if selection.list {
        all.iter()
            .for_each(|part| println!("{:<10} {}", part.name, part.what));
        return Ok(ExitCode::SUCCESS);
    }
    let unknown: Vec<&String> = selection
        .parts
        .iter()
        .filter(|name| !all.iter().any(|part| part.name == **name))
        .collect();
    if !unknown.is_empty() {
        bail!("no part is called {unknown:?}; --list shows all");
    }
    let chosen = all.iter().filter(|part| {
        selection.parts.is_empty() || selection.parts.iter().any(|name| name == part.name)
    });
    let mut lines = Vec::new();
    let mut failed = 0;
    for part in chosen {
        eprintln!("== {}: {}", part.name, part.what);
        let start = Instant::now();
        let outcome = (part.run)().await;
        let seconds = start.elapsed().as_secs_f64();
        if let Err(error) = &outcome {
            eprintln!("{} failed: {error:#}", part.name);
            failed += 1;
        }
        lines.push(format!(
            "{:<10} {seconds:>7.1} s  {}",
            part.name,
            if outcome.is_ok() { "ok" } else { "FAILED" }
        ));
    }
    lines.iter().for_each(|line| println!("{line}"));
    println!("{} passed, {failed} failed", lines.len() - failed);
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn fmt() -> Result<()> {
    cargo_run(&["fmt", "--all", "--check"]).await?;
    let mut gofmt = program("gofmt", ["-l", "e2e/kubernetes"]);
    let unformatted = output(gofmt.current_dir(workspace())).await?;
    if !unformatted.trim().is_empty() {
        bail!("gofmt would change:\n{unformatted}");
    }
    Ok(())
}

/// Renders with defaults and with every file in a chart's `ci` folder, as chart tools do.
async fn charts() -> Result<()> {
    let helm = binaries::helm().await?;
    for chart in ["taskstore-crds", "taskstore"] {
        let folder = workspace().join("charts").join(chart);
        let mut values = vec![None];
        if let Ok(entries) = std::fs::read_dir(folder.join("ci")) {
            let mut files = entries
                .map(|entry| Ok(entry?.path()))
                .collect::<Result<Vec<_>>>()?;
            files.sort();
            values.extend(files.into_iter().map(Some));
        }
        for file in values {
            for action in [&["lint", "--strict"][..], &["template", "render"]] {
                let mut command = program(&helm, action);
                command.arg(&folder);
                if let Some(file) = &file {
                    command.arg("--values").arg(file);
                }
                output(&mut command).await?;
            }
        }
    }
    Ok(())
}

async fn image_sizes() -> Result<()> {
    if given().is_some() {
        say("left out: a cluster of yours runs the images that you built and pushed");
        return Ok(());
    }
    crate::host::prepare().await?;
    let product = images::product().await?;
    for (image, name) in [
        (&product.node, "taskstore"),
        (&product.operator, "taskstore-operator"),
    ] {
        let sizes = images::check(image, name).await?;
        say(&format!(
            "{:<52} {:>6.1} MB to pull, {:>6.1} MB on disk",
            image.reference,
            sizes.archive_bytes as f64 / 1e6,
            sizes.unpacked_bytes as f64 / 1e6
        ));
    }
    Ok(())
}

/// A cluster that this brought up is taken down again; one that was there stays.
async fn all_stories() -> Result<()> {
    let selection = stories::Selection {
        names: Vec::new(),
        repeat: 1,
        jobs: 1,
        kubeconfig: given(),
        keep: false,
        installed: false,
        list: false,
    };
    let cluster = Cluster::open(selection.kubeconfig.as_deref()).await?;
    let report = stories::run(&cluster, &selection).await;
    if cluster.kind == Kind::Local(Found::Made) {
        local::down(local::Buckets::Go)
            .await
            .context("take the cluster down after the stories")?;
    }
    let report = report?;
    eprint!("{}", report.figures.table());
    if !report.failed.is_empty() {
        bail!(
            "{} of {} stories failed: {}",
            report.failed.len(),
            report.failed.len() + report.passed,
            report.failed.join(", ")
        );
    }
    Ok(())
}

fn given() -> Option<std::path::PathBuf> {
    std::env::var_os("TASKSTORE_KUBECONFIG").map(Into::into)
}

/// Its output goes straight to the reader: it shows its own progress.
async fn cargo_run(arguments: &[&str]) -> Result<()> {
    let mut command: Command = cargo(arguments);
    let status = command.status().await.context("start cargo")?;
    if !status.success() {
        bail!("cargo {} failed ({status})", arguments.join(" "));
    }
    Ok(())
}
