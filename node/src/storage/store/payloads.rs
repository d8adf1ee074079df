//! Where a payload is read from: memory until the image holds it, then the image; while the image is being
//! rebuilt, the snapshot that the state came from. The disk is never read under a lock.

use std::io;

use bytes::Bytes;

use super::{Shared, Store};
use crate::storage::image::batch::{Expected, verify};
use crate::task::command::TaskView;

/// A payload that is not in memory.
struct Cold {
    place: usize,
    expected: Expected,
}

impl Store {
    /// Payloads of these tasks, in their order; `None` for one that is finished by now. An error: the
    /// image waits for space on a full disk.
    pub async fn payloads<'a>(
        &self,
        tasks: impl ExactSizeIterator<Item = &'a TaskView>,
    ) -> io::Result<Vec<Option<Bytes>>> {
        let mut payloads = vec![None; tasks.len()];
        let mut cold = Vec::new();
        {
            let held = self.shared.held();
            for (place, task) in tasks.enumerate() {
                if !held.state.tables().has_payload(task.seq) {
                    continue;
                }
                let warm = held.dirty.payload(task.seq);
                payloads[place] = warm.or_else(|| held.writing.get(&task.seq).cloned());
                if payloads[place].is_none() {
                    let expected = Expected {
                        seq: task.seq,
                        payload_bytes: task.payload_bytes as usize,
                        payload_hash: task.payload_hash,
                    };
                    cold.push(Cold { place, expected });
                }
            }
        }
        if cold.is_empty() {
            return Ok(payloads);
        }
        let shared = self.shared.clone();
        let read = tokio::task::spawn_blocking(move || {
            let read = |cold: Cold| Ok((cold.place, shared.cold(&cold.expected)?));
            cold.into_iter().map(read).collect::<io::Result<Vec<_>>>()
        });
        let read = read.await.map_err(|ended| {
            let panicked = ended.is_panic();
            let error = io::Error::other(ended);
            match panicked {
                true => self.shared.unreadable(error),
                false => error,
            }
        });
        for (place, payload) in read?? {
            payloads[place] = payload;
        }
        Ok(payloads)
    }
}

impl Shared {
    fn cold(&self, expected: &Expected) -> io::Result<Option<Bytes>> {
        match self.look(expected) {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(self.unreadable(error)),
            found => found,
        }
    }

    /// sled may also panic on a damaged file.
    fn unreadable(&self, error: io::Error) -> io::Error {
        self.image.condemn();
        (self.fatal)("reading a payload", &error);
        error
    }

    fn look(&self, expected: &Expected) -> io::Result<Option<Bytes>> {
        let Expected {
            seq, payload_bytes, ..
        } = *expected;
        // The second time for one that an install has moved to another snapshot in between.
        for _ in 0..2 {
            // First: of an image that is rebuilt from it a full disk may have left half a payload.
            let base = self.held().base.clone();
            let in_base = match base {
                Some(base) => base.payload(seq, payload_bytes)?,
                None => None,
            };
            let found = match in_base {
                None => self.image.payload(seq)?,
                found => found,
            };
            if let Some(payload) = found {
                verify(expected, &payload)?;
                return Ok(Some(payload));
            }
            if !self.held().state.tables().has_payload(seq) {
                return Ok(None);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the payload of task {seq} is nowhere"),
        ))
    }
}
