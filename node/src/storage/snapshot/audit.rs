//! Proves a snapshot from a stream of its bytes, in the memory of one block: every byte against the chain,
//! every payload against its row, all rows together against the state's hash. Only whether rows fit each
//! other is left to `load`.

use std::io::{self, Read};

use super::bad;
use super::format::Record;
use super::read::{Blocks, Checked, Counts};
use crate::task::hash::{RowsHash, of_payload};

/// Takes seconds for a large state: not for an async thread.
pub fn audit(input: impl Read) -> io::Result<Checked> {
    let mut blocks = Blocks::begin(input)?;
    let mut rows = RowsHash::default();
    rows.meta(&blocks.header.meta);
    let mut counts = Counts::default();
    blocks.each(&mut counts, |record, _| note(record, &mut rows))?;
    counts.check(&blocks.header)?;
    let (found, written) = (rows.sum(), blocks.header.state_hash);
    if found != written {
        return Err(bad(format!(
            "the rows hash to {found:032x} and were written as {written:032x}"
        )));
    }
    let id = blocks.end(Some(counts.records))?;
    Ok(Checked {
        header: blocks.header,
        id,
    })
}

fn note(record: Record<'_>, rows: &mut RowsHash) -> io::Result<()> {
    match record {
        Record::Namespace { id, name } => rows.namespace(id, &name),
        Record::Queue(row) => rows.queue(&row),
        Record::Task { row, payload } => {
            if payload.is_some_and(|payload| of_payload(payload) != row.payload_hash) {
                return Err(bad(format!(
                    "the payload of task {} does not have the row's hash",
                    row.seq
                )));
            }
            rows.task(&row);
        }
    }
    Ok(())
}
