//! The hash of a row: 128 bits of BLAKE3 over its table and its persisted bytes. Rows' hashes are added
//! up, so the sum does not depend on order and follows a change by one subtraction and one addition.

use serde::Serialize;

use super::id::Name;
use super::queue::QueueRow;
use super::row::TaskRow;
use super::tables::Meta;

/// The hash of a state whose rows come one by one, without keeping them.
#[derive(Debug, Default)]
pub struct RowsHash {
    sum: u128,
    scratch: Vec<u8>,
}

impl RowsHash {
    pub fn meta(&mut self, meta: &Meta) {
        self.add(Table::Meta, meta);
    }

    pub fn namespace(&mut self, id: u32, name: &Name) {
        self.add(Table::Namespace, &(id, name));
    }

    pub fn queue(&mut self, row: &QueueRow) {
        self.add(Table::Queue, row);
    }

    pub fn task(&mut self, row: &TaskRow) {
        self.add(Table::Task, row);
    }

    /// What `State::hash` says of a state with these rows.
    pub fn sum(&self) -> u128 {
        self.sum
    }

    fn add<T: Serialize + ?Sized>(&mut self, table: Table, row: &T) {
        self.sum = self.sum.wrapping_add(of(table, row, &mut self.scratch));
    }
}

#[derive(Clone, Copy)]
pub(super) enum Table {
    Meta = 1,
    Namespace = 2,
    Queue = 3,
    Task = 4,
}

pub(super) fn of<T: Serialize + ?Sized>(table: Table, row: &T, scratch: &mut Vec<u8>) -> u128 {
    scratch.clear();
    scratch.push(table as u8);
    let bytes = postcard::to_extend(row, std::mem::take(scratch))
        .expect("rows are plain values and a Vec grows");
    let hash = blake3::hash(&bytes);
    *scratch = bytes;
    let (first, _) = hash
        .as_bytes()
        .split_first_chunk::<16>()
        .expect("a BLAKE3 hash has 32 bytes");
    u128::from_le_bytes(*first)
}

/// What stands for a payload where only its identity matters.
pub fn of_payload(payload: &[u8]) -> [u8; 16] {
    let hash = blake3::hash(payload);
    *hash
        .as_bytes()
        .first_chunk()
        .expect("a BLAKE3 hash has 32 bytes")
}
