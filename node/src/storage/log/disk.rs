//! The seam through which the log changes its files, so that tests can fail a write or an fsync and cut
//! the power. Production uses `SystemDisk`, which has no state and costs nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// A file of the log, by its place in the ring of segments.
#[derive(Debug)]
pub struct SegmentFile {
    pub slot: u32,
    pub path: PathBuf,
    pub file: File,
}

pub trait Disk: Clone + Send + Sync + 'static {
    fn write_at(&self, file: &SegmentFile, bytes: &[u8], offset_bytes: u64) -> io::Result<()>;
    /// Returns when the bytes written before are on the disk. Never called again after it failed once:
    /// the kernel may have dropped what it could not write.
    fn sync(&self, file: &SegmentFile) -> io::Result<()>;
    /// From here on reads give what is on the disk. After a failed write-back the kernel keeps pages that
    /// never reached it, clean, and another process would read and trust them.
    fn forget_cached(&self, file: &SegmentFile) -> io::Result<()>;
}

/// What was only in memory goes to the disk first: pages that are not clean would stay.
fn drop_pages(file: &SegmentFile) -> io::Result<()> {
    file.file.sync_data()?;
    rustix::fs::fadvise(&file.file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn write_at(&self, file: &SegmentFile, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        file.file.write_all_at(bytes, offset_bytes)
    }

    fn sync(&self, file: &SegmentFile) -> io::Result<()> {
        file.file.sync_data()
    }

    fn forget_cached(&self, file: &SegmentFile) -> io::Result<()> {
        drop_pages(file)
    }
}

/// Changes nothing: for looking at a log without becoming its owner. What would have been cut or carried
/// forward stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOnlyDisk;

impl Disk for ReadOnlyDisk {
    fn write_at(&self, _file: &SegmentFile, _bytes: &[u8], _offset_bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self, _file: &SegmentFile) -> io::Result<()> {
        Ok(())
    }

    fn forget_cached(&self, file: &SegmentFile) -> io::Result<()> {
        drop_pages(file)
    }
}
