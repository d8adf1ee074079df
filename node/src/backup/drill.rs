//! A restore drill: what lies in a bucket is loaded and replayed as a restore would, and what comes of it is
//! compared. It proves more than reading back: that backup and log together are the store.
//!
//! ```text
//! the backup before ─▶ + log up to the newest backup ─▶ its state hash and its count of tasks, or damaged
//! newest backup     ─▶ + log to its end              ─▶ what a restore would give now
//! ```

use std::path::Path;

use serde::Serialize;

use super::bucket::Bucket;
use super::error::Error;
use super::layout::{BackupName, Lineage};
use super::list::{State, backups};
use super::log::replay::Upto;
use super::manifest::Manifest;
use super::progress::Noted;
use super::restore::{Facts, Wanted, restore};

/// What a drill came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drilled {
    /// What a restore would give now.
    pub restorable: Facts,
    /// The backup that, with the log behind it, came to the same as the newest one.
    pub compared: Option<BackupName>,
    /// The object that the log lacks between the two: they could not be compared. Where no log is shipped, and where
    /// a chain had to start anew, that is as it should be.
    pub gap: Option<String>,
}

/// Needs the memory of a member with this state, and room for a snapshot in `folder`, which is left empty. The
/// error names the object that is wrong.
pub async fn drill(
    bucket: &Bucket,
    lineage: &Lineage,
    folder: &Path,
    noted: &Noted,
) -> Result<Drilled, Error> {
    let (before, newest) = newest_two(bucket, lineage).await?;
    let mut drilled = Drilled {
        restorable: rehearse(bucket, lineage, &newest, Upto::Latest, folder, noted).await?,
        compared: None,
        gap: None,
    };
    let Some(before) = before else {
        return Ok(drilled);
    };
    let upto = Upto::Index(newest.log_id.index);
    match rehearse(bucket, lineage, &before, upto, folder, noted).await {
        Ok(facts) => {
            is_same(&facts, &newest).map_err(|reason| {
                Error::damaged(bucket.name_of(&lineage.manifest(&newest.name)), reason)
            })?;
            drilled.compared = Some(before.name);
        }
        Err(Error::Missing { object }) => drilled.gap = Some(object),
        Err(error) => return Err(error),
    }
    Ok(drilled)
}

async fn rehearse(
    bucket: &Bucket,
    lineage: &Lineage,
    from: &Manifest,
    upto: Upto,
    folder: &Path,
    noted: &Noted,
) -> Result<Facts, Error> {
    let wanted = Wanted {
        lineage: lineage.clone(),
        backup: Some(from.name.clone()),
        upto,
    };
    let restored = restore(bucket, &wanted, folder, noted).await?;
    Ok(restored.facts)
}

pub(crate) fn is_same(replayed: &Facts, backup: &Manifest) -> Result<(), String> {
    let replayed_says = (&replayed.state_hash, replayed.log_id, replayed.tasks);
    let it_says = (
        &backup.snapshot.state_hash,
        backup.log_id,
        backup.counts.tasks,
    );
    match replayed_says == it_says {
        true => Ok(()),
        false => Err(format!(
            "the log behind {} leads to another state: {replayed_says:?} instead of {it_says:?}",
            replayed.backup
        )),
    }
}

/// The newest whole backup, and the newest of those that end before it.
async fn newest_two(
    bucket: &Bucket,
    lineage: &Lineage,
) -> Result<(Option<Manifest>, Manifest), Error> {
    let mut whole = Vec::new();
    for listed in backups(bucket, lineage).await? {
        match listed.state {
            State::Complete(manifest) => whole.push(*manifest),
            State::Unreadable(error) => return Err(error),
            State::Unfinished { .. } => {}
        }
    }
    let Some(newest) = whole.pop() else {
        return Err(Error::Missing {
            object: format!("a backup in {}", bucket.name_of(&lineage.backups())),
        });
    };
    whole.retain(|backup| backup.log_id.index < newest.log_id.index);
    Ok((whole.pop(), newest))
}
