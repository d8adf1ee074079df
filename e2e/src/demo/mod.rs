//! `cargo demo`: the product's main job on real input, through a leader's and an operator's death.
//!
//! ```text
//! apt-cache dumpavail ─▶ producers ─▶ TaskStoreCluster demo ─▶ workers ─▶ results ─▶ totals
//!                                       ▲ leader killed at 1/3, operator at 2/3       ║
//!                     one direct pass ═══════════════════════════════════════════ must equal
//! ```

mod index;
mod report;
mod tally;
mod work;

use crate::cluster::{Cluster, Kind};
use crate::images::workspace;
use crate::progress::{say, step};
use crate::store::{self, KUBECTL_LIMIT, READY_LIMIT, Store};
use crate::{install, local};
use anyhow::{Result, bail};
use clap::Args;
use report::Kills;
pub use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use work::Job;

const NAMESPACE: &str = "demo";
const NAME: &str = "demo";
const REPLICAS: i32 = 3;
const PRODUCERS: usize = 3;
const WORKERS: usize = 4;
const SHOW_EVERY: Duration = Duration::from_secs(2);
/// No kill of this demo may stop all work for so long: what is missing then is lost.
const STANDSTILL: Duration = Duration::from_secs(90);

#[derive(Args, Debug)]
pub struct Settings {
    /// A cluster of yours instead of the local one.
    #[arg(long, env = "TASKSTORE_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Only so many packages.
    #[arg(long)]
    tasks: Option<usize>,
    /// Uses the operator that is installed already; nothing is built.
    #[arg(long)]
    installed: bool,
}

pub async fn main(settings: &Settings) -> Result<ExitCode> {
    let cluster = Cluster::open(settings.kubeconfig.as_deref()).await?;
    if !settings.installed {
        install::from_checkout(&cluster).await?;
    }
    step("Remove what an earlier demo left", remove(&cluster)).await?;
    cluster.kubectl(&["create", "namespace", NAMESPACE]).await?;
    let report = play(&cluster, NAMESPACE, settings.tasks).await?;
    print!("{}", report.table());
    look_around(&cluster);
    println!("{}", report.last_line());
    Ok(if report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The whole of it, in a namespace that is there and empty.
pub async fn play(cluster: &Cluster, namespace: &str, tasks: Option<usize>) -> Result<Report> {
    let mut stanzas = step("Read the Debian package index", index::stanzas()).await?;
    stanzas.truncate(tasks.unwrap_or(usize::MAX));
    let store = Store::open(cluster, namespace, NAME).await?;
    let applied = Instant::now();
    step("Apply the example and wait for Ready", apply(&store)).await?;
    let ready_seconds = applied.elapsed().as_secs_f64();

    let expected = direct(&stanzas);
    let job = Job::new(stanzas);
    let began = Instant::now();
    let kills = run(&store, &job).await?;
    let seconds = began.elapsed().as_secs_f64();
    let client = store.client().await?;
    let held = step("Read all results back", work::held(&client)).await?;
    let healed = step("Wait until all members are Ready again", async {
        store.healed(REPLICAS, READY_LIMIT).await
    })
    .await?;
    Ok(Report {
        job,
        held,
        expected,
        kills,
        seconds,
        ready_seconds,
        members: healed.status.unwrap_or_default().members,
    })
}

fn direct(stanzas: &[String]) -> index::Totals {
    let mut totals = index::Totals::default();
    for (place, stanza) in stanzas.iter().enumerate() {
        totals.add(place + 1, &index::read(stanza));
    }
    totals
}

async fn remove(cluster: &Cluster) -> Result<()> {
    let namespace = [
        "delete",
        "namespace",
        NAMESPACE,
        "--ignore-not-found",
        KUBECTL_LIMIT,
    ];
    cluster.kubectl(&namespace).await.map(drop)
}

async fn apply(store: &Store) -> Result<()> {
    let cluster = &store.cluster;
    let example = workspace().join("crds/examples/cluster.yaml");
    let example = example.to_string_lossy();
    let apply = ["--namespace", &store.namespace, "apply", "-f", &example];
    cluster.kubectl(&apply).await?;
    store.ready(REPLICAS, READY_LIMIT).await.map(drop)
}

/// Producers, workers and the killer, until every task is settled or nothing moves any more.
async fn run(store: &Store, job: &Arc<Job>) -> Result<Kills> {
    let mut hands = JoinSet::new();
    for _ in 0..PRODUCERS {
        hands.spawn(work::produce(job.clone(), store.client().await?));
    }
    for number in 1..=WORKERS {
        let name = format!("worker-{number}");
        hands.spawn(work::work(job.clone(), store.client().await?, name));
    }
    let mut killer = tokio::spawn(kill(store.clone(), job.clone()));
    let mut show = tokio::time::interval(SHOW_EVERY);
    let (began, mut moved) = (Instant::now(), (Instant::now(), 0));
    loop {
        tokio::select! {
            end = hands.join_next() => match end {
                Some(end) => end??,
                None => break,
            },
            _ = show.tick() => {
                let counts = job.tally.counts();
                if counts.settled != moved.1 {
                    moved = (Instant::now(), counts.settled);
                }
                say(&format!(
                    "{:>6.1} s  {:>6} created  {:>6} settled of {}",
                    began.elapsed().as_secs_f64(), counts.created, counts.settled, job.stanzas.len(),
                ));
                if moved.0.elapsed() > STANDSTILL {
                    say(&format!("nothing was settled for {} s", STANDSTILL.as_secs()));
                    hands.abort_all();
                    killer.abort();
                    bail!("tasks={} settled={}: the rest is lost", job.stanzas.len(), counts.settled);
                }
            }
        }
    }
    match tokio::time::timeout(READY_LIMIT, &mut killer).await {
        Ok(kills) => kills?,
        Err(_) => bail!("the kills did not end"),
    }
}

/// The leader's pod at a third of the work, the acting operator's at two thirds.
async fn kill(store: Store, job: Arc<Job>) -> Result<Kills> {
    let mut settled = job.tally.settled.subscribe();
    let all = job.stanzas.len() as u64;
    settled.wait_for(|settled| *settled >= all / 3).await?;
    let mut kills = Kills {
        leader_before: store.leader().await?,
        ..Kills::default()
    };
    job.tally.take_silence();
    say(&format!("kill the leader's pod {}", kills.leader_before));
    store.kill(&kills.leader_before).await?;
    settled.wait_for(|settled| *settled >= all * 2 / 3).await?;
    kills.leader_gap = job.tally.take_silence();
    kills.leader_after = store.leader().await?;
    let before = store::kill_operator(&store.cluster, &store.kube).await?;
    kills.operator_before = before.pod().to_owned();
    say(&format!(
        "killed the operator's pod {}",
        kills.operator_before
    ));
    settled.wait_for(|settled| *settled >= all).await?;
    kills.operator_gap = job.tally.take_silence();
    let after = store::acting_operator(&store.kube, Some(&before)).await?;
    kills.operator_after = after.pod().to_owned();
    Ok(kills)
}

fn look_around(cluster: &Cluster) {
    let local = cluster.kind != Kind::Given;
    let path = format!("\n  export PATH={}/bin:$PATH", local::layout::STATE);
    let down = "\nTo remove the whole local cluster:\n  cargo cluster down";
    println!(
        "
The cluster stays up. To look around:
  export KUBECONFIG={}{}
  kubectl --namespace {NAMESPACE} get taskstoreclusters,pods,persistentvolumeclaims -o wide
  kubectl --namespace {NAMESPACE} describe taskstorecluster {NAME}
  kubectl --namespace {} logs deployment/{}
To remove the demo:
  kubectl delete namespace {NAMESPACE}{}
",
        cluster.kubeconfig.display(),
        if local { path.as_str() } else { "" },
        install::NAMESPACE,
        install::DEPLOYMENT,
        if local { down } else { "" },
    );
}
