//! Writes a snapshot from a frozen copy of the state, while the state goes on.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};

use bytes::Bytes;

use super::bad;
use super::format::{
    BLOCK_BYTES, FORMAT, HASH_BYTES, Header, MAGIC, Position, Record, SnapshotIdentity, chained,
};
use crate::task::row::TaskRow;
use crate::task::tables::Tables;

/// The state at one moment.
#[derive(Debug, Clone, Default)]
pub struct Frozen {
    pub position: Position,
    pub membership: Vec<u8>,
    pub tables: Tables,
}

impl Frozen {
    /// But for the bytes of payloads: they are counted by whoever goes through all rows.
    pub fn header(&self, identity: &SnapshotIdentity) -> Header {
        Header {
            identity: identity.clone(),
            position: self.position,
            membership: self.membership.clone(),
            namespaces: self.tables.namespaces.len() as u64,
            queues: self.tables.queues.len() as u64,
            tasks: self.tables.tasks.len() as u64,
            payload_bytes: 0,
            state_hash: self.tables.hash(),
            meta: self.tables.meta.clone(),
        }
    }
}

/// Where a snapshot gets the payloads of its tasks, in the order of their numbers.
pub trait PayloadSource {
    fn payload(&mut self, row: &TaskRow) -> io::Result<Bytes>;
}

/// An error leaves a file that does not verify.
pub fn encode(
    frozen: &Frozen,
    payloads: &mut dyn PayloadSource,
    identity: &SnapshotIdentity,
    file: impl Write,
) -> io::Result<()> {
    let tables = &frozen.tables;
    // From the rows themselves: a state that has drifted from its kept hash is never written down as good.
    let state_hash = tables.rehash();
    if state_hash != tables.hash() {
        return Err(bad(format!(
            "the rows hash to {state_hash:032x}, the state says {:032x}",
            tables.hash()
        )));
    }
    let unfinished = tables
        .tasks
        .values()
        .filter(|row| row.finished_ms().is_none());
    let header = Header {
        payload_bytes: unfinished.map(|row| u64::from(row.payload_bytes)).sum(),
        ..frozen.header(identity)
    };
    let mut out = Blocks::begin(BufWriter::with_capacity(BLOCK_BYTES, file), &header)?;
    for (id, name) in tables.namespaces.iter() {
        out.record(&Record::Namespace {
            id: *id,
            name: name.clone(),
        })?;
    }
    for queue in tables.queues.values() {
        out.record(&Record::Queue(Cow::Borrowed(queue)))?;
    }
    for row in tables.tasks.values() {
        let payload = match row.finished_ms() {
            Some(_) => None,
            None => Some(payloads.payload(row)?),
        };
        out.record(&Record::Task {
            row: Cow::Borrowed(row),
            payload: payload.as_deref(),
        })?;
    }
    out.end()
}

struct Blocks<W: Write> {
    out: W,
    block: Vec<u8>,
    chain: [u8; HASH_BYTES],
    blocks: u64,
    records: u64,
}

impl<W: Write> Blocks<W> {
    fn begin(mut out: W, header: &Header) -> io::Result<Blocks<W>> {
        let header = postcard::to_stdvec(header).map_err(io::Error::other)?;
        let mut start = Vec::with_capacity(16 + header.len());
        start.extend_from_slice(&MAGIC);
        start.extend_from_slice(&FORMAT.to_le_bytes());
        start.extend_from_slice(&(header.len() as u32).to_le_bytes());
        start.extend_from_slice(&header);
        let chain = chained(&[0; HASH_BYTES], &start);
        out.write_all(&start)?;
        out.write_all(&chain)?;
        Ok(Blocks {
            out,
            block: Vec::with_capacity(BLOCK_BYTES),
            chain,
            blocks: 0,
            records: 0,
        })
    }

    fn record(&mut self, record: &Record<'_>) -> io::Result<()> {
        let block = std::mem::take(&mut self.block);
        self.block = postcard::to_extend(record, block).map_err(io::Error::other)?;
        self.records += 1;
        if self.block.len() >= BLOCK_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.chain = chained(&self.chain, &self.block);
        self.out
            .write_all(&(self.block.len() as u32).to_le_bytes())?;
        self.out.write_all(&self.block)?;
        self.out.write_all(&self.chain)?;
        self.blocks += 1;
        self.block.clear();
        Ok(())
    }

    fn end(mut self) -> io::Result<()> {
        self.flush()?;
        let mut counts = Vec::with_capacity(16);
        counts.extend_from_slice(&self.blocks.to_le_bytes());
        counts.extend_from_slice(&self.records.to_le_bytes());
        self.out.write_all(&0u32.to_le_bytes())?;
        self.out.write_all(&counts)?;
        self.out.write_all(&chained(&self.chain, &counts))?;
        self.out.flush()
    }
}
