//! A state, entry by entry; and that of a volume with all that its log holds, the uncommitted tail too: it may have
//! been acknowledged by those who are lost. Nothing on the volume is changed, so it can still start as what it was, without that
//! tail: a log over `ReadOnlyDisk` is enough, and the image stays where it stands.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures::TryStreamExt;
use openraft::storage::{RaftLogReader, RaftLogStorage};
use tokio::runtime::Handle;

use super::payloads::{Cold, LogAgain, Payloads};
use super::{Rescued, blocking};
use crate::limits::REPLAY_PLACES_MORE;
use crate::storage::image::Image;
use crate::storage::image::watch::WatchThread;
use crate::storage::log::FatalHook;
use crate::storage::log::disk::Disk;
use crate::storage::log_store::LogStore;
use crate::storage::machine::decode;
use crate::storage::snapshot::SnapshotHandle;
use crate::storage::store::{Held, Origin};
use crate::storage::types::{Entry, LogId};
use crate::task::state::{Bounds, State};

/// Entries decoded at a time.
const ENTRIES_A_PIECE: usize = 64;

/// What the state is loaded from, and under which incarnation its log was written.
pub struct Before {
    pub origin: Origin,
    pub image_directory: PathBuf,
    pub incarnation: u16,
}

/// A state, entry by entry, and where the payloads came that its entries brought.
pub struct Replay {
    held: Held,
    incarnation: u16,
    /// (task, index of its entry), of finished tasks too until they are many.
    places: Vec<(u64, u64)>,
    /// How many were left when they were last looked through.
    places_kept: usize,
}

/// What a replay came to.
pub struct Replayed {
    pub state: State,
    /// None: nothing was loaded, and no entry was applied.
    pub last: Option<LogId>,
    /// (task, index of its entry), in order.
    pub places: Vec<(u64, u64)>,
}

impl Replay {
    /// From a verified snapshot of this incarnation.
    pub fn of_snapshot(
        handle: &SnapshotHandle,
        incarnation: u16,
        bounds: Bounds,
    ) -> io::Result<(Replay, Cold)> {
        let held = Held::load(handle, bounds)?;
        let base = held.base.clone();
        let cold = base.map_or(Cold::Nowhere, Cold::Snapshot);
        Ok((Replay::of(held, incarnation), cold))
    }

    fn of(held: Held, incarnation: u16) -> Replay {
        Replay {
            held,
            incarnation,
            places: Vec::new(),
            places_kept: 0,
        }
    }

    fn next_index(&self) -> u64 {
        self.held.applied.map_or(0, |applied| applied.index + 1)
    }

    /// An error: it cannot be applied, or is not the next one.
    pub fn apply(&mut self, entry: Entry) -> io::Result<()> {
        let (index, next) = (entry.log_id.index, self.next_index());
        if index != next {
            let reason = format!("entry {index} follows where {next} should");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        self.held.step(self.incarnation, decode(entry)?)?;
        let taken = self.held.dirty.take();
        self.places
            .extend(taken.fresh.keys().map(|seq| (*seq, index)));
        if self.places.len() >= 2 * self.places_kept + REPLAY_PLACES_MORE {
            let tasks = &self.held.state.tables().tasks;
            self.places.retain(|(seq, _)| tasks.get(*seq).is_some());
            self.places_kept = self.places.len();
        }
        Ok(())
    }

    pub fn finish(mut self) -> Replayed {
        self.places.sort_unstable();
        Replayed {
            state: self.held.state,
            last: self.held.applied,
            places: self.places,
        }
    }
}

/// Applies the whole log to the state of `before`. `None`: there is no entry, and nothing to rescue.
pub async fn replay<D: Disk>(
    before: Before,
    mut log: LogStore<D>,
    bounds: Bounds,
    fatal: FatalHook,
) -> io::Result<Option<(Rescued, Payloads<LogAgain<D>>)>> {
    let (mut replay, cold) = blocking(move || load(before, bounds, fatal)).await?;
    let mut reader = log.clone();
    let entries = reader.entries_stream(replay.next_index()..u64::MAX).await;
    let mut pieces = std::pin::pin!(entries.try_chunks(ENTRIES_A_PIECE));
    while let Some(piece) = pieces.try_next().await.map_err(|broken| broken.1)? {
        for entry in piece {
            replay.apply(entry)?;
        }
    }
    let replayed = replay.finish();
    let Some(last) = replayed.last.max(log.get_log_state().await?.last_log_id) else {
        return Ok(None);
    };
    let voted = log.read_vote().await?.map_or(0, |vote| vote.leader_id.term);
    let rescued = Rescued {
        state: replayed.state,
        last,
        term: voted.max(last.leader_id.term),
    };
    let again = LogAgain::new(log, Handle::current());
    Ok(Some((rescued, Payloads::new(cold, again, replayed.places))))
}

fn load(before: Before, bounds: Bounds, fatal: FatalHook) -> io::Result<(Replay, Cold)> {
    let incarnation = before.incarnation;
    match before.origin {
        Origin::Nothing => {
            let held = Held::new(State::with_bounds(bounds));
            Ok((Replay::of(held, incarnation), Cold::Nowhere))
        }
        Origin::Snapshot(handle) => Replay::of_snapshot(&handle, incarnation, bounds),
        Origin::Image(opened) => {
            let held = Held::of(opened.state, &opened.header)?;
            let image = Arc::new(Image::keep(&before.image_directory, opened.db));
            let watch = WatchThread::start(image.clone(), fatal)?;
            let cold = Cold::Image {
                image,
                _watch: watch,
            };
            Ok((Replay::of(held, incarnation), cold))
        }
    }
}
