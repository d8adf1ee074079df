//! Every place where the storage changes a file or a directory, by name. Each operation passes through
//! `take`, which in production is the operation alone; in tests whoever watches the directory sees the disk
//! before and after it, or lets it fail.
//!
//! A new place gets a new step: a test fails while a step is never crashed, and while an operation has none.

use std::path::Path;

#[cfg(not(test))]
pub use production::take;
#[cfg(test)]
pub use watch::take;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub mod watch;

macro_rules! steps {
    ($($step:ident),* $(,)?) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Step { $($step),* }

        #[cfg(test)]
        impl Step {
            pub const ALL: &[Step] = &[$(Step::$step),*];
        }
    };
}

steps! {
    // The volume and its stamp.
    VolumeDirectory,
    VolumeLock,
    VolumeSync,
    HomeNamesSync,
    SnapshotNamesSync,
    UnusedCurrentRemove,
    UnusedCurrentSync,
    UnfinishedRemove,
    SnapshotsDirectory,
    StampWrite,
    CurrentReplace,
    HomeRename,
    HomeSync,
    StampChange,
    // What a rewrite of the identity leaves.
    SpareImageRemove,
    SpareFileRemove,
    OldHomeEmpty,
    OldHomeRemove,
    OldHomeSync,
    // The log's files, when they are made.
    LogDirectory,
    SegmentCreate,
    SegmentReserve,
    SegmentFill,
    SegmentSync,
    SegmentResize,
    SegmentResizeSync,
    LaterOpen,
    LaterReserve,
    LaterSync,
    MarkCreate,
    MarkFill,
    MarkSync,
    LogNamesSync,
    // The log at its start.
    LogForgetCached,
    TornCut,
    TornSync,
    LogTailSync,
    LogDirectorySync,
    // The log at work.
    FrameWrite,
    FrameSync,
    NextSegmentZero,
    NextSegmentSync,
    LogMarkWrite,
    LogMarkSync,
    // The folder of snapshots at its start.
    SnapshotsFolder,
    HalfCutRemove,
    OlderBadRemove,
    BadRename,
    BadSync,
    // A snapshot that is cut.
    CutCreate,
    CutWrite,
    CutSync,
    CutRemove,
    PublishRename,
    PublishSync,
    OldSnapshotRemove,
    BallastCreate,
    BallastResize,
    BallastReserve,
    BallastRemove,
    // A snapshot that is received.
    OtherTransferRemove,
    TransferOpen,
    ChunkWrite,
    TransferSync,
    TransferRestart,
    ArrivedMarkerWrite,
    ArrivedRename,
    ArrivedRemove,
    // A snapshot that is installed.
    CopyCreate,
    CopyWrite,
    CopySync,
    MarkerRename,
    MarkerSync,
    MarkerReplace,
    MarkerRemove,
    MarkerRemoveSync,
    // The image: its own files are sled's business, so its steps are what is asked of sled.
    ImageCondemn,
    ImageAbsolve,
    ImageRemove,
    ImageMake,
    ImageOpen,
    ImagePayloads,
    ImageRows,
    ImageFlush,
    ImageDrops,
}

/// What an operation does, and to whom.
#[derive(Debug, Clone, Copy)]
pub enum Act<'a> {
    Create(&'a Path),
    Write(&'a Path),
    Resize(&'a Path),
    Reserve(&'a Path),
    Sync(&'a Path),
    Rename(&'a Path),
    Remove(&'a Path),
    MakeDirectory(&'a Path),
    SyncDirectory(&'a Path),
}

impl Act<'_> {
    pub fn path(&self) -> &Path {
        match self {
            Act::Create(path)
            | Act::Write(path)
            | Act::Resize(path)
            | Act::Reserve(path)
            | Act::Sync(path)
            | Act::Rename(path)
            | Act::Remove(path)
            | Act::MakeDirectory(path)
            | Act::SyncDirectory(path) => path,
        }
    }
}

#[cfg(not(test))]
mod production {
    use std::io;

    use super::{Act, Step};

    #[inline(always)]
    pub fn take<T>(
        _: Step,
        _: Act<'_>,
        operation: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        operation()
    }
}
