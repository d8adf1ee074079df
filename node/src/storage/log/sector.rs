//! The 512-byte sector, the unit a disk writes whole or not at all.
//!
//! ```text
//! | 492 bytes of the frame | segment generation u32 | frame sequence u64 | number in frame u32 | CRC32C u32 |
//! ```
//! The checksum starts from the volume's salt, so another volume's sector is a bad one. A sector of zeros
//! was never written since its segment was made ready.

pub const SECTOR_BYTES: usize = 512;
pub const SECTOR_DATA_BYTES: usize = 492;
const CHECKSUM_AT: usize = 508;
const ZEROS: [u8; SECTOR_BYTES] = [0; SECTOR_BYTES];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sector {
    Zero,
    Good {
        generation: u32,
        sequence: u64,
        number: u32,
    },
    Bad,
}

pub fn classify(sector: &[u8], salt: u32) -> Sector {
    if sector == ZEROS {
        return Sector::Zero;
    }
    if checksum(sector) != crc32c::crc32c_append(salt, &sector[..CHECKSUM_AT]) {
        return Sector::Bad;
    }
    let u32_at = |at: usize| u32::from_le_bytes(sector[at..at + 4].try_into().expect("four bytes"));
    let sequence = u64::from_le_bytes(sector[496..504].try_into().expect("eight bytes"));
    Sector::Good {
        generation: u32_at(492),
        sequence,
        number: u32_at(504),
    }
}

/// The checksum stored in a sector's trailer.
pub fn checksum(sector: &[u8]) -> u32 {
    u32::from_le_bytes(
        sector[CHECKSUM_AT..SECTOR_BYTES]
            .try_into()
            .expect("four bytes"),
    )
}

/// The checksum of a whole frame: over its sectors' checksums, which cover everything else.
pub fn frame_checksum(sectors: &[u8]) -> u32 {
    sectors.chunks_exact(SECTOR_BYTES).fold(0, |sum, sector| {
        crc32c::crc32c_append(sum, &sector[CHECKSUM_AT..])
    })
}

/// Sectors that hold so many bytes of a frame.
pub fn sectors_for(data_bytes: usize) -> usize {
    data_bytes.div_ceil(SECTOR_DATA_BYTES)
}

/// A frame being laid out, in memory that is used again for the next one.
#[derive(Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    data_bytes: usize,
}

impl FrameBuffer {
    /// Starts over, with room left for a header of so many bytes.
    pub fn clear(&mut self, header_bytes: usize) {
        self.bytes.clear();
        self.bytes.resize(header_bytes, 0);
        self.data_bytes = header_bytes;
    }

    pub fn put(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let room = SECTOR_DATA_BYTES - self.data_bytes % SECTOR_DATA_BYTES;
            let (now, later) = data.split_at(room.min(data.len()));
            self.bytes.extend_from_slice(now);
            self.data_bytes += now.len();
            if now.len() == room {
                self.bytes
                    .resize(self.bytes.len() + SECTOR_BYTES - SECTOR_DATA_BYTES, 0);
            }
            data = later;
        }
    }

    /// Writes header and trailers. The sectors, ready for the disk, and the frame's checksum.
    pub fn seal(
        &mut self,
        header: &[u8],
        salt: u32,
        generation: u32,
        sequence: u64,
    ) -> (&[u8], u32) {
        self.bytes[..header.len()].copy_from_slice(header);
        self.bytes
            .resize(sectors_for(self.data_bytes) * SECTOR_BYTES, 0);
        for (number, sector) in self.bytes.chunks_exact_mut(SECTOR_BYTES).enumerate() {
            sector[492..496].copy_from_slice(&generation.to_le_bytes());
            sector[496..504].copy_from_slice(&sequence.to_le_bytes());
            sector[504..CHECKSUM_AT].copy_from_slice(&(number as u32).to_le_bytes());
            let sum = crc32c::crc32c_append(salt, &sector[..CHECKSUM_AT]);
            sector[CHECKSUM_AT..].copy_from_slice(&sum.to_le_bytes());
        }
        (&self.bytes, frame_checksum(&self.bytes))
    }
}

/// Reads a frame's bytes out of its sectors.
pub struct FrameCursor<'a> {
    sectors: &'a [u8],
    at: usize,
}

impl<'a> FrameCursor<'a> {
    pub fn new(sectors: &'a [u8], at: usize) -> FrameCursor<'a> {
        FrameCursor { sectors, at }
    }

    pub fn left(&self) -> usize {
        (self.sectors.len() / SECTOR_BYTES * SECTOR_DATA_BYTES).saturating_sub(self.at)
    }

    pub fn skip(&mut self, bytes: usize) {
        self.at += bytes;
    }

    /// The caller checked `left`.
    pub fn read(&mut self, mut into: &mut [u8]) {
        while !into.is_empty() {
            let (sector, offset) = (self.at / SECTOR_DATA_BYTES, self.at % SECTOR_DATA_BYTES);
            let bytes = into.len().min(SECTOR_DATA_BYTES - offset);
            let from = sector * SECTOR_BYTES + offset;
            let (now, later) = into.split_at_mut(bytes);
            now.copy_from_slice(&self.sectors[from..from + bytes]);
            self.at += bytes;
            into = later;
        }
    }
}
