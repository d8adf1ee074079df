//! The rows of the bench, one after another on one store.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;
use hdrhistogram::Histogram;
use taskstore_api::Endpoints;
use uuid::Uuid;

use super::load::{Kind, Load, Measured};
use super::report::{Line, print_head};
use super::store::LocalStore;
use super::{BenchArgs, Protocol, Row, disk};

mod steady;
mod volume;

/// Creates under which a snapshot is cut, and the leader killed.
const BACKGROUND_CLIENTS: usize = 16;
/// What each snapshot holds, beside the creates.
const SNAPSHOT_TASKS: usize = 50_000;
const SNAPSHOT_PAYLOAD_BYTES: usize = 1 << 10;

struct Suite {
    args: BenchArgs,
    store: Option<LocalStore>,
    dir: PathBuf,
    protocol: Protocol,
}

pub async fn run(args: BenchArgs) -> anyhow::Result<()> {
    ensure!(
        args.batch > 0 && args.seconds > 0,
        "--batch and --seconds must be above 0"
    );
    ensure!(!args.clients.contains(&0), "--clients must be above 0");
    let store = match args.existing {
        true => None,
        false => Some(LocalStore::start(&args.dir, args.keep).await?),
    };
    let dir = store
        .as_ref()
        .map_or(args.dir.clone(), |store| store.dir().to_owned());
    if !args.json && !args.rows.iter().all(|row| row.wants_own_store()) {
        print_head();
    }
    let rows = args.rows.clone();
    let mut suite = Suite {
        args,
        store,
        dir,
        protocol: Protocol::Grpc,
    };
    let mut last = None;
    for row in rows {
        for protocol in suite.args.protocols.clone() {
            if last.is_some_and(|last: Row| last.wants_own_store() || row.wants_own_store()) {
                suite.start_over().await?;
            }
            last = Some(row);
            suite.protocol = protocol;
            suite.row(row).await?;
        }
    }
    Ok(())
}

impl Suite {
    async fn row(&mut self, row: Row) -> anyhow::Result<()> {
        match row {
            Row::Create => self.creates().await,
            Row::Cycle => self.cycles("cycle", 1).await,
            Row::Batch => self.cycles("cycle-batch", self.args.batch).await,
            Row::Snapshot => self.snapshot().await,
            Row::LeaderKill => self.leader_kill().await,
            Row::Volume => self.volume().await,
            Row::Steady => self.steady().await,
        }
    }

    /// A new store in place of one that a row has filled.
    async fn start_over(&mut self) -> anyhow::Result<()> {
        if self.store.take().is_some() {
            self.store = Some(LocalStore::start(&self.args.dir, self.args.keep).await?);
        }
        Ok(())
    }

    async fn endpoints(&self) -> anyhow::Result<Endpoints> {
        match &self.store {
            Some(store) => store.endpoints().await,
            None => self.args.store.endpoints(),
        }
    }

    /// Clients spread over the members, as a Service spreads them.
    async fn spread(&self) -> anyhow::Result<Vec<Endpoints>> {
        let endpoints = self.endpoints().await?;
        let turned = |by: usize| {
            let mut turned = endpoints.clone();
            turned.addresses.rotate_left(by);
            turned
        };
        Ok((0..endpoints.addresses.len()).map(turned).collect())
    }

    async fn load(&self, kind: Kind, clients: usize, batch: usize) -> anyhow::Result<Load> {
        Ok(Load {
            kind,
            protocol: self.protocol,
            queue: format!("q-{}", Uuid::new_v4().simple()),
            clients,
            batch,
            payload_bytes: self.args.payload_bytes,
            endpoints: self.spread().await?,
        })
    }

    /// What the disk can do now, in fdatasyncs a second; memory is counted from here.
    fn begin_row(&self) -> anyhow::Result<f64> {
        if let Some(store) = &self.store {
            store.forget_resident_bytes();
        }
        let dir: &Path = &self.dir;
        Ok(disk::fdatasync_per_second(dir, self.args.payload_bytes)?)
    }

    async fn creates(&self) -> anyhow::Result<()> {
        let whole = self.load(Kind::Create, 1, 1).await?;
        let places: &[(&str, usize)] = match &self.store {
            Some(_) => &[("create@leader", 0), ("create@follower", 1)],
            None => &[("create", 0)],
        };
        for (workload, place) in places {
            let load = Load {
                endpoints: vec![whole.endpoints[*place].clone()],
                ..whole.clone()
            };
            self.measure(workload, load).await?;
        }
        Ok(())
    }

    async fn cycles(&self, workload: &str, batch: usize) -> anyhow::Result<()> {
        for clients in &self.args.clients {
            self.measure(workload, self.load(Kind::Cycle, *clients, batch).await?)
                .await?;
        }
        Ok(())
    }

    async fn measure(&self, workload: &str, load: Load) -> anyhow::Result<()> {
        let fdatasync_per_second = self.begin_row()?;
        let (clients, batch) = (load.clients, load.batch);
        let measured = load.run_for(Duration::from_secs(self.args.seconds)).await?;
        self.print(self.line(workload, clients, batch, &measured, fdatasync_per_second));
        self.warn(&measured);
        Ok(())
    }

    /// Snapshots of a state of always the same size, one after another, under creates.
    async fn snapshot(&self) -> anyhow::Result<()> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        let fdatasync_per_second = self.begin_row()?;
        let load = self.load(Kind::Create, BACKGROUND_CLIENTS, 1).await?;
        let held = Load {
            queue: format!("held-{}", Uuid::new_v4().simple()),
            payload_bytes: SNAPSHOT_PAYLOAD_BYTES,
            ..load.clone()
        };
        held.fill(SNAPSHOT_TASKS).await?;
        let (measured, cuts) = self.creates_during_cuts(store, load).await?;
        let during = during(&measured, &cuts)?;
        let line = self.line(
            "snapshot",
            BACKGROUND_CLIENTS,
            1,
            &measured,
            fdatasync_per_second,
        );
        self.print(Line {
            create_p50_ms: ms(&during, 50.0),
            create_p99_ms: ms(&during, 99.0),
            snapshots: Some(cuts.len()),
            ..line
        });
        self.warn(&measured);
        Ok(())
    }

    /// The leader cuts snapshots one after another; when each began and ended.
    async fn creates_during_cuts(
        &self,
        store: &LocalStore,
        load: Load,
    ) -> anyhow::Result<(Measured, Vec<Span>)> {
        let until = Instant::now() + Duration::from_secs(1 + self.args.seconds);
        let cutting = async {
            let mut cuts = Vec::new();
            while Instant::now() < until {
                let from = Instant::now();
                store.snapshot_leader().await?;
                cuts.push((from, Instant::now()));
            }
            Ok(cuts)
        };
        let second = Duration::from_secs(1);
        let (measured, cuts, _) = load.run_around(second, cutting, Duration::ZERO).await?;
        Ok((measured, cuts))
    }

    async fn leader_kill(&mut self) -> anyhow::Result<()> {
        let fdatasync_per_second = self.begin_row()?;
        let load = self.load(Kind::Create, BACKGROUND_CLIENTS, 1).await?;
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        let (before, after) = (Duration::from_secs(2), Duration::from_secs(5));
        let (measured, killed, from) = load.run_around(before, store.kill_leader(), after).await?;
        store.start_again(killed).await?;
        let line = self.line(
            "leader-kill",
            BACKGROUND_CLIENTS,
            1,
            &measured,
            fdatasync_per_second,
        );
        let write_gap_ms = Some(measured.longest_gap(from).as_secs_f64() * 1_000.0);
        self.print(Line {
            write_gap_ms,
            ..line
        });
        self.warn(&measured);
        Ok(())
    }

    fn line(
        &self,
        workload: &str,
        clients: usize,
        batch: usize,
        measured: &Measured,
        fdatasync: f64,
    ) -> Line {
        Line {
            workload: workload.to_owned(),
            protocol: self.protocol.as_str(),
            members: self
                .store
                .as_ref()
                .map_or(self.args.store.endpoints.len(), LocalStore::members),
            clients,
            batch,
            payload_bytes: self.args.payload_bytes,
            cycles_per_second: measured.per_second(),
            create_p50_ms: ms(&measured.create_us, 50.0),
            create_p99_ms: ms(&measured.create_us, 99.0),
            errors: measured.errors,
            fdatasync_per_second: fdatasync,
            resident_bytes_max: self
                .store
                .as_ref()
                .map_or(0, LocalStore::resident_bytes_max),
            write_gap_ms: None,
            snapshots: None,
        }
    }

    fn print(&self, line: Line) {
        if self.args.json {
            line.print_json()
        } else {
            line.print_text()
        }
    }

    fn warn(&self, measured: &Measured) {
        if let Some(error) = &measured.error {
            eprintln!("the first of {} errors: {error}", measured.errors);
        }
    }
}

type Span = (Instant, Instant);

/// Times of the creates that overlap one of these, in microseconds.
fn during(measured: &Measured, spans: &[Span]) -> anyhow::Result<Histogram<u64>> {
    let mut during = Histogram::<u64>::new(3)?;
    for (at, took) in &measured.acknowledged {
        let overlaps = |(from, to): &Span| *at >= *from && *at - *took <= *to;
        if spans.iter().any(overlaps) {
            during.record(took.as_micros() as u64)?;
        }
    }
    Ok(during)
}

fn ms(us: &Histogram<u64>, percentile: f64) -> f64 {
    us.value_at_percentile(percentile) as f64 / 1_000.0
}
