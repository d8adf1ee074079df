//! Files and directories that are on the disk when a call returns, and what an error of theirs means.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Writes a file whole or not at all: a temporary one, fsync, rename, fsync of the directory.
pub fn replace(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.tmp"));
    write_synced(&temporary, bytes)?;
    fs::rename(&temporary, directory.join(name))?;
    sync_directory(directory)
}

/// Its content is on the disk on return, its name not yet.
pub fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Makes a directory and those above it. All their names are on the disk on return.
pub fn create_directory(directory: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = directory
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
        .collect();
    fs::create_dir_all(directory)?;
    for made in missing {
        match made.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent)?,
            _ => sync_directory(Path::new("."))?,
        }
    }
    Ok(())
}

pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether a read failed because of what is on the disk: bytes that are not right, that are missing, or
/// that the disk cannot give. Every other failure may be gone at the next try.
pub fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    ) || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_with_those_above_it_and_a_second_time_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b/c");
        create_directory(&deep).unwrap();
        fs::write(deep.join("kept"), b"x").unwrap();
        create_directory(&deep).unwrap();
        assert!(deep.join("kept").exists());
    }

    #[test]
    fn only_what_the_disk_holds_is_damage() {
        let damage = [
            io::ErrorKind::InvalidData.into(),
            io::ErrorKind::UnexpectedEof.into(),
            rustix::io::Errno::IO.into(),
        ];
        let passing: [io::Error; 4] = [
            rustix::io::Errno::NOSPC.into(),
            rustix::io::Errno::MFILE.into(),
            rustix::io::Errno::ACCESS.into(),
            io::Error::other("a task panicked"),
        ];
        assert!(damage.iter().all(is_damage));
        assert!(!passing.iter().any(is_damage));
    }
}
