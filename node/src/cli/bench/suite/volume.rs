//! A store with a great many pending tasks: what one costs a member in memory and on the disk, and how the
//! members answer, cut and send snapshots, and start under them.

use std::time::{Duration, Instant};

use anyhow::Context;

use super::{BACKGROUND_CLIENTS, Suite, during};
use crate::cli::bench::load::{Kind, Load, Measured};
use crate::cli::bench::scrape::ImageGauges;
use crate::cli::bench::store::LocalStore;

mod report;

use self::report::{Latency, Line, Restart};

/// Members are idle after this, and their memory is what a member takes without tasks.
const IDLE: Duration = Duration::from_secs(2);

impl Suite {
    pub(super) async fn volume(&mut self) -> anyhow::Result<()> {
        if self.store.is_none() {
            return Ok(());
        }
        let fdatasync_per_second = self.begin_row()?;
        let held = self.load(Kind::Create, 1, 1).await?;
        let creates = self.load(Kind::Create, BACKGROUND_CLIENTS, 1).await?;
        // The store gets one more member.
        let mut store = self.store.take().context("it was there a moment ago")?;
        let line = Line {
            fdatasync_per_second,
            ..self.fill_and_look(&mut store, held, creates).await?
        };
        self.store = Some(store);
        match self.args.json {
            true => line.print_json(),
            false => line.print_text(),
        }
        Ok(())
    }

    async fn fill_and_look(
        &self,
        store: &mut LocalStore,
        held: Load,
        creates: Load,
    ) -> anyhow::Result<Line> {
        let (tasks, time) = (self.args.tasks, Duration::from_secs(self.args.seconds));
        tokio::time::sleep(IDLE).await;
        let follower = store.follower().await?;
        let idle = store.memory(follower)?;
        let written_before = store.written_bytes()?;
        let addresses = store.health_addresses();

        let begin = Instant::now();
        let (refused, image) = ImageGauges::during(&addresses, held.fill(tasks)).await?;
        let load_seconds = begin.elapsed().as_secs_f64();
        let rest = store.rest().await?;
        let full = store.memory(follower)?;
        let written = store.written_bytes()? - written_before;
        let task_bytes = (tasks * self.args.payload_bytes * store.members()) as f64;
        let disk = store.disk(follower)?;

        let claims_alone = Load {
            clients: 1,
            ..held.clone()
        }
        .claims(time)
        .await?;
        let claimers = Load {
            clients: BACKGROUND_CLIENTS,
            ..held
        };
        let second = Duration::from_secs(1);
        let busy = creates
            .clone()
            .run_around(second, claimers.claims(time), Duration::ZERO);
        let ((_, claims_busy, _), image_busy) = ImageGauges::during(&addresses, busy).await?;

        let alone = creates.clone().run_for(time).await?;
        let (cut, cuts) = self.creates_during_cuts(store, creates.clone()).await?;
        let creates_cut = during(&cut, &cuts)?;
        let cut_seconds = mean_seconds(&cuts);
        let rows_bytes = store.rows_bytes(follower).await?;

        let with_image = restart(store, follower, true).await?;
        let without_image = restart(store, follower, false).await?;

        let learner = store.add_blank().await?;
        let sending = async {
            let from = Instant::now();
            store.send_snapshot(learner).await?;
            Ok((from, Instant::now()))
        };
        let (sent, span, _) = creates.run_around(second, sending, Duration::ZERO).await?;
        let creates_sent = during(&sent, &[span])?;
        for measured in [&alone, &cut, &sent] {
            self.warn(measured);
        }
        let errors = |all: [&Measured; 3]| all.iter().map(|measured| measured.errors).sum();
        Ok(Line {
            workload: "volume",
            tasks,
            payload_bytes: self.args.payload_bytes,
            fdatasync_per_second: 0.0,
            load_seconds,
            refused_batches: refused,
            rest_seconds: rest.as_secs_f64(),
            idle,
            full,
            rows_bytes,
            disk,
            written_per_task_byte: written as f64 / task_bytes,
            image_lag_entries_max: image.lag_entries,
            image_dirty_bytes_max: image.dirty_bytes,
            busy_lag_entries_max: image_busy.lag_entries,
            claim_alone: Latency::of(&claims_alone),
            claim_under_creates: Latency::of(&claims_busy),
            create_alone: Latency::of(&alone.create_us),
            create_during_cut: Latency::of(&creates_cut),
            cut_seconds,
            create_during_send: Latency::of(&creates_sent),
            send_seconds: (span.1 - span.0).as_secs_f64(),
            with_image,
            without_image,
            errors: errors([&alone, &cut, &sent]),
        })
    }
}

/// Kills the member, as a crash would; its time goes from the start of the new process until it is ready.
async fn restart(
    store: &mut LocalStore,
    index: usize,
    keeps_image: bool,
) -> anyhow::Result<Restart> {
    store.rest().await?;
    store.kill(index).await?;
    if !keeps_image {
        store.remove_image(index)?;
    }
    let begin = Instant::now();
    store.start_again(index).await?;
    let ready_seconds = begin.elapsed().as_secs_f64();
    let at_ready = store.memory(index)?;
    store.rest().await?;
    Ok(Restart {
        ready_seconds,
        at_ready,
        at_rest: store.memory(index)?,
    })
}

fn mean_seconds(spans: &[(Instant, Instant)]) -> f64 {
    let sum: Duration = spans.iter().map(|(from, to)| *to - *from).sum();
    sum.as_secs_f64() / spans.len().max(1) as f64
}
