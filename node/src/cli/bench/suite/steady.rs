//! Tasks come and go for minutes over a standing window of pending ones: memory and disk must be flat at the end.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use super::{BACKGROUND_CLIENTS, Suite};
use crate::cli::bench::load::{Kind, Measured};
use crate::cli::bench::store::LocalStore;

/// Pending all the time.
const WINDOW_TASKS: usize = 50_000;
const PARTS: u32 = 10;
/// Of the parts, the last so many must be alike.
const LAST_PARTS: usize = 3;

#[derive(Debug, Serialize)]
struct Line {
    workload: &'static str,
    minutes: u64,
    clients: usize,
    batch: usize,
    payload_bytes: usize,
    cycles_per_second: f64,
    parts: Vec<Part>,
    /// Largest over smallest of the last three parts.
    resident_ratio: f64,
    disk_ratio: f64,
    errors: u64,
}

/// At the end of one part of the time; of the member that holds most.
#[derive(Debug, Clone, Copy, Serialize)]
struct Part {
    cycles_per_second: f64,
    resident_bytes: u64,
    disk_bytes: u64,
    image_bytes: u64,
}

impl Suite {
    pub(super) async fn steady(&mut self) -> anyhow::Result<()> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        let batch = self.args.batch;
        let load = self.load(Kind::Cycle, BACKGROUND_CLIENTS, batch).await?;
        load.fill(WINDOW_TASKS).await?;
        let part_time = Duration::from_secs(60 * self.args.minutes) / PARTS;
        let looks = async {
            let mut looks = Vec::new();
            for _ in 0..PARTS {
                tokio::time::sleep(part_time).await;
                looks.push((Instant::now(), look(store)?));
            }
            Ok(looks)
        };
        let (measured, looks, from) = load
            .run_around(Duration::ZERO, looks, Duration::ZERO)
            .await?;
        let mut parts = Vec::new();
        let mut since = from;
        for (until, part) in looks {
            let cycles_per_second = cycles(&measured, batch, since, until);
            parts.push(Part {
                cycles_per_second,
                ..part
            });
            since = until;
        }
        let last = &parts[parts.len() - LAST_PARTS..];
        let line = Line {
            workload: "steady",
            minutes: self.args.minutes,
            clients: BACKGROUND_CLIENTS,
            batch,
            payload_bytes: self.args.payload_bytes,
            cycles_per_second: measured.per_second(),
            resident_ratio: ratio(last.iter().map(|part| part.resident_bytes)),
            disk_ratio: ratio(last.iter().map(|part| part.disk_bytes)),
            errors: measured.errors,
            parts,
        };
        match self.args.json {
            true => println!("{}", serde_json::to_string(&line).context("a line")?),
            false => line.print_text(),
        }
        self.warn(&measured);
        Ok(())
    }
}

fn look(store: &LocalStore) -> anyhow::Result<Part> {
    let mut most = Part {
        cycles_per_second: 0.0,
        resident_bytes: 0,
        disk_bytes: 0,
        image_bytes: 0,
    };
    for index in 0..store.members() {
        let disk = store.disk(index)?;
        most.resident_bytes = most.resident_bytes.max(store.memory(index)?.resident_bytes);
        most.disk_bytes = most.disk_bytes.max(disk.bytes());
        most.image_bytes = most.image_bytes.max(disk.image_bytes);
    }
    Ok(most)
}

fn cycles(measured: &Measured, batch: usize, from: Instant, to: Instant) -> f64 {
    let is_in = |(at, _): &&(Instant, Duration)| *at > from && *at <= to;
    let steps = measured.acknowledged.iter().filter(is_in).count();
    (steps * batch) as f64 / (to - from).as_secs_f64()
}

fn ratio(values: impl Iterator<Item = u64> + Clone) -> f64 {
    let (most, least) = (values.clone().max(), values.min());
    most.unwrap_or(0) as f64 / least.unwrap_or(0).max(1) as f64
}

impl Line {
    fn print_text(&self) {
        println!(
            "{:<16} {} minutes, {} clients, batches of {}: {:.0} tasks/s, {} errors",
            self.workload,
            self.minutes,
            self.clients,
            self.batch,
            self.cycles_per_second,
            self.errors,
        );
        for (number, part) in self.parts.iter().enumerate() {
            println!(
                "{:<16} {:>3} %: {:>7.0} tasks/s, {:>5} MiB resident, {:>5} MiB of disk, {} of them the image",
                "",
                (number + 1) * 100 / self.parts.len(),
                part.cycles_per_second,
                part.resident_bytes >> 20,
                part.disk_bytes >> 20,
                part.image_bytes >> 20,
            );
        }
        println!(
            "{:<16} largest over smallest of the last three: memory {:.2}, disk {:.2}",
            "", self.resident_ratio, self.disk_ratio,
        );
    }
}
