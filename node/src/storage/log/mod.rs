//! The log on disk: entries, vote and committed, in frames over recycled segment files. It is the truth;
//! whoever cannot read it whole does not start Raft (I5).
//!
//! ```text
//! append, vote, truncate, purge ─▶ queue ─▶ writer: one frame = one write + one fdatasync ─▶ callbacks
//!                       │                                       │
//!                       └─▶ ring of recent entries ◀─ read ─▶ segment files (verified)
//! ```

pub mod disk;
pub mod frame;
pub mod index;
pub mod queue;
pub mod read;
pub mod recovery;
pub mod sector;
pub mod segment;
pub mod writer;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::files::is_damage;
use super::types::LogId;
use crate::limits::{LOG_SEGMENT_MIB_MAX, LOG_SEGMENT_MIB_MIN};
use sector::SECTOR_BYTES;

/// The log's files: fixed when the volume is formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    pub segment_bytes: u32,
    pub segments: u32,
}

impl Geometry {
    /// So many bytes in segments of 64 MiB, or in eight smaller ones that still hold the largest entry.
    pub fn for_budget(budget_bytes: u64) -> Geometry {
        let mib = ((budget_bytes / 8) >> 20).clamp(LOG_SEGMENT_MIB_MIN, LOG_SEGMENT_MIB_MAX);
        let segments = (budget_bytes / (mib << 20)).clamp(3, u64::from(u32::MAX));
        Geometry {
            segment_bytes: (mib as u32) << 20,
            segments: segments as u32,
        }
    }

    pub fn sectors(&self) -> usize {
        self.segment_bytes as usize / SECTOR_BYTES
    }

    pub fn budget_bytes(&self) -> u64 {
        u64::from(self.segment_bytes) * u64::from(self.segments)
    }

    /// What entries may fill: the last free segment takes votes and purges only.
    pub fn usable_bytes(&self) -> u64 {
        self.budget_bytes() - u64::from(self.segment_bytes)
    }

    /// One segment is written, one is made ready, one is kept for votes and purges of a full log.
    pub fn check(&self) -> io::Result<()> {
        let segment_bytes = self.segment_bytes as usize;
        if self.segments >= 3 && segment_bytes > 0 && segment_bytes.is_multiple_of(SECTOR_BYTES) {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a log needs at least 3 segments of whole sectors",
        ))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The files do not hold what was acknowledged, or cannot be told to.
    #[error("the log is damaged: {0}")]
    Damage(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl LogError {
    pub fn damage(reason: impl Into<String>) -> LogError {
        LogError::Damage(reason.into())
    }

    /// Of a failed read: what the disk cannot give is damage, every other error may be gone next time.
    pub fn of_read(error: io::Error) -> LogError {
        match is_damage(&error) {
            true => LogError::Damage(format!("it cannot be read: {error}")),
            false => LogError::Io(error),
        }
    }
}

/// Called once, when log, vote or identity could not be written: it ends the process (I6). Tests note it.
pub type FatalHook = Arc<dyn Fn(&'static str, &io::Error) + Send + Sync>;

/// Runs once, after the first frame is on the disk and before anyone hears of it.
pub type FirstFrameHook = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// Called with a purge point once it is on the disk.
pub type PurgedHook = Arc<dyn Fn(LogId) -> io::Result<()> + Send + Sync>;

/// Called with the time that one write and one fsync took.
pub type WroteHook = Arc<dyn Fn(Duration) + Send + Sync>;

/// What the log's writer calls, on its own thread, before it answers.
pub struct LogHooks {
    /// Before the first frame of this run is answered: an empty log is no longer a new one.
    pub first_frame: Option<FirstFrameHook>,
    pub purged: Option<PurgedHook>,
    /// How long each write and fsync of a frame took.
    pub wrote: Option<WroteHook>,
    pub fatal: FatalHook,
}

impl LogHooks {
    pub fn only_fatal(fatal: FatalHook) -> LogHooks {
        LogHooks {
            first_frame: None,
            purged: None,
            wrote: None,
            fatal,
        }
    }
}

/// The hook of production: the process ends at once, so that nothing is answered from a state that may
/// not be on the disk.
pub fn end_process() -> FatalHook {
    Arc::new(|what, error| {
        tracing::error!(what, %error, "storage failed, the process ends");
        eprintln!("storage failed ({what}): {error}; the process ends");
        std::process::exit(74)
    })
}
