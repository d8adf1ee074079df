//! A rewrite of the identity while it is crashed. Afterwards the former member starts with all that it had, or
//! the volume is the new member's; and the rewrite, run again, comes to the same state.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use openraft::storage::RaftLogReader;

use super::history::MEMBER;
use super::lab::{Lab, Report, scratch};
use super::member::{Driver, Rig};
use super::promises::{Life, Promises};
use super::volume::{Image, Left};
use crate::app::rewrite;
use crate::member::{Member, Phase};
use crate::storage::step::Step;
use crate::storage::types::{LogId, Vote};

pub const NEW_MEMBER: u64 = (2 << 32) + 1;
/// Above all terms of the history.
const VOTED: u64 = 4;

impl Rig {
    /// As the process does it; an error says what the volume is found to be, or that it has to be tried again.
    pub async fn rewrite(&self, root: &Path, from: u64, to: u64) -> Result<Arc<Member>, String> {
        let mut config = self.config_of(root, to);
        config.rewrite_from = Some(from);
        config.validate()?;
        let member = self.member(config);
        let done = rewrite::run(&member, from).await;
        done.map_err(|error| format!("{error:#}"))?;
        match member.phase() {
            Phase::Recovering => Ok(member),
            refused => Err(format!("{refused:?}")),
        }
    }

    pub async fn start_as(&self, root: &Path, member_id: u64) -> Result<Driver, String> {
        let promises = Arc::new(Mutex::new(Promises::of(Life::Member)));
        let config = self.config_of(root, member_id);
        let started = self.try_start_as(config, promises).await?;
        started.ok_or_else(|| "it was removed".into())
    }
}

/// Snapshots, a purged log, and a tail of which the member does not know that it is committed.
async fn volume<'a>(rig: &'a Rig, name: &'static str, image: Image) -> (Lab<'a>, LogId) {
    let mut lab = Lab::formatted(rig, name);
    lab.image = image;
    let mut member = lab.start().await;
    for part in 0..3 {
        member
            .agree(rig.history.slice(part * 12..part * 12 + 12))
            .await;
        member.keep().await;
        if part < 2 {
            member.cut().await.unwrap();
        }
    }
    member.purge_behind_the_older(&rig.history).await;
    member.vote(Vote::new_committed(VOTED, 9)).await;
    member.append(rig.history.slice(36..42)).await;
    member.stop();
    (lab, rig.history.id(41))
}

async fn crashed(mut lab: Lab<'_>, last: LogId, report: &mut Report) {
    let recorded = lab.recorded();
    report.scenarios += 1;
    report.count(&recorded);
    for (left, how) in recorded.distinct_ends() {
        if let Err(wrong) = start_all(&lab, left, last, report).await {
            report.wrong.push(format!("{}: {how}: {wrong}", lab.name));
        }
    }
}

async fn start_all(
    lab: &Lab<'_>,
    left: &Left,
    last: LogId,
    report: &mut Report,
) -> Result<(), String> {
    let rig = lab.rig;
    let again = || {
        let volume = scratch();
        left.tree().write_to(volume.path());
        volume
    };
    report.starts += 3;
    let volume = again();
    rig.rewrite(volume.path(), MEMBER, NEW_MEMBER).await?;
    is_rewritten(rig, volume.path(), last, VOTED).await?;
    let volume = again();
    match rig.start_as(volume.path(), MEMBER).await {
        Ok(mut former) => {
            former
                .apply_all()
                .await
                .map_err(|error| error.to_string())?;
            if former.hash() != rig.history.hash(Some(last)) {
                return Err("the former member has another state".into());
            }
            former.stop();
            rig.rewrite(volume.path(), MEMBER, NEW_MEMBER).await?;
        }
        Err(refused) if refused.contains("stamped with incarnation 2") => {}
        Err(refused) => return Err(refused),
    }
    is_rewritten(rig, volume.path(), last, VOTED).await
}

/// The new member starts with what it should have and nothing beside it; `voted` is the highest term that the
/// former member knew of.
pub async fn is_rewritten(rig: &Rig, root: &Path, last: LogId, voted: u64) -> Result<(), String> {
    is_begun(rig, root, last, voted, "store-2").await
}

/// The same, in the directory of this name.
pub async fn is_begun(
    rig: &Rig,
    root: &Path,
    last: LogId,
    voted: u64,
    directory: &str,
) -> Result<(), String> {
    let mut member = rig.start_as(root, NEW_MEMBER).await?;
    let vote = member.disk.log.read_vote().await.unwrap();
    if vote != Some(Vote::new(voted + 1, NEW_MEMBER)) {
        return Err(format!("votes {vote:?}"));
    }
    if (member.last().await, member.applied()) != (Some(last), Some(last)) {
        return Err(format!("ends at {:?}", member.last().await));
    }
    if member.hash() != rig.history.hash_rewritten(last, NEW_MEMBER) {
        return Err("the new member has another state".into());
    }
    if let Some(seq) = member.task_without_payload().await {
        return Err(format!("task {seq} has not its payload"));
    }
    member.stop();
    let names = std::fs::read_dir(root).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut stores: Vec<_> = names.filter(|name| name.starts_with("store-")).collect();
    match stores.pop().as_deref() {
        Some(only) if only == directory && stores.is_empty() => Ok(()),
        _ => Err(format!("another directory is left: {stores:?}")),
    }
}

pub async fn rewrite(rig: &Rig, report: &mut Report) {
    let (mut lab, last) = volume(rig, "rewrite", Image::Lost).await;
    std::fs::remove_dir_all(lab.root().join("store-1/image")).unwrap();
    lab.watch();
    rig.rewrite(lab.root(), MEMBER, NEW_MEMBER).await.unwrap();
    crashed(lab, last, report).await;
}

pub async fn rewrite_of_an_image(rig: &Rig, report: &mut Report) {
    let (mut lab, last) = volume(rig, "rewrite of an image", Image::Left).await;
    lab.watch();
    rig.rewrite(lab.root(), MEMBER, NEW_MEMBER).await.unwrap();
    crashed(lab, last, report).await;
}

/// The image and the older snapshot go, and it is tried again.
pub async fn rewrite_on_a_full_disk(rig: &Rig, report: &mut Report) {
    let (mut lab, last) = volume(rig, "rewrite on a full disk", Image::Left).await;
    let recorder = lab.watch();
    recorder.fail_once(Step::CutWrite, io::ErrorKind::StorageFull);
    rig.rewrite(lab.root(), MEMBER, NEW_MEMBER).await.unwrap();
    crashed(lab, last, report).await;
}
