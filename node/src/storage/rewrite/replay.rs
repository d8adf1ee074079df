//! The state of a volume with all that its log holds, the uncommitted tail too: it may have been acknowledged
//! by those who are lost. Nothing on the volume is changed, so it can still start as what it was, without that
//! tail: a log over `ReadOnlyDisk` is enough, and the image stays where it stands.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures::TryStreamExt;
use openraft::storage::{RaftLogReader, RaftLogStorage};
use tokio::runtime::Handle;

use super::payloads::{Cold, Payloads};
use super::{Rescued, blocking};
use crate::storage::image::Image;
use crate::storage::image::watch::WatchThread;
use crate::storage::log::FatalHook;
use crate::storage::log::disk::Disk;
use crate::storage::log_store::LogStore;
use crate::storage::machine::decode;
use crate::storage::store::{Held, Origin};
use crate::task::state::{Bounds, State};

/// Entries decoded at a time.
const ENTRIES_A_PIECE: usize = 64;

/// What the state is loaded from, and under which incarnation its log was written.
pub struct Before {
    pub origin: Origin,
    pub image_directory: PathBuf,
    pub incarnation: u16,
}

/// Applies the whole log to the state of `before`. `None`: there is no entry, and nothing to rescue.
pub async fn replay<D: Disk>(
    before: Before,
    mut log: LogStore<D>,
    bounds: Bounds,
    fatal: FatalHook,
) -> io::Result<Option<(Rescued, Payloads<D>)>> {
    let incarnation = before.incarnation;
    let (mut held, cold) = blocking(move || load(before, bounds, fatal)).await?;
    let mut next = held.applied.map_or(0, |applied| applied.index + 1);
    // Payloads that came with the log, by task: they are read there again when they are needed.
    let mut places = Vec::new();
    let mut reader = log.clone();
    let entries = reader.entries_stream(next..u64::MAX).await;
    let mut pieces = std::pin::pin!(entries.try_chunks(ENTRIES_A_PIECE));
    while let Some(piece) = pieces.try_next().await.map_err(|broken| broken.1)? {
        for entry in piece {
            let index = entry.log_id.index;
            if index != next {
                let reason = format!("entry {index} follows where {next} should");
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            next += 1;
            held.step(incarnation, decode(entry)?)?;
            let taken = held.dirty.take();
            places.extend(taken.fresh.keys().map(|seq| (*seq, index)));
        }
    }
    places.sort_unstable();
    let Some(last) = held.applied.max(log.get_log_state().await?.last_log_id) else {
        return Ok(None);
    };
    let voted = log.read_vote().await?.map_or(0, |vote| vote.leader_id.term);
    let rescued = Rescued {
        state: held.state,
        last,
        term: voted.max(last.leader_id.term),
    };
    let payloads = Payloads::new(cold, log, places, Handle::current());
    Ok(Some((rescued, payloads)))
}

fn load(before: Before, bounds: Bounds, fatal: FatalHook) -> io::Result<(Held, Cold)> {
    match before.origin {
        Origin::Nothing => Ok((Held::new(State::with_bounds(bounds)), Cold::Nowhere)),
        Origin::Snapshot(handle) => {
            let held = Held::load(&handle, bounds)?;
            let base = held.base.clone();
            Ok((held, base.map_or(Cold::Nowhere, Cold::Snapshot)))
        }
        Origin::Image(opened) => {
            let held = Held::of(opened.state, &opened.header)?;
            let image = Arc::new(Image::keep(&before.image_directory, opened.db));
            let watch = WatchThread::start(image.clone(), fatal)?;
            Ok((
                held,
                Cold::Image {
                    image,
                    _watch: watch,
                },
            ))
        }
    }
}
