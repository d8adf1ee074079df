//! Runs stories one after another or side by side, each in a namespace of its own.

use super::{About, Asked, Entry, Figures, Needs, Story, all};
use crate::cluster::{Cluster, Kind};
use crate::install;
use crate::progress::say;
use crate::store::KUBECTL_LIMIT;
use anyhow::{Context, Result, bail};
use clap::Args;
use futures::{FutureExt, StreamExt};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A story that hangs is a failed one.
const STORY_LIMIT: Duration = Duration::from_secs(600);
/// So many failed stories say that the rest would fail too: a run of all ends early.
const FAILED_MAX: usize = 3;
/// A run of all stories starts no further one after this.
const RUN_LIMIT: Duration = Duration::from_mins(45);

/// Which stories to run, and where.
#[derive(Args, Debug, Clone)]
pub struct Selection {
    /// Names of stories, or parts of them; all without any.
    pub names: Vec<String>,
    /// Runs each story so often.
    #[arg(long, default_value_t = 1)]
    pub repeat: u32,
    /// So many stories at the same time.
    #[arg(long, default_value_t = 1)]
    pub jobs: usize,
    /// A cluster of yours instead of the local one; stories that fault nodes are left out.
    #[arg(long, env = "TASKSTORE_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Keeps the namespaces of failed stories.
    #[arg(long)]
    pub keep: bool,
    /// Uses the operator that is installed already; nothing is built.
    #[arg(long)]
    pub installed: bool,
    /// Prints the names and ends.
    #[arg(long)]
    pub list: bool,
}

/// How a run ended.
#[derive(Default, Debug)]
pub struct Report {
    pub passed: usize,
    pub failed: Vec<String>,
    pub figures: Arc<Figures>,
}

pub async fn main(selection: &Selection) -> Result<ExitCode> {
    if selection.list {
        all().iter().for_each(|entry| println!("{}", entry.name));
        return Ok(ExitCode::SUCCESS);
    }
    let cluster = Cluster::open(selection.kubeconfig.as_deref()).await?;
    let report = run(&cluster, selection).await?;
    print!("{}", report.figures.table());
    println!("{} passed, {} failed", report.passed, report.failed.len());
    Ok(if report.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs what was selected; a failed story is in the report, an error is the runner's own.
pub async fn run(cluster: &Cluster, selection: &Selection) -> Result<Report> {
    let chosen: Vec<Entry> = all()
        .into_iter()
        .filter(|entry| chosen(selection, entry.name))
        .collect();
    if chosen.is_empty() {
        bail!(
            "no story is called {}; --list shows all",
            selection.names.join(" or ")
        );
    }
    if !selection.installed && chosen.iter().any(|entry| entry.about == About::Product) {
        install::from_checkout(cluster).await?;
    }
    let asked = if selection.names.is_empty() {
        Asked::WithAll
    } else {
        Asked::ByName
    };
    let mut report = Report::default();
    let start = Instant::now();
    let figures = report.figures.clone();
    let whole = asked == Asked::WithAll && selection.repeat == 1;
    let (alone, shared): (Vec<Entry>, Vec<Entry>) = chosen
        .into_iter()
        .partition(|entry| entry.needs != Needs::AnyCluster);
    for (entries, jobs) in [(shared, selection.jobs.max(1)), (alone, 1)] {
        let mut work = Vec::new();
        for entry in (0..selection.repeat).flat_map(|_| entries.iter().copied()) {
            if usable(entry, cluster, asked) {
                let (cluster, figures) = (cluster.clone(), figures.clone());
                work.push(one(entry, cluster, figures, selection.keep).boxed());
            }
        }
        let mut left = work.len();
        let mut ends = futures::stream::iter(work).buffer_unordered(jobs);
        while let Some((name, end)) = ends.next().await {
            left -= 1;
            match end {
                Ok(()) => report.passed += 1,
                Err(error) => {
                    eprintln!("story {name} failed: {error:#}");
                    report.failed.push(name.to_owned());
                }
            }
            let enough = report.failed.len() >= FAILED_MAX || start.elapsed() > RUN_LIMIT;
            if whole && enough && left > 0 {
                report
                    .failed
                    .push(format!("{left} more, which were not run"));
                return Ok(report);
            }
        }
    }
    Ok(report)
}

fn chosen(selection: &Selection, name: &str) -> bool {
    let mut parts = selection.names.iter();
    selection.names.is_empty() || parts.any(|part| name.contains(part.as_str()))
}

fn usable(entry: Entry, cluster: &Cluster, asked: Asked) -> bool {
    let usable = entry.needs.met_by(cluster.kind, asked);
    if !usable {
        say(&format!(
            "{}: left out, {}",
            entry.name,
            match cluster.kind {
                Kind::Given => "it needs the local cluster",
                Kind::Local(_) => "this run did not make the cluster that it would harm",
            }
        ));
    }
    usable
}

async fn one(
    entry: Entry,
    cluster: Cluster,
    figures: Arc<Figures>,
    keep: bool,
) -> (&'static str, Result<()>) {
    let start = Instant::now();
    let outcome = tell(entry, &cluster, &figures, keep).await;
    let word = if outcome.is_ok() { "ok" } else { "FAILED" };
    say(&format!(
        "story {:<46} {:>6.1} s  {word}",
        entry.name,
        start.elapsed().as_secs_f64()
    ));
    (entry.name, outcome)
}

async fn tell(entry: Entry, cluster: &Cluster, figures: &Arc<Figures>, keep: bool) -> Result<()> {
    // An earlier story may have left a node off or the whole cluster down.
    if cluster.kind != Kind::Given {
        crate::local::up().await?;
    }
    let namespace = format!("story-{:08x}", fastrand::u32(..));
    cluster
        .kubectl(&["create", "namespace", &namespace])
        .await?;
    cluster
        .kubectl(&[
            "label",
            "namespace",
            &namespace,
            "pod-security.kubernetes.io/enforce=restricted",
        ])
        .await?;
    let story = Story {
        cluster: cluster.clone(),
        namespace: namespace.clone(),
        figures: figures.clone(),
    };
    let outcome = match tokio::time::timeout(STORY_LIMIT, (entry.run)(story)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(anyhow::anyhow!(
            "it did not end in {} s",
            STORY_LIMIT.as_secs()
        )),
    };
    if outcome.is_err() {
        show(cluster, &namespace).await;
    }
    let kept = keep && outcome.is_err();
    if !kept && entry.needs != Needs::WholeMachine {
        let delete = ["delete", "namespace", &namespace, KUBECTL_LIMIT];
        let deleted = cluster.kubectl(&delete).await;
        return outcome.and(deleted.map(drop).context("remove the story's namespace"));
    }
    outcome
}

/// What a person would look at first; its own failures are not the story's.
async fn show(cluster: &Cluster, namespace: &str) {
    for what in [
        &[
            "get",
            "pods,persistentvolumeclaims,poddisruptionbudgets,taskstoreclusters",
            "-o",
            "wide",
            "--ignore-not-found",
        ][..],
        &["get", "pods", "-o", "wide"],
        &["get", "events", "--sort-by=.lastTimestamp"],
        &[
            "logs",
            "--selector=app.kubernetes.io/name",
            "--all-containers",
            "--prefix",
            "--tail=40",
        ],
    ] {
        let mut arguments = vec!["--namespace", namespace, "--request-timeout=10s"];
        arguments.extend(what);
        if let Ok(text) = cluster.kubectl(&arguments).await {
            eprintln!("--- kubectl {}\n{text}", what.join(" "));
        }
    }
}
