//! Reads snapshot files and believes nothing: `verify` checks every byte against the chain, `load` also
//! every row against the others and the whole against the state's hash.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use super::format::{
    BLOCK_BYTES, BLOCK_BYTES_MAX, FORMAT, HASH_BYTES, HEADER_BYTES_MAX, Header, MAGIC, Record,
    chained, id_of,
};
use super::{SnapshotHandle, bad};
use crate::task::load::Loader;
use crate::task::state::{Bounds, FEATURE_LEVEL_KNOWN, State};

/// Reads from the start, whatever other readers of the same open file do.
pub struct FileAt<'a> {
    file: &'a File,
    offset: u64,
}

impl FileAt<'_> {
    pub fn new(file: &File) -> FileAt<'_> {
        FileAt { file, offset: 0 }
    }
}

impl Read for FileAt<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

pub struct Checked {
    pub header: Header,
    pub id: String,
}

/// That the file is whole and as it was written; its rows are not decoded.
pub fn verify(file: &File) -> io::Result<Checked> {
    let mut blocks = Blocks::begin(FileAt::new(file))?;
    while blocks.next()? {}
    let id = blocks.end(None)?;
    Ok(Checked {
        header: blocks.header,
        id,
    })
}

/// Header and id of a file whose rest is taken on trust.
pub fn peek(file: &File) -> io::Result<Checked> {
    let header = Blocks::begin(FileAt::new(file))?.header;
    let mut last_hash = [0; HASH_BYTES];
    let end = file.metadata()?.len();
    file.read_exact_at(&mut last_hash, end.saturating_sub(HASH_BYTES as u64))?;
    Ok(Checked {
        header,
        id: id_of(&last_hash),
    })
}

pub struct Loaded {
    pub state: State,
    pub places: Places,
}

/// Where in the file the payloads stand: 16 bytes of memory each.
#[derive(Debug, Default)]
pub struct Places {
    /// In order.
    seqs: Vec<u64>,
    offsets: Vec<u64>,
}

impl Places {
    /// The payload of this task, if the file has it; not verified.
    pub fn read(
        &self,
        handle: &SnapshotHandle,
        seq: u64,
        payload_bytes: usize,
    ) -> io::Result<Option<Bytes>> {
        match self.seqs.binary_search(&seq) {
            Ok(at) => handle
                .read_at(self.offsets[at], payload_bytes)
                .map(|read| Some(read.into())),
            Err(_) => Ok(None),
        }
    }
}

/// Takes seconds for millions of rows: not for an async thread.
pub fn load(handle: &SnapshotHandle, bounds: Bounds) -> io::Result<Loaded> {
    let mut blocks = Blocks::begin(FileAt::new(&handle.file))?;
    let level = blocks.header.meta.feature_level;
    if level > FEATURE_LEVEL_KNOWN {
        return Err(bad(format!(
            "the snapshot needs feature level {level}, known is {FEATURE_LEVEL_KNOWN}"
        )));
    }
    let mut loader = Loader::new(blocks.header.meta.clone(), bounds);
    let mut places = Places::default();
    let mut counts = Counts::default();
    blocks.each(&mut counts, |record, end| {
        if let Record::Task {
            row,
            payload: Some(payload),
        } = &record
        {
            places.seqs.push(row.seq);
            places.offsets.push(end - payload.len() as u64);
        }
        load_record(record, &mut loader)
    })?;
    counts.check(&blocks.header)?;
    let state = loader
        .finish(blocks.header.state_hash)
        .map_err(|unfit| bad(unfit.to_string()))?;
    blocks.end(Some(counts.records))?;
    Ok(Loaded { state, places })
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) records: u64,
    pub(super) namespaces: u64,
    pub(super) queues: u64,
    pub(super) tasks: u64,
    pub(super) payload_bytes: u64,
}

impl Counts {
    /// A task has a payload until it is finished, of the length that its row says.
    fn note(&mut self, record: &Record<'_>) -> io::Result<()> {
        self.records += 1;
        match record {
            Record::Namespace { .. } => self.namespaces += 1,
            Record::Queue(_) => self.queues += 1,
            Record::Task { row, payload } => {
                self.tasks += 1;
                let bytes = payload.map(<[u8]>::len);
                let expected = row.finished_ms().is_none();
                if bytes != expected.then_some(row.payload_bytes as usize) {
                    return Err(bad(format!(
                        "the payload of task {} is not the row's",
                        row.seq
                    )));
                }
                self.payload_bytes += bytes.unwrap_or(0) as u64;
            }
        }
        Ok(())
    }

    pub(super) fn check(&self, header: &Header) -> io::Result<()> {
        let found = (self.namespaces, self.queues, self.tasks, self.payload_bytes);
        let written = (
            header.namespaces,
            header.queues,
            header.tasks,
            header.payload_bytes,
        );
        if found == written {
            return Ok(());
        }
        Err(bad(format!(
            "the counts are {found:?} and not those of the header"
        )))
    }
}

fn load_record(record: Record<'_>, loader: &mut Loader) -> io::Result<()> {
    let loaded = match record {
        Record::Namespace { id, name } => loader.namespace(id, name),
        Record::Queue(row) => loader.queue(row.into_owned()),
        Record::Task { row, .. } => loader.task(row.into_owned()),
    };
    loaded.map_err(|unfit| bad(unfit.to_string()))
}

pub(super) struct Blocks<R> {
    input: BufReader<R>,
    pub(super) header: Header,
    pub(super) block: Vec<u8>,
    /// Where in the file the block's records stand.
    block_at: u64,
    chain: [u8; HASH_BYTES],
    blocks: u64,
}

impl<R: Read> Blocks<R> {
    pub(super) fn begin(input: R) -> io::Result<Blocks<R>> {
        let mut input = BufReader::with_capacity(BLOCK_BYTES, input);
        let mut start = vec![0; 16];
        input.read_exact(&mut start)?;
        let (magic, numbers) = start.split_at(8);
        let format = u32_of(&numbers[..4]);
        let length = u32_of(&numbers[4..]) as usize;
        if magic != MAGIC {
            return Err(bad("not a snapshot file"));
        }
        if format != FORMAT {
            return Err(bad(format!("snapshot format {format}, known is {FORMAT}")));
        }
        if length > HEADER_BYTES_MAX {
            return Err(bad(format!("a header of {length} bytes")));
        }
        start.resize(16 + length, 0);
        input.read_exact(&mut start[16..])?;
        let chain = chained(&[0; HASH_BYTES], &start);
        let mut blocks = Blocks {
            input,
            header: decode_header(&start[16..])?,
            block: Vec::new(),
            block_at: (start.len() + HASH_BYTES) as u64,
            chain,
            blocks: 0,
        };
        blocks.check_hash("the header")?;
        Ok(blocks)
    }

    /// Every record up to the end mark, and where in the file it ends.
    pub(super) fn each(
        &mut self,
        counts: &mut Counts,
        mut take: impl FnMut(Record<'_>, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        while self.next()? {
            let mut rest: &[u8] = &self.block;
            while !rest.is_empty() {
                let (record, after) = postcard::take_from_bytes(rest)
                    .map_err(|error| bad(format!("a record: {error}")))?;
                counts.note(&record)?;
                take(
                    record,
                    self.block_at + (self.block.len() - after.len()) as u64,
                )?;
                rest = after;
            }
        }
        Ok(())
    }

    /// The next block is in `block`; false at the end mark.
    pub(super) fn next(&mut self) -> io::Result<bool> {
        let mut length = [0; 4];
        self.input.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > BLOCK_BYTES_MAX {
            return Err(bad(format!("a block of {length} bytes")));
        }
        self.block_at += match self.block.len() {
            0 => 4,
            before => (before + HASH_BYTES + 4) as u64,
        };
        self.block.resize(length, 0);
        if length == 0 {
            return Ok(false);
        }
        self.input.read_exact(&mut self.block)?;
        self.chain = chained(&self.chain, &self.block);
        self.blocks += 1;
        self.check_hash("a block")?;
        Ok(true)
    }

    /// After the end mark: counts and the last hash, and nothing behind it.
    pub(super) fn end(&mut self, records: Option<u64>) -> io::Result<String> {
        let mut counts = [0; 16];
        self.input.read_exact(&mut counts)?;
        self.chain = chained(&self.chain, &counts);
        self.check_hash("the end")?;
        let (blocks_written, records_written) = (u64_of(&counts[..8]), u64_of(&counts[8..]));
        if blocks_written != self.blocks
            || records.is_some_and(|records| records != records_written)
        {
            return Err(bad("the counts at the end are not those of the file"));
        }
        if self.input.read(&mut [0])? != 0 {
            return Err(bad("there are bytes behind the end"));
        }
        Ok(id_of(&self.chain))
    }

    fn check_hash(&mut self, of: &str) -> io::Result<()> {
        let mut hash = [0; HASH_BYTES];
        self.input.read_exact(&mut hash)?;
        if hash != self.chain {
            Err(bad(format!("{of} does not have its hash")))
        } else {
            Ok(())
        }
    }
}

fn decode_header(bytes: &[u8]) -> io::Result<Header> {
    match postcard::take_from_bytes(bytes) {
        Ok((header, [])) => Ok(header),
        Ok(_) => Err(bad("the header has bytes left over")),
        Err(error) => Err(bad(format!("the header: {error}"))),
    }
}

fn u32_of(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("the caller cuts four bytes"))
}

fn u64_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("the caller cuts eight bytes"))
}
