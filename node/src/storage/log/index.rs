//! What the log holds and where, kept small: the range of entries, the segments in use, and an anchor for
//! about every 64 KiB of frames.

use std::collections::VecDeque;

use crate::storage::types::LogId;

/// An anchor is set when the last one is so many sectors behind.
const ANCHOR_SECTORS: usize = 128;

/// The entries `(purged, last]`. An empty log's last id is its purged one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogRange {
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    /// Index of the first entry, or of the next one while there is none.
    pub first: u64,
}

impl LogRange {
    pub fn next(&self) -> u64 {
        self.last.map_or(self.first, |last| last.index + 1)
    }

    pub fn is_empty(&self) -> bool {
        self.first >= self.next()
    }

    /// Whether an entry with this index follows without a hole. The first one of a log may have any.
    pub fn follows(&self, index: u64) -> bool {
        self.last.is_none_or(|last| last.index + 1 == index)
    }

    pub fn append(&mut self, id: LogId) {
        if self.last.is_none() {
            self.first = id.index;
        }
        self.last = Some(id);
    }

    pub fn truncate(&mut self, to: Option<LogId>) {
        let keep = to.max(self.purged);
        if keep.map(|id| id.index) < self.last.map(|id| id.index) {
            self.last = keep;
            self.first = self.first.min(self.next());
        }
    }

    pub fn purge(&mut self, to: LogId) {
        if self.purged.is_some_and(|purged| purged.index >= to.index) {
            return;
        }
        self.purged = Some(to);
        self.first = self.first.max(to.index + 1);
        if self.last.is_none_or(|last| last.index < to.index) {
            self.last = Some(to);
            self.first = to.index + 1;
        }
    }
}

/// Where a frame lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub generation: u32,
    pub sector: usize,
    pub sequence: u64,
}

/// From this frame on, up to the next anchor, indexes only grow.
#[derive(Debug, Clone, Copy)]
pub struct Anchor {
    pub first_index: u64,
    pub place: Place,
}

#[derive(Debug)]
struct SegmentInUse {
    generation: u32,
    /// Highest index of an entry in it that still counts.
    last_index: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Index {
    anchors: VecDeque<Anchor>,
    segments: VecDeque<SegmentInUse>,
    anchor_next: bool,
}

impl Index {
    pub fn enter_segment(&mut self, generation: u32) {
        self.segments.push_back(SegmentInUse {
            generation,
            last_index: None,
        });
        self.anchor_next = true;
    }

    pub fn truncate(&mut self, next_index: u64) {
        while self
            .anchors
            .back()
            .is_some_and(|anchor| anchor.first_index >= next_index)
        {
            self.anchors.pop_back();
        }
        for segment in &mut self.segments {
            segment.last_index = segment.last_index.and_then(|last| {
                last.min(next_index)
                    .checked_sub(u64::from(last >= next_index))
            });
        }
        self.anchor_next = true;
    }

    /// Drops what lies behind the purge point. The oldest generation that is still needed.
    pub fn purge(&mut self, purged: Option<LogId>) -> u32 {
        if let Some(purged) = purged {
            while self
                .anchors
                .get(1)
                .is_some_and(|second| second.first_index <= purged.index + 1)
            {
                self.anchors.pop_front();
            }
            while self.segments.len() > 1
                && self.segments[0]
                    .last_index
                    .is_none_or(|last| last <= purged.index)
            {
                self.segments.pop_front();
            }
        }
        self.segments
            .front()
            .map_or(1, |segment| segment.generation)
    }

    pub fn add_entries(&mut self, place: Place, first_index: u64, last_index: u64) {
        let far = self.anchors.back().is_none_or(|last| {
            last.place.generation != place.generation
                || place.sector - last.place.sector >= ANCHOR_SECTORS
        });
        if self.anchor_next || far {
            self.anchors.push_back(Anchor { first_index, place });
            self.anchor_next = false;
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.last_index = Some(last_index);
        }
    }

    /// Where the entries from this one on begin: at most one stretch too early. None while no entry is in
    /// the files.
    pub fn place_of(&self, index: u64) -> Option<Place> {
        let after = self
            .anchors
            .partition_point(|anchor| anchor.first_index <= index);
        let anchor = self.anchors.get(after.saturating_sub(1))?;
        Some(anchor.place)
    }

    /// The anchor to start at for an entry, and the index at which its stretch ends.
    pub fn find(&self, index: u64, next_index: u64) -> Option<(Anchor, u64)> {
        let after = self
            .anchors
            .partition_point(|anchor| anchor.first_index <= index);
        let anchor = self.anchors.get(after.checked_sub(1)?)?;
        Some((
            *anchor,
            self.anchors
                .get(after)
                .map_or(next_index, |next| next.first_index),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::codec::log_id;

    fn place(generation: u32, sector: usize) -> Place {
        Place {
            generation,
            sector,
            sequence: sector as u64,
        }
    }

    #[test]
    fn a_range_follows_appends_truncations_purges_and_gaps() {
        let mut range = LogRange::default();
        assert!(range.is_empty());
        for index in 0..10 {
            assert!(range.follows(index));
            range.append(log_id(1, index));
        }
        range.truncate(Some(log_id(1, 12)));
        assert_eq!((range.first, range.next()), (0, 10));
        range.purge(log_id(1, 3));
        range.truncate(Some(log_id(1, 5)));
        assert_eq!(
            (range.first, range.next(), range.last),
            (4, 6, Some(log_id(1, 5)))
        );
        range.truncate(None);
        assert_eq!((range.is_empty(), range.last), (true, Some(log_id(1, 3))));
        range.purge(log_id(2, 50));
        assert_eq!(
            (range.first, range.last, range.is_empty()),
            (51, Some(log_id(2, 50)), true)
        );
        assert!(range.follows(51) && !range.follows(50));
    }

    #[test]
    fn anchors_and_segments_go_with_truncation_and_purge() {
        let mut index = Index::default();
        index.enter_segment(1);
        index.add_entries(place(1, 0), 0, 4);
        index.add_entries(place(1, 10), 5, 9);
        index.add_entries(place(1, 200), 10, 20);
        index.enter_segment(2);
        index.add_entries(place(2, 0), 21, 30);
        assert_eq!(
            index.find(9, 31).map(|(a, end)| (a.place.sector, end)),
            Some((0, 10))
        );
        assert_eq!(
            index.find(25, 31).map(|(a, end)| (a.place.generation, end)),
            Some((2, 31))
        );
        index.truncate(15);
        index.add_entries(place(2, 3), 15, 16);
        assert_eq!(
            index.find(14, 17).map(|(a, end)| (a.place.sector, end)),
            Some((200, 15))
        );
        assert_eq!(index.purge(Some(log_id(1, 13))), 1);
        assert_eq!(index.purge(Some(log_id(1, 14))), 2);
        assert_eq!(
            index.find(15, 17).map(|(a, end)| (a.place.sector, end)),
            Some((3, 17))
        );
    }
}
