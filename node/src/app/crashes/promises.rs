//! What a restart may find: everything acknowledged, and of what was asked for since then any part, in
//! order.

use super::member::Driver;
use crate::storage::snapshot::Position;
use crate::storage::types::{LogId, Vote};

/// What a member is at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Blank,
    Member,
    Removed,
}

/// Each in the order in which it is asked for; the first is what was acknowledged last.
#[derive(Debug, Clone, PartialEq)]
pub struct Promises {
    pub lives: Vec<Life>,
    pub lasts: Vec<Option<LogId>>,
    pub votes: Vec<Option<Vote>>,
    /// Good ones, newest first.
    pub snapshots: Vec<Vec<Position>>,
}

impl Promises {
    pub fn of(life: Life) -> Promises {
        Promises {
            lives: vec![life],
            lasts: vec![None],
            votes: vec![None],
            snapshots: vec![Vec::new()],
        }
    }

    /// Why this is not what was promised.
    pub fn breach(&self, found: &Found) -> Option<String> {
        if let Some(wrong) = &found.wrong {
            return Some(wrong.clone());
        }
        if !self.lives.contains(&found.life) {
            return Some(format!("is {:?}", found.life));
        }
        if found.life != Life::Member {
            return None;
        }
        if !self.lasts.contains(&found.last) {
            return Some(format!("ends at {:?}", found.last));
        }
        if !self.votes.contains(&found.vote) {
            return Some(format!("votes {:?}", found.vote));
        }
        if !self.snapshots.contains(&found.snapshots) {
            return Some(format!("has the snapshots {:?}", found.snapshots));
        }
        None
    }
}

/// What a restart has found.
#[derive(Debug, Clone)]
pub struct Found {
    pub life: Life,
    pub last: Option<LogId>,
    pub vote: Option<Vote>,
    pub snapshots: Vec<Position>,
    /// Not a right state, whatever was promised.
    pub wrong: Option<String>,
}

impl Found {
    /// Once a member has started, it never forgets what it found.
    pub fn promised(&self, started: Option<&Driver>) -> Promises {
        let Some(started) = started else {
            return Promises::of(self.life);
        };
        Promises {
            lives: vec![Life::Member],
            lasts: vec![self.last],
            votes: vec![self.vote],
            snapshots: vec![started.disk.store.snapshots().positions()],
        }
    }

    pub fn wrong(what: String) -> Found {
        Found {
            life: Life::Member,
            last: None,
            vote: None,
            snapshots: Vec::new(),
            wrong: Some(what),
        }
    }
}
