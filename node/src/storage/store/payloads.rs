//! Where a payload is read from: memory until the image holds it, then the image, and meanwhile, when the
//! image is being rebuilt, the snapshot that the state came from. The disk is never read under a lock.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::{Shared, Store};
use crate::storage::image::base::Base;
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
        let (cold, base) = {
            let mut cold = Vec::new();
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
            (cold, held.base.clone())
        };
        if cold.is_empty() {
            return Ok(payloads);
        }
        let shared = self.shared.clone();
        let read = tokio::task::spawn_blocking(move || {
            let read = |cold: Cold| Ok((cold.place, shared.cold(&cold.expected, base.as_ref())?));
            cold.into_iter().map(read).collect::<io::Result<Vec<_>>>()
        });
        for (place, payload) in read.await.map_err(io::Error::other)?? {
            payloads[place] = payload;
        }
        Ok(payloads)
    }
}

impl Shared {
    fn cold(&self, expected: &Expected, base: Option<&Arc<Base>>) -> io::Result<Option<Bytes>> {
        let found = self.look(expected, base);
        match found {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => {
                self.image.condemn();
                (self.fatal)("reading a payload", &error);
                Err(error)
            }
            found => found,
        }
    }

    fn look(&self, expected: &Expected, base: Option<&Arc<Base>>) -> io::Result<Option<Bytes>> {
        let Expected {
            seq, payload_bytes, ..
        } = *expected;
        // The second time for one that moved from the snapshot to the image in between.
        for _ in 0..2 {
            let found = match (self.image.payload(seq)?, base) {
                (None, Some(base)) => base.payload(seq, payload_bytes)?,
                (found, _) => found,
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
