//! What a power cut leaves of a member's files beside its log.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Name, length, time and number of a file.
type Listed = (PathBuf, u64, SystemTime, u64);

/// Everything but the log, as it stood at one moment: the processes still run, so a copy counts only if
/// nothing has changed meanwhile.
pub fn copy_files(from: &Path, to: &Path, rng: &mut fastrand::Rng) {
    let files = loop {
        let before = listed(from);
        let read = |(path, ..): &Listed| Some((path.clone(), fs::read(path).ok()?));
        let files: Option<Vec<_>> = before.iter().map(read).collect();
        if let Some(files) = files
            && listed(from) == before
        {
            break files;
        }
    };
    // A process that meets a damaged image may have to end, and all members are in this one: the image is lost
    // whole here, and damaged in trials of its own.
    let has_image = rng.u32(0..3) > 0;
    for (path, mut bytes) in files {
        if is_image(&path) && !has_image {
            continue;
        }
        let to = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        if is_unsynced(&path) && !bytes.is_empty() {
            let at = rng.usize(0..bytes.len());
            match rng.u32(0..4) {
                0 => continue,
                1 => bytes.truncate(at),
                2 => bytes[at..].fill(0),
                _ => {}
            }
        }
        fs::write(to, bytes).unwrap();
    }
}

/// Whether the power may take of it what it likes: a file that has its own name was synced before it got
/// it.
fn is_unsynced(path: &Path) -> bool {
    path.extension().is_some_and(|is| is == "tmp")
}

fn is_image(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "image")
}

fn listed(root: &Path) -> Vec<Listed> {
    let mut listed = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            // One that has gone meanwhile makes the next look differ.
            let Ok(is) = fs::metadata(&path) else {
                continue;
            };
            match is.is_dir() {
                true if path.ends_with("store-1/log") => {}
                true => directories.push(path),
                false => listed.push((path, is.len(), is.modified().unwrap(), is.ino())),
            }
        }
    }
    listed.sort();
    listed
}
