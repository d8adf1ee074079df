//! `--rewrite-from`: gives the volume of a member to another one of a later incarnation, which is its cluster's
//! only voter, and reports what it then holds. The recovery of a lost majority begins with this, on the member
//! whose log reaches furthest. No vote, no serving.
//!
//! | The volume is | Done |
//! |---|---|
//! | the former member's | rewritten, then reported |
//! | the new member's | reported: the rewrite is done |
//! | anything else, or damaged | reported as what it is; nothing is changed |
//!
//! It is cut off at any moment and run again: until the switch the former member can start on it, too. On a
//! full disk all goes that can be had again from what stays; then the process ends, to be started again.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::disk::{self, blocking, of_read};
use super::inspect;
use crate::member::{Member, Phase};
use crate::storage::codec::log_id;
use crate::storage::identity::{Content, Home, Identity, Volume};
use crate::storage::image;
use crate::storage::log::disk::ReadOnlyDisk;
use crate::storage::log::{LogHooks, end_process};
use crate::storage::log_store::LogOptions;
use crate::storage::rewrite::replay::{Before, replay};
use crate::storage::rewrite::{rewrite, spare};
use crate::storage::snapshot::{Look, Position, SnapshotHandle, Surveyed};
use crate::storage::start::{
    Decision, FoundOnDisk, LogFacts, LogRead, StartError, begin_log, decide, facts_of, read_log,
};
use crate::task::state::Bounds;

/// Rewrites and reports. An error is no word on the disk: the next try may succeed.
pub async fn run(member: &Arc<Member>, before: u64) -> anyhow::Result<()> {
    let rewritten = async {
        let volume = Arc::new(disk::open_volume(member).await?);
        rewrite_and_look(member, &volume, before).await
    };
    inspect::enter(member, rewritten.await)
}

async fn rewrite_and_look(
    member: &Member,
    volume: &Arc<Volume>,
    before: u64,
) -> Result<Phase, StartError> {
    let after = disk::identity(&member.config);
    let before = Identity {
        // Validated: it is below this member's incarnation.
        incarnation: (before >> 32) as u16,
        member_id: before,
        ..after.clone()
    };
    let mut has_spared = false;
    while let Some(home) = stamped(volume).await?
        && home.stamp().identity != after
    {
        let former = Former::read(&home, &before).await?;
        let base = former.base_without_image();
        match former.give_to(member, volume).await {
            Err(StartError::Io(full)) if full.kind() == ErrorKind::StorageFull => {
                if has_spared || !make_room(home, base).await? {
                    let reason = format!("the volume has no room for a second directory: {full}");
                    return Err(io::Error::new(ErrorKind::StorageFull, reason).into());
                }
                has_spared = true;
            }
            given => given?,
        }
    }
    let phase = inspect::look(member, volume).await?;
    // Not before the new directory was read whole.
    if let (Phase::Recovering, Some(home)) = (&phase, stamped(volume).await?) {
        disk::finish_switch(volume, &home).await?;
    }
    Ok(phase)
}

async fn stamped(volume: &Arc<Volume>) -> Result<Option<Home>, StartError> {
    match disk::content(volume).await? {
        Content::Stamped(home) => Ok(Some(home)),
        Content::Blank => Ok(None),
    }
}

/// What the former member can start from when there is no image.
enum OtherBase {
    None,
    Log,
    Snapshot(SnapshotHandle),
}

/// False: there is nothing that the volume could do without.
async fn make_room(home: Home, base: OtherBase) -> Result<bool, StartError> {
    let kept = match base {
        OtherBase::None => return Ok(false),
        OtherBase::Log => None,
        OtherBase::Snapshot(kept) => Some(kept),
    };
    tracing::warn!("the disk is full: what can be had again is removed");
    blocking(move || Ok(spare(&home, kept.as_ref())?)).await
}

fn nothing_to_give() -> StartError {
    let reason = "the log holds no entry: there is nothing to begin a new incarnation with";
    StartError::Damaged(reason.into())
}

/// The volume as the former member would start on it.
struct Former {
    home: Home,
    incarnation: u16,
    log: LogFacts,
    read: LogRead<ReadOnlyDisk>,
    image: Option<Box<image::Opened>>,
    surveyed: Vec<Surveyed>,
    found: FoundOnDisk,
    decision: Decision,
}

impl Former {
    async fn read(home: &Home, before: &Identity) -> Result<Former, StartError> {
        let stamp = home.stamp();
        if let Some(difference) = stamp.identity.difference(before) {
            return Err(StartError::Damaged(difference));
        }
        if stamp.is_removed {
            return Err(StartError::Removed);
        }
        let read = read_log(home, ReadOnlyDisk).await?;
        let log = facts_of(&read).map_err(StartError::Damaged)?;
        let of_snapshots = disk::of_snapshots(before);
        let (surveyed, mut found) = disk::survey(home, &of_snapshots, None, Look::Whole).await?;
        if log.range.last.is_none() && surveyed.is_empty() {
            return Err(nothing_to_give());
        }
        // Only now: sled writes when it opens.
        let image = disk::open_image(home, &of_snapshots).await?;
        found.image = image.as_ref().map(|image| {
            let Position { term, index } = image.header.position;
            log_id(term, index)
        });
        Ok(Former {
            home: home.clone(),
            incarnation: before.incarnation,
            log,
            read,
            image,
            surveyed,
            decision: decide(&stamp, before, Ok(log), found),
            found,
        })
    }

    fn base_without_image(&self) -> OtherBase {
        let found = FoundOnDisk {
            image: None,
            ..self.found
        };
        let stamp = self.home.stamp();
        let Decision::Start { base, .. } = decide(&stamp, &stamp.identity, Ok(self.log), found)
        else {
            return OtherBase::None;
        };
        match disk::base_of(&self.surveyed, base) {
            Some(snapshot) => OtherBase::Snapshot(snapshot),
            None => OtherBase::Log,
        }
    }

    async fn give_to(self, member: &Member, volume: &Arc<Volume>) -> Result<(), StartError> {
        let geometry = self.home.stamp().log;
        let (options, hooks) = (LogOptions::default(), LogHooks::only_fatal(end_process()));
        let started = begin_log(self.read, self.decision, options, hooks).await?;
        let before = Before {
            origin: disk::origin_of(started.base, self.image, &self.surveyed),
            image_directory: self.home.image_directory(),
            incarnation: self.incarnation,
        };
        let replayed = replay(before, started.log, Bounds::default(), end_process()).await;
        let replayed = replayed.map_err(|error| of_read("reading the former state", error))?;
        let (rescued, payloads) = replayed.ok_or_else(nothing_to_give)?;
        tracing::info!(
            last = %rescued.last,
            hash = %format_args!("{:032x}", rescued.state.hash()),
            "the former member's state is read"
        );
        let successor = disk::successor(&member.config, geometry);
        let given = rewrite(volume, successor, rescued, payloads, end_process()).await;
        given.map_err(|error| match error.kind() {
            // Of the former snapshot or log: of what is written now every error may be gone at the next try.
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
                StartError::Damaged(format!("reading the former state: {error}"))
            }
            _ => StartError::Io(error),
        })
    }
}

#[cfg(test)]
mod tests;
