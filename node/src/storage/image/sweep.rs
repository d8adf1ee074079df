//! After a start from the image: drops the payloads that nobody needs, left by a crash between two steps,
//! and looks for those that are missing, which the head cannot see. In pieces, while the member serves.

use std::io;

use super::bad;
use super::db::Db;
use crate::task::tables::Tables;

/// Payloads looked at in one piece.
const PIECE: usize = 2_000;

pub struct Sweep {
    /// As the image was opened: a task that had ended by then never needs a payload again.
    tables: Tables,
    next: u64,
}

impl Sweep {
    pub fn new(tables: Tables) -> Sweep {
        Sweep { tables, next: 0 }
    }

    /// True: there is more. `is_needed` says whether the task is unfinished now.
    pub fn go_on(&mut self, db: &Db, is_needed: impl Fn(u64) -> bool) -> io::Result<bool> {
        let last = self.tables.meta.last_seq;
        let mut expected = self
            .tables
            .tasks
            .from(self.next)
            .filter(|row| row.finished_ms().is_none())
            .map(|row| row.seq)
            .peekable();
        let missing = |seq: u64| match is_needed(seq) {
            true => Err(bad(format!("the payload of task {seq} is missing"))),
            false => Ok(()),
        };
        for (count, found) in db.payload_keys_from(self.next).enumerate() {
            let found = found?;
            if found > last {
                break;
            }
            while let Some(seq) = expected.next_if(|seq| *seq < found) {
                missing(seq)?;
            }
            if count == PIECE {
                self.next = found;
                return Ok(true);
            }
            if expected.next_if_eq(&found).is_none() {
                db.drop_payload(found)?;
            }
        }
        expected.try_for_each(missing)?;
        Ok(false)
    }
}
