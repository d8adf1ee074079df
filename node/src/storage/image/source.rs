//! The payloads of a snapshot that is being cut: the image's, in the order of their tasks, each verified.

use std::io;
use std::iter::Peekable;

use bytes::Bytes;

use super::bad;
use super::batch::verify;
use super::db::Db;
use crate::storage::snapshot::PayloadSource;
use crate::task::row::TaskRow;

type Scan<'a> = Peekable<Box<dyn Iterator<Item = io::Result<(u64, Bytes)>> + 'a>>;

/// Reads ahead in one scan; a look-up for each would take ten times as long.
pub struct Ordered<'a> {
    db: &'a Db,
    scan: Option<Scan<'a>>,
    /// Asked for last.
    last: u64,
    /// Set once the image gave something else than it was given, or nothing.
    pub failed: bool,
}

impl<'a> Ordered<'a> {
    pub fn new(db: &'a Db) -> Ordered<'a> {
        Ordered {
            db,
            scan: None,
            last: 0,
            failed: false,
        }
    }

    fn find(&mut self, row: &TaskRow) -> io::Result<Bytes> {
        if row.seq < self.last {
            self.scan = None;
        }
        self.last = row.seq;
        let db = self.db;
        let scan = self.scan.get_or_insert_with(|| {
            let scan: Box<dyn Iterator<Item = _>> = Box::new(db.payloads_from(row.seq));
            scan.peekable()
        });
        while scan
            .next_if(|found| matches!(found, Ok((seq, _)) if *seq < row.seq))
            .is_some()
        {}
        let found = scan.next_if(|found| !matches!(found, Ok((seq, _)) if *seq > row.seq));
        match found.transpose()? {
            Some((_, payload)) => verify(&row.into(), &payload).map(|()| payload),
            None => Err(bad(format!(
                "the image lacks the payload of task {}",
                row.seq
            ))),
        }
    }
}

impl PayloadSource for Ordered<'_> {
    fn payload(&mut self, row: &TaskRow) -> io::Result<Bytes> {
        let found = self.find(row);
        self.failed |= found.is_err();
        found
    }
}
