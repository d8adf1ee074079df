//! Payloads of a state that was replayed: those that came with the log are read there again, the others where
//! the state was loaded from. Asked for in the order of their tasks, which is that of the log, each piece of
//! it is read once.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::RaftLogReader;
use tokio::runtime::Handle;

use crate::storage::image::Image;
use crate::storage::image::base::Base;
use crate::storage::image::batch::verify;
use crate::storage::image::watch::WatchThread;
use crate::storage::log::disk::Disk;
use crate::storage::log_store::LogStore;
use crate::storage::machine::decode;
use crate::storage::on_panic::OnPanic;
use crate::storage::snapshot::PayloadSource;
use crate::storage::store::Decoded;
use crate::storage::types::Entry;
use crate::task::command::Command;
use crate::task::row::TaskRow;

/// Where the payloads are that did not come with the log.
pub enum Cold {
    Nowhere,
    Snapshot(Arc<Base>),
    Image {
        image: Arc<Image>,
        _watch: WatchThread,
    },
}

/// Entries that can be read a second time.
pub trait Again: Send + 'static {
    /// Some that follow each other, from this index on. Empty: there is none of this index. Called off the
    /// async threads.
    fn from(&mut self, index: u64) -> io::Result<Vec<Entry>>;
}

/// The volume's own log.
pub struct LogAgain<D: Disk> {
    log: LogStore<D>,
    runtime: Handle,
}

impl<D: Disk> LogAgain<D> {
    pub fn new(log: LogStore<D>, runtime: Handle) -> LogAgain<D> {
        LogAgain { log, runtime }
    }
}

impl<D: Disk> Again for LogAgain<D> {
    fn from(&mut self, index: u64) -> io::Result<Vec<Entry>> {
        let read = self.log.limited_get_log_entries(index, u64::MAX);
        self.runtime.block_on(read)
    }
}

/// Used off the async threads.
pub struct Payloads<A: Again> {
    cold: Cold,
    log: A,
    /// (task, index of its entry), in order.
    places: Vec<(u64, u64)>,
    /// Read in one piece with the last entry asked for.
    ahead: VecDeque<Entry>,
    /// The last entry asked for, and its payloads by their hashes.
    opened: (u64, HashMap<[u8; 16], Bytes>),
}

impl<A: Again> Payloads<A> {
    pub fn new(cold: Cold, log: A, places: Vec<(u64, u64)>) -> Payloads<A> {
        Payloads {
            cold,
            log,
            places,
            ahead: VecDeque::new(),
            opened: (u64::MAX, HashMap::new()),
        }
    }

    fn in_log(&mut self, index: u64, row: &TaskRow) -> io::Result<Option<Bytes>> {
        if self.opened.0 != index {
            let entry = self.entry(index)?;
            self.opened = (index, entry.map_or(Ok(HashMap::new()), payloads_of)?);
        }
        Ok(self.opened.1.get(&row.payload_hash).cloned())
    }

    fn entry(&mut self, index: u64) -> io::Result<Option<Entry>> {
        while self
            .ahead
            .front()
            .is_some_and(|entry| entry.log_id.index < index)
        {
            self.ahead.pop_front();
        }
        if self
            .ahead
            .front()
            .is_none_or(|entry| entry.log_id.index != index)
        {
            self.ahead = self.log.from(index)?.into();
        }
        Ok(self.ahead.pop_front())
    }
}

fn payloads_of(entry: Entry) -> io::Result<HashMap<[u8; 16], Bytes>> {
    let Decoded::Commands(commands) = decode(entry)?.content else {
        return Ok(HashMap::new());
    };
    let creates = commands
        .commands
        .into_iter()
        .flat_map(|command| match command {
            Command::Create(create) => create.tasks,
            _ => Vec::new(),
        });
    Ok(creates
        .map(|task| (task.payload_hash, task.payload))
        .collect())
}

impl Cold {
    fn payload(&self, row: &TaskRow) -> io::Result<Option<Bytes>> {
        match self {
            Cold::Nowhere => Ok(None),
            Cold::Snapshot(base) => base.payload(row.seq, row.payload_bytes as usize),
            Cold::Image { image, .. } => {
                // The next try goes without it.
                let _guard = OnPanic(|| image.condemn());
                let found = image.payload(row.seq).and_then(|payload| {
                    let payload = payload.unwrap_or_default();
                    verify(&row.into(), &payload)?;
                    Ok(Some(payload))
                });
                found.map_err(|error| {
                    image.condemn();
                    io::Error::other(format!("the image is made anew at the next try: {error}"))
                })
            }
        }
    }
}

impl<A: Again> PayloadSource for Payloads<A> {
    fn payload(&mut self, row: &TaskRow) -> io::Result<Bytes> {
        let place = self.places.binary_search_by_key(&row.seq, |place| place.0);
        let found = match place {
            Ok(at) => self.in_log(self.places[at].1, row)?,
            Err(_) => self.cold.payload(row)?,
        };
        let payload = found.ok_or_else(|| {
            let reason = format!("the payload of task {} is nowhere", row.seq);
            io::Error::new(io::ErrorKind::InvalidData, reason)
        })?;
        verify(&row.into(), &payload)?;
        Ok(payload)
    }
}
