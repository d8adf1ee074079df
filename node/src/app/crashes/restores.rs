//! A restore while it is crashed. Afterwards the volume is blank, or the new member's with all that was asked
//! for; and the restore, run again, comes to the same state.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::history::History;
use super::lab::{Lab, Report, scratch};
use super::member::{GEOMETRY, Rig};
use super::rewrites::{NEW_MEMBER, is_begun};
use super::volume::Left;
use crate::app::disk;
use crate::app::restore::fill;
use crate::backup::credentials::Credentials;
use crate::backup::destination::Destination;
use crate::backup::error::Error;
use crate::backup::layout::{BackupName, Lineage};
use crate::backup::log::replay::Upto;
use crate::backup::log::ship::{End, Source, Step, step};
use crate::backup::manifest::{Creator, Manifest};
use crate::backup::progress::Noted;
use crate::backup::restore::{Facts, Wanted};
use crate::backup::write::{Order, write};
use crate::config::RestoreOrder;
use crate::storage::identity::{Content, Volume};
use crate::storage::types::Entry;

const SEGMENT_ENTRIES: usize = 7;

/// A bucket with the history up to some entry.
pub struct Written {
    folder: TempDir,
    pub backups: Vec<Manifest>,
}

/// All of it is committed up to an entry.
struct Committed<'a>(&'a History, u64);

impl Source for Committed<'_> {
    async fn committed(&self, from: u64, _bytes_max: usize) -> io::Result<Option<Vec<Entry>>> {
        let upto = (from + SEGMENT_ENTRIES as u64).min(self.1 + 1);
        Ok(Some(self.0.slice(from..upto.max(from))))
    }
}

pub fn lineage() -> Lineage {
    Lineage::new("c", 1).unwrap()
}

impl Written {
    /// A backup at each of these entries, `b-1` and so on, and the log behind the first one.
    pub async fn new(history: &History, backups: &[u64], last: u64) -> Written {
        let mut written = Written {
            folder: scratch(),
            backups: Vec::new(),
        };
        let bucket = written.order(Upto::Latest).from;
        let bucket = bucket.connect(&Credentials::Environment).await.unwrap();
        for (n, index) in backups.iter().enumerate() {
            let folder = scratch();
            let snapshot = history.snapshot(folder.path(), *index).await;
            let order = Order {
                name: BackupName::parse(&format!("b-{}", n + 1)).unwrap(),
                previous: None,
                created_at_ms: 0,
                created_by: Creator {
                    member_id: NEW_MEMBER,
                    version: String::new(),
                },
                bytes_per_second_max: None,
            };
            let manifest = write(&bucket, &snapshot, &order, &Noted::default()).await;
            written.backups.push(manifest.unwrap());
        }
        let first = &written.backups[0];
        let mut end = End::of_backup(first.log_id.into(), first.wall_time_ms);
        let source = Committed(history, last);
        while let Step::Shipped(next) = step(&bucket, &lineage(), &end, &source).await.unwrap() {
            end = next;
        }
        written
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn order(&self, upto: Upto) -> RestoreOrder {
        RestoreOrder {
            from: Destination {
                url: format!("file://{}", self.path().display()),
                ..Destination::default()
            },
            credentials: Credentials::Environment,
            wanted: Wanted {
                lineage: lineage(),
                backup: None,
                upto,
            },
        }
    }
}

impl Rig {
    /// As the process does it on a blank volume, with a small log.
    pub async fn restore(&self, root: &Path, order: &RestoreOrder) -> Result<Facts, Error> {
        let volume = Arc::new(Volume::open(root)?);
        let config = self.config_of(root, NEW_MEMBER);
        let successor = disk::successor(&config, GEOMETRY);
        fill(&volume, successor, order, &Noted::default()).await
    }
}

/// The new member starts with what was restored.
pub async fn is_restored(rig: &Rig, root: &Path, index: u64) -> Result<(), String> {
    let last = rig.history.id(index);
    is_begun(rig, root, last, last.leader_id.term, "store-1").await
}

pub async fn restore(rig: &Rig, report: &mut Report) {
    let written = Written::new(&rig.history, &[20], 41).await;
    let mut lab = Lab::blank(rig, "restore");
    lab.watch();
    let order = written.order(Upto::Latest);
    rig.restore(lab.root(), &order).await.unwrap();
    let recorded = lab.recorded();
    report.scenarios += 1;
    report.count(&recorded);
    for (left, how) in recorded.distinct_ends() {
        if let Err(wrong) = go_on(rig, left, &order, report).await {
            report.wrong.push(format!("{}: {how}: {wrong}", lab.name));
        }
    }
}

async fn go_on(
    rig: &Rig,
    left: &Left,
    order: &RestoreOrder,
    report: &mut Report,
) -> Result<(), String> {
    let volume = scratch();
    left.tree().write_to(volume.path());
    report.starts += 1;
    let content = Volume::open(volume.path()).map(|volume| volume.content());
    let content = content.map_err(|error| error.to_string())?;
    if let Content::Blank = content.map_err(|error| error.to_string())? {
        let restored = rig.restore(volume.path(), order).await;
        restored.map_err(|error| error.to_string())?;
    }
    is_restored(rig, volume.path(), 41).await
}
