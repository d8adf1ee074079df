//! Reading entries back from the segment files, every sector checked again.

use std::ops::Range;

use super::LogError;
use super::disk::Disk;
use super::frame::{self, Found};
use super::index::Anchor;
use super::queue::ReadPlan;
use super::segment::{Segments, Window};
use crate::storage::codec::entry_bytes;
use crate::storage::types::Entry;

const READ_BYTES: usize = 128 << 10;

/// Reads a plan's stretches and adds its recent entries, until `bytes_max` is used up.
pub fn read_plan<D: Disk>(
    segments: &Segments<D>,
    plan: ReadPlan,
    bytes_max: usize,
) -> Result<Vec<Entry>, LogError> {
    let mut bytes_left = bytes_max;
    let mut entries: Vec<Entry> = Vec::new();
    for (anchor, range) in plan.stretches {
        let end = range.end;
        read_stretch(segments, anchor, range, &mut bytes_left, &mut entries)?;
        if entries
            .last()
            .is_none_or(|last| last.log_id.index + 1 < end)
        {
            return Ok(entries);
        }
    }
    for entry in plan.recent {
        let bytes = entry_bytes(&entry);
        if bytes > bytes_left {
            break;
        }
        bytes_left -= bytes;
        entries.push(entry);
    }
    Ok(entries)
}

/// Adds the entries of one anchor's stretch that are in `range`, until `bytes_left` is 0.
fn read_stretch<D: Disk>(
    segments: &Segments<D>,
    anchor: Anchor,
    range: Range<u64>,
    bytes_left: &mut usize,
    into: &mut Vec<Entry>,
) -> Result<(), LogError> {
    let place = anchor.place;
    let mut window = Window::new(segments, place.generation, READ_BYTES);
    let (mut at, mut sequence) = (place.sector, place.sequence);
    while *bytes_left > 0
        && into
            .last()
            .is_none_or(|entry| entry.log_id.index + 1 < range.end)
    {
        if at >= segments.geometry().sectors() {
            return Err(LogError::damage(format!(
                "entries {range:?} are not in segment {}",
                place.generation
            )));
        }
        let count = frame::sectors_at(window.sectors(at, 1)?, segments.salt);
        let sectors = window.sectors(at, count)?;
        match frame::check(sectors, segments.salt, place.generation, sequence) {
            Found::Frame { header, .. } => {
                frame::take_entries(&header, sectors, range.clone(), bytes_left, into)
                    .map_err(|e| LogError::damage(e.to_string()))?
            }
            Found::Gap => return Err(LogError::damage(format!("frame {sequence} is gone"))),
            Found::Damage(reason) => return Err(LogError::damage(reason)),
        }
        at += count;
        sequence += 1;
    }
    Ok(())
}
