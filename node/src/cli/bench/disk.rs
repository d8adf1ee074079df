//! The disk's own pace: append a task's worth of bytes, fdatasync, again.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

const MEASURE_FOR: Duration = Duration::from_millis(500);
/// The file is filled ahead, as the log's segments are: no measured write allocates.
const FILE_BYTES: usize = 16 << 20;

/// Appends with fdatasync per second.
pub fn fdatasync_per_second(dir: &Path, bytes: usize) -> std::io::Result<f64> {
    let path = dir.join("fdatasync.probe");
    let measured = measure(&path, bytes);
    std::fs::remove_file(&path)?;
    measured
}

fn measure(path: &Path, bytes: usize) -> std::io::Result<f64> {
    use std::io::{Seek, SeekFrom};
    let mut file = File::create(path)?;
    file.write_all(&vec![0; FILE_BYTES])?;
    file.sync_all()?;
    file.seek(SeekFrom::Start(0))?;
    // Whole sectors, as the log writes them.
    let block = vec![7; bytes.next_multiple_of(512)];
    let (begin, mut writes, mut written) = (Instant::now(), 0u32, 0);
    while begin.elapsed() < MEASURE_FOR {
        if written + block.len() > FILE_BYTES {
            file.seek(SeekFrom::Start(0))?;
            written = 0;
        }
        file.write_all(&block)?;
        file.sync_data()?;
        written += block.len();
        writes += 1;
    }
    Ok(f64::from(writes) / begin.elapsed().as_secs_f64())
}
