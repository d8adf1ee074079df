//! Prints what a bucket holds: as text for people, or as JSON for programs.

use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};
use taskstore_api::v1;

use crate::backup::drill::Drilled;
use crate::backup::layout::{BackupName, Lineage};
use crate::backup::list::{Listed, State};
use crate::backup::log::replay::Reached;
use crate::backup::manifest::Manifest;
use crate::backup::restore::Facts;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Text,
    Json,
}

impl Output {
    pub fn asked(is_json: bool) -> Output {
        match is_json {
            true => Output::Json,
            false => Output::Text,
        }
    }

    pub fn restored(self, facts: &Facts, data_dir: &Path) {
        if self == Output::Json {
            let json = serde_json::to_value(facts).expect("facts hold nothing that JSON cannot");
            return print_json(&json);
        }
        println!(
            "restored {} up to index {}, {}: {} tasks, state hash {}",
            facts.backup,
            facts.log_id.index,
            time(facts.wall_time_ms),
            facts.tasks,
            facts.state_hash
        );
        println!("run it: taskstore dev --data-dir {}", data_dir.display());
    }

    pub fn listed(self, all: &[(Lineage, Vec<Listed>)]) {
        if self == Output::Json {
            let rows = all.iter().flat_map(|(lineage, listed)| {
                listed
                    .iter()
                    .map(move |listed| listed_json(lineage, listed))
            });
            return print_json(&Value::Array(rows.collect()));
        }
        for (lineage, listed) in all {
            println!("{lineage}");
            for Listed { name, state } in listed {
                match state {
                    State::Complete(manifest) => println!(
                        "  {name}  {}  index {}  {} tasks  {} bytes",
                        time(manifest.created_at_ms),
                        manifest.log_id.index,
                        manifest.counts.tasks,
                        manifest.snapshot.bytes
                    ),
                    State::Unfinished { modified_ms } => {
                        println!(
                            "  {name}  unfinished since {}: no backup",
                            time(*modified_ms)
                        );
                    }
                    State::Unreadable(error) => println!("  {name}  {error}"),
                }
            }
        }
    }

    pub fn inspected(self, manifest: &Manifest) {
        let json =
            serde_json::to_value(manifest).expect("a manifest holds nothing that JSON cannot");
        print_json(&json);
    }

    pub fn verified(self, manifest: &Manifest, log: Option<Reached>) {
        match self {
            Output::Json => print_json(&json!({
                "verified": true,
                "name": manifest.name,
                "checksum": manifest.checksum,
                "state_hash": manifest.snapshot.state_hash,
                "parts": manifest.parts.len(),
                "bytes": manifest.snapshot.bytes,
                "log": log.map(|log| json!({
                    "segments": log.segments,
                    "index": log.last.index,
                    "wall_time_ms": log.wall_time_ms,
                })),
            })),
            Output::Text => {
                println!(
                    "{} is good: {} parts, {} bytes, {} tasks, state {}",
                    manifest.name,
                    manifest.parts.len(),
                    manifest.snapshot.bytes,
                    manifest.counts.tasks,
                    manifest.snapshot.state_hash
                );
                if let Some(log) = log {
                    println!(
                        "the log behind it is good: {} segments up to index {}, {}",
                        log.segments,
                        log.last.index,
                        time(log.wall_time_ms.max(manifest.wall_time_ms))
                    );
                }
            }
        }
    }

    pub fn deleted(self, names: &[BackupName]) {
        match self {
            Output::Json => print_json(&json!({ "deleted": names })),
            Output::Text if names.is_empty() => println!("nothing to delete"),
            Output::Text => names.iter().for_each(|name| println!("{name} deleted")),
        }
    }

    pub fn drilled(self, drilled: &Drilled) {
        if self == Output::Json {
            let json = serde_json::to_value(drilled).expect("it holds nothing that JSON cannot");
            return print_json(&json);
        }
        let Facts {
            lineage: _,
            backup,
            log_id,
            wall_time_ms,
            state_hash,
            tasks,
        } = &drilled.restorable;
        println!(
            "a restore of {backup} and the log behind it gives {tasks} tasks at index {}, {}, state hash \
             {state_hash}",
            log_id.index,
            time(*wall_time_ms)
        );
        match (&drilled.compared, &drilled.gap) {
            (Some(before), _) => {
                println!("{before} and the log behind it lead to the same as {backup}")
            }
            (None, Some(gap)) => {
                println!("no log leads to {backup} from the backup before it: {gap} is not there")
            }
            (None, None) => println!("{backup} is the only backup"),
        }
    }

    /// Of a destination.
    pub fn fit(self) {
        match self {
            Output::Json => print_json(&json!({ "fit": true })),
            Output::Text => println!("backups can be written here"),
        }
    }

    pub fn progress(self, progress: &v1::BackupProgress) {
        if self == Output::Text {
            println!(
                "{}  {} of {} bytes",
                phase_name(progress.phase()),
                progress.bytes_done,
                progress.bytes_total
            );
        }
    }

    pub fn created(self, facts: &v1::BackupFacts) {
        let at = facts.log_id.unwrap_or_default();
        let of = facts.r#ref.clone().unwrap_or_default();
        match self {
            Output::Json => print_json(&json!({
                "name": of.name,
                "checksum": of.checksum,
                "cluster_id": facts.cluster_id,
                "incarnation": facts.incarnation,
                "index": at.index,
                "bytes": facts.bytes,
                "state_hash": facts.state_hash,
            })),
            Output::Text => println!(
                "{} complete: index {}, {} tasks, {} bytes, state {}",
                of.name, at.index, facts.tasks, facts.bytes, facts.state_hash
            ),
        }
    }
}

fn listed_json(lineage: &Lineage, listed: &Listed) -> Value {
    let mut row = json!({
        "cluster_id": lineage.cluster_id,
        "incarnation": lineage.incarnation,
        "name": listed.name,
    });
    let facts = match &listed.state {
        State::Complete(manifest) => json!({
            "state": "complete",
            "created_at_ms": manifest.created_at_ms,
            "index": manifest.log_id.index,
            "tasks": manifest.counts.tasks,
            "bytes": manifest.snapshot.bytes,
        }),
        State::Unfinished { modified_ms } => {
            json!({ "state": "unfinished", "modified_ms": modified_ms })
        }
        State::Unreadable(error) => json!({ "state": "unreadable", "error": error.to_string() }),
    };
    if let (Value::Object(row), Value::Object(facts)) = (&mut row, facts) {
        row.extend(facts);
    }
    row
}

fn phase_name(phase: v1::BackupPhase) -> &'static str {
    match phase {
        v1::BackupPhase::Verifying => "verifying",
        v1::BackupPhase::Done => "done",
        v1::BackupPhase::Uploading | v1::BackupPhase::Unspecified => "uploading",
    }
}

fn time(ms: u64) -> String {
    let stamp = i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    stamp.map_or_else(|| format!("{ms} ms"), |stamp| format!("{stamp:.0}"))
}

fn print_json(json: &Value) {
    println!("{json:#}");
}
