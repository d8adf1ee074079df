//! Files and directories that are on the disk when a call returns, and what an error of theirs means. The
//! storage changes nothing on the disk but through here and through the log's `Disk`: each operation names
//! its step.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::step::{Act, Step, take};

/// A file that is changed.
#[derive(Debug)]
pub struct ChangedFile {
    path: PathBuf,
    file: File,
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options
}

impl ChangedFile {
    /// Empty.
    pub fn create(step: Step, path: &Path) -> io::Result<ChangedFile> {
        ChangedFile::open(step, path, options().create(true).truncate(true))
    }

    /// An error if it is there.
    pub fn create_new(step: Step, path: &Path) -> io::Result<ChangedFile> {
        ChangedFile::open(step, path, options().create_new(true))
    }

    /// With what it holds.
    pub fn open_or_create(step: Step, path: &Path) -> io::Result<ChangedFile> {
        ChangedFile::open(step, path, options().create(true).truncate(false))
    }

    fn open(step: Step, path: &Path, how: &OpenOptions) -> io::Result<ChangedFile> {
        let file = take(step, Act::Create(path), || how.open(path))?;
        Ok(ChangedFile {
            path: path.into(),
            file,
        })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn write_at(&self, step: Step, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        take(step, Act::Write(&self.path), || {
            self.file.write_all_at(bytes, offset_bytes)
        })
    }

    /// Each write goes behind the one before.
    pub fn writer(&self, step: Step) -> impl Write {
        StepWriter { step, to: self }
    }

    pub fn resize(&self, step: Step, bytes: u64) -> io::Result<()> {
        take(step, Act::Resize(&self.path), || self.file.set_len(bytes))
    }

    /// Disk space for the first so many bytes.
    pub fn reserve(&self, step: Step, bytes: u64) -> io::Result<()> {
        take(step, Act::Reserve(&self.path), || {
            Ok(fallocate(&self.file, FallocateFlags::empty(), 0, bytes)?)
        })
    }

    /// Its content is on the disk on return, its name not yet.
    pub fn sync(&self, step: Step) -> io::Result<()> {
        take(step, Act::Sync(&self.path), || self.file.sync_all())
    }
}

struct StepWriter<'a> {
    step: Step,
    to: &'a ChangedFile,
}

impl Write for StepWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        take(self.step, Act::Write(&self.to.path), || {
            (&self.to.file).write(bytes)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a file whole or not at all: a temporary one, fsync, rename, fsync of the directory.
pub fn replace(step: Step, directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.tmp"));
    write_synced(step, &temporary, bytes)?;
    rename(step, &temporary, &directory.join(name))?;
    sync_directory(step, directory)
}

/// Its content is on the disk on return, its name not yet.
pub fn write_synced(step: Step, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = ChangedFile::create(step, path)?;
    file.write_at(step, bytes, 0)?;
    file.sync(step)
}

pub fn rename(step: Step, from: &Path, to: &Path) -> io::Result<()> {
    take(step, Act::Rename(to), || fs::rename(from, to))
}

pub fn sync_directory(step: Step, directory: &Path) -> io::Result<()> {
    take(step, Act::SyncDirectory(directory), || {
        File::open(directory)?.sync_all()
    })
}

/// Makes a directory and those above it. All their names are on the disk on return.
pub fn create_directory(step: Step, directory: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = directory
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
        .collect();
    take(step, Act::MakeDirectory(directory), || {
        fs::create_dir_all(directory)
    })?;
    for made in missing {
        match made.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_directory(step, parent)?,
            _ => sync_directory(step, Path::new("."))?,
        }
    }
    Ok(())
}

pub fn remove_if_there(step: Step, path: &Path) -> io::Result<()> {
    let removed = take(step, Act::Remove(path), || fs::remove_file(path));
    unless_missing(removed)
}

/// A directory with everything in it.
pub fn remove_tree_if_there(step: Step, path: &Path) -> io::Result<()> {
    let removed = take(step, Act::Remove(path), || fs::remove_dir_all(path));
    unless_missing(removed)
}

/// A directory loses everything in it and stays.
pub fn empty_directory(step: Step, path: &Path) -> io::Result<()> {
    take(step, Act::Remove(path), || {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
        Ok(())
    })
}

fn unless_missing(removed: io::Result<()>) -> io::Result<()> {
    match removed {
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
        create_directory(Step::VolumeDirectory, &deep).unwrap();
        fs::write(deep.join("kept"), b"x").unwrap();
        create_directory(Step::VolumeDirectory, &deep).unwrap();
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
