//! How another directory takes the place of the one in use: it is made beside it, and one rename of `CURRENT`
//! switches. Until then the old one is not touched; after it the old one goes.
//!
//! ```text
//! store-2.rewriting ─▶ filled, fsynced ─▶ store-2 ─▶ CURRENT names it ─▶ store-1 emptied
//!                                                      ─▶ log's space reserved ─▶ store-1 removed
//! ```
//!
//! On a blank volume it is made as `store-1.formatting` and becomes `store-1`, as by a format.
//!
//! The old log has the space that the new one needs, so of that only the first segment is reserved before. As
//! long as the old directory's name is there, this is not finished; a start finishes it.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::{Content, FIRST, FORMATTING, Home, Identity, Stamp, Volume, make, remove_unfinished};
use crate::storage::files::{empty_directory, remove_tree_if_there, sync_directory};
use crate::storage::log::segment::{self, Space};
use crate::storage::log::{Geometry, LogError};
use crate::storage::step::Step;

const PREFIX: &str = "store-";
const REWRITING: &str = ".rewriting";

fn name_of(identity: &Identity) -> String {
    format!("{PREFIX}{}", identity.incarnation)
}

impl Volume {
    /// Makes a directory for a member of a later incarnation, or of any on a blank volume, with an empty log, stamped
    /// as one that holds frames. What earlier tries have left goes, so that its space is free.
    pub fn begin_home(&self, identity: Identity, log: Geometry) -> Result<Home, LogError> {
        if let Content::Blank = self.content()? {
            return self.begin_first(initialized(identity, log));
        }
        let name = name_of(&identity);
        let in_use = self.current()?;
        if name == FIRST || in_use.as_deref().is_none_or(|in_use| in_use == name) {
            let reason = format!("{name} cannot take the place of {in_use:?}");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, reason).into());
        }
        let is_left = |path: &PathBuf| {
            let left = path.file_name().map(|name| name.to_string_lossy());
            left.is_some_and(|left| left == name || left.ends_with(REWRITING))
        };
        for left in self.directories()?.iter().filter(|path| is_left(path)) {
            remove_unfinished(left)?;
        }
        let making = self.unfinished(&identity);
        make(&making, &initialized(identity, log), Space::FirstSegment)?;
        Home::open(making)
    }

    fn unfinished(&self, identity: &Identity) -> PathBuf {
        self.root.join(name_of(identity) + REWRITING)
    }

    /// Gives the disk its space back. A directory that was finished stays.
    pub fn abandon_home(&self, identity: &Identity) -> io::Result<()> {
        let (making, first) = (self.root.join(FORMATTING), self.root.join(FIRST));
        if making.try_exists()? && !first.try_exists()? {
            self.forget_current()?;
        }
        remove_unfinished(&making)?;
        remove_unfinished(&self.unfinished(identity))
    }

    /// Everything in it is on the disk. From here on the volume belongs to the member it is stamped for.
    pub fn switch_to(&self, finished: Home) -> Result<Home, LogError> {
        if finished.directory == self.root.join(FORMATTING) {
            return self.use_first();
        }
        let name = name_of(&finished.stamp().identity);
        let home = self.root.join(&name);
        self.name_directory(&finished.directory, &home)?;
        self.use_directory(&name)?;
        Home::open(home)
    }

    /// Removes every other directory, and reserves what the log of this one lacks.
    pub fn finish_switch(&self, home: &Home) -> io::Result<()> {
        let mut others = self.directories()?;
        others.retain(|path| *path != home.directory);
        for other in &others {
            empty_directory(Step::OldHomeEmpty, other)?;
        }
        if others.is_empty() {
            return Ok(());
        }
        segment::reserve(&home.log_directory(), home.stamp().log)?;
        for other in &others {
            remove_tree_if_there(Step::OldHomeRemove, other)?;
            tracing::info!(directory = %other.display(), "removed: another is in use");
        }
        sync_directory(Step::OldHomeSync, &self.root)
    }

    /// In use or not.
    fn directories(&self) -> io::Result<Vec<PathBuf>> {
        let mut directories = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
            if is_ours && entry.file_type()?.is_dir() {
                directories.push(entry.path());
            }
        }
        Ok(directories)
    }
}

fn initialized(identity: Identity, log: Geometry) -> Stamp {
    Stamp {
        identity,
        log,
        is_initialized: true,
        is_removed: false,
        is_fenced: false,
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const LOG: Geometry = Geometry {
        segment_bytes: 8192,
        segments: 3,
    };

    fn identity(incarnation: u16) -> Identity {
        Identity {
            cluster_id: "c".into(),
            incarnation,
            member_id: u64::from(incarnation) << 32 | 1,
            volume_uid: "v".into(),
        }
    }

    fn in_use(volume: &Volume) -> Home {
        match volume.content().unwrap() {
            Content::Stamped(home) => home,
            Content::Blank => panic!("it is stamped"),
        }
    }

    fn names(root: &TempDir) -> Vec<String> {
        let names = fs::read_dir(root.path()).unwrap();
        let mut names: Vec<String> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_home_is_in_use_from_the_switch_on_and_the_old_one_goes_after_it() {
        let root = TempDir::new().unwrap();
        let volume = Volume::open(root.path()).unwrap();
        volume.format(identity(1), LOG).unwrap();
        assert!(volume.begin_home(identity(1), LOG).is_err(), "in use");
        let unfinished = volume.begin_home(identity(2), LOG).unwrap();
        assert_eq!(in_use(&volume).stamp().identity, identity(1));
        let again = volume.begin_home(identity(2), LOG).unwrap();
        assert_eq!(again.directory, unfinished.directory);
        volume.switch_to(again).unwrap();
        let home = in_use(&volume);
        assert_eq!(home.stamp().identity, identity(2));
        assert!(home.stamp().is_initialized);
        assert_eq!(names(&root), ["CURRENT", "lock", "store-1", "store-2"]);
        volume.finish_switch(&home).unwrap();
        assert_eq!(names(&root), ["CURRENT", "lock", "store-2"]);
        for slot in 0..LOG.segments {
            use std::os::unix::fs::MetadataExt;
            let segment = home.log_directory().join(format!("segment-{slot:04}"));
            let metadata = fs::metadata(segment).unwrap();
            assert_eq!(metadata.len(), u64::from(LOG.segment_bytes));
            assert!(metadata.blocks() * 512 >= metadata.len(), "reserved");
        }
    }

    #[test]
    fn what_a_cut_off_switch_left_goes_at_the_next_start_of_either_member() {
        let root = TempDir::new().unwrap();
        let volume = Volume::open(root.path()).unwrap();
        volume.format(identity(1), LOG).unwrap();
        volume.begin_home(identity(2), LOG).unwrap();
        volume.begin_home(identity(4), LOG).unwrap();
        volume.abandon_home(&identity(4)).unwrap();
        volume.finish_switch(&in_use(&volume)).unwrap();
        assert_eq!(names(&root), ["CURRENT", "lock", "store-1"]);
        volume.begin_home(identity(3), LOG).unwrap();
        let unfinished = volume.begin_home(identity(2), LOG).unwrap();
        let only = ["CURRENT", "lock", "store-1", "store-2.rewriting"];
        assert_eq!(names(&root), only, "the other try's space is free");
        let named = root.path().join("store-2");
        fs::rename(&unfinished.directory, named).unwrap();
        let made_anew = volume.begin_home(identity(2), LOG).unwrap();
        volume.switch_to(made_anew).unwrap();
        assert!(volume.begin_home(identity(2), LOG).is_err(), "in use");
        fs::create_dir(root.path().join("store-9.rewriting")).unwrap();
        volume.finish_switch(&in_use(&volume)).unwrap();
        assert_eq!(names(&root), ["CURRENT", "lock", "store-2"]);
    }
}
