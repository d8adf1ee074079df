//! One trial: a volume is opened as a member opens it, and must end in the row that was named before.

use std::fmt::Debug;

use openraft::storage::{RaftLogReader, RaftLogStorage};
use taskstore::storage::start::StartError;
use taskstore::storage::types::Vote;

use crate::scene::{self, End, Files, Kind, Scene, TERM};
use crate::tally::Tally;

/// How a start ends, by the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// From the snapshot at `base`, or the log's start, to the entry `end`; a fresh volume has neither.
    Starts {
        base: Option<u64>,
        end: Option<u64>,
    },
    /// With a reason in which these words stand.
    Damaged(&'static str),
    Blank,
    Removed,
}

#[derive(Debug)]
enum Outcome {
    Starts {
        base: Option<u64>,
        end: Option<u64>,
        /// None: what it holds is no state that the member ever had.
        is: Option<End>,
    },
    Damaged(String),
    Blank,
    Removed,
    /// Neither accepted nor refused: the process would end and try again.
    Undecided(#[allow(dead_code, reason = "a failing trial tells it")] String),
}

/// Opens the files and notes how that ended.
pub async fn run(tally: &mut Tally, scene: &Scene, files: &Files, expected: Row, what: &str) {
    let outcome = open(scene.kind, files).await;
    let (row, is_right) = match (&outcome, expected) {
        (
            Outcome::Starts { base, end, is },
            Row::Starts {
                base: from,
                end: to,
            },
        ) => {
            let should = to.map(|to| &scene.ends[&to]);
            (
                "starts",
                (*base, *end) == (from, to) && is.as_ref() == should,
            )
        }
        (Outcome::Starts { .. }, _) => ("starts", false),
        (Outcome::Damaged(reason), Row::Damaged(words)) => ("damaged", reason.contains(words)),
        (Outcome::Damaged(_), _) => ("damaged", false),
        (Outcome::Blank, expected) => ("blank", expected == Row::Blank),
        (Outcome::Removed, expected) => ("removed", expected == Row::Removed),
        (Outcome::Undecided(_), _) => ("undecided", false),
    };
    let wrong = format!(
        "{:?}, {what}: {outcome:?}, expected {expected:?}",
        scene.kind
    );
    // Whoever starts must hold what the member had.
    let is_silent = row == "starts" && !is_right;
    tally.note(row, is_silent, (!is_right).then_some(wrong));
}

async fn open(kind: Kind, files: &Files) -> Outcome {
    let root = scene::written(files);
    let mut member = match scene::open(root.path()).await {
        Ok(Some(member)) => member,
        Ok(None) => return Outcome::Blank,
        Err(StartError::Damaged(reason)) => return Outcome::Damaged(reason),
        Err(StartError::Removed) => return Outcome::Removed,
        Err(other) => return Outcome::Undecided(other.to_string()),
    };
    let base = member.applied().map(|applied| applied.index);
    let is_whole = member.replay().await;
    let end = member.applied().map(|applied| applied.index);
    let vote = member.log.read_vote().await.unwrap();
    let last = member.log.get_log_state().await.unwrap().last_log_id;
    if last != member.applied() {
        return Outcome::Starts {
            base,
            end,
            is: None,
        };
    }
    member.cut().await;
    let newest = member.store.snapshots().newest();
    let has_vote = vote == (kind != Kind::Fresh).then(|| Vote::new(TERM, 3));
    let is = newest
        .filter(|newest| {
            let hash = member.store.read(|state| state.hash());
            is_whole
                && has_vote
                && Some(newest.position().index) == end
                && newest.header.state_hash == hash
        })
        .map(|newest| (newest.header.state_hash, newest.id));
    Outcome::Starts { base, end, is }
}

/// The row of a volume that nothing happened to.
pub fn untouched(scene: &Scene) -> Row {
    crate::snapshots::row(scene.kind, crate::snapshots::Fates::default())
}

pub fn name(parts: &[&dyn Debug]) -> String {
    let parts: Vec<String> = parts.iter().map(|part| format!("{part:?}")).collect();
    parts.join(" ")
}
