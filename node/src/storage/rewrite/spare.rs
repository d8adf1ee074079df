//! What a volume can do without when a rewrite needs room.

use std::fs;
use std::io;

use crate::storage::files::{remove_if_there, remove_tree_if_there};
use crate::storage::identity::Home;
use crate::storage::snapshot::{INSTALLING, SnapshotHandle};
use crate::storage::step::Step;

/// Removes the image, and beside `kept` everything in the folder of snapshots. The volume still starts as
/// long as the log joins on to that one or begins at 0. False: there was nothing to remove.
pub fn spare(home: &Home, kept: Option<&SnapshotHandle>) -> io::Result<bool> {
    let image = home.image_directory();
    let mut has_removed = image.try_exists()?;
    remove_tree_if_there(Step::SpareImageRemove, &image)?;
    for entry in fs::read_dir(home.snapshots_directory())? {
        let path = entry?.path();
        let is_kept = kept.is_some_and(|kept| kept.path() == path);
        if is_kept || path.file_name().is_some_and(|name| name == INSTALLING) {
            continue;
        }
        remove_if_there(Step::SpareFileRemove, &path)?;
        has_removed = true;
    }
    Ok(has_removed)
}
