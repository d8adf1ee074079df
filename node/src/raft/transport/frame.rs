//! Length-prefixed frames: u32 length (big endian, of tag and body), one tag byte, body.
//!
//! Reader and writer keep what is half read or half written in themselves, so that every wait on them
//! may be dropped at any time.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const PREFIX_BYTES: usize = 4;
const READ_BYTES: usize = 64 << 10;
/// A chunk with less room than this is not read into any more.
const CHUNK_LEFT_BYTES: usize = 1 << 10;

/// What a frame holds. Numbers are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    Hello = 1,
    Welcome = 2,
    Refuse = 3,
    Ping = 4,
    Pong = 5,
    /// Multiplexed calls: the body starts with the call's number (u64, big endian).
    Heartbeat = 10,
    PreVote = 11,
    Vote = 12,
    TransferLeader = 13,
    Forward = 14,
    Answer = 15,
    /// The call was not begun.
    NotTaken = 16,
    Cancel = 17,
    Append = 20,
    AppendAnswer = 21,
    SnapshotBegin = 30,
    SnapshotAt = 31,
    SnapshotChunk = 32,
    SnapshotEnd = 33,
    /// The receiver is still installing.
    SnapshotBusy = 34,
    SnapshotDone = 35,
    SnapshotFailed = 36,
}

impl Tag {
    fn parse(byte: u8) -> Option<Tag> {
        const ALL: [Tag; 22] = [
            Tag::Hello,
            Tag::Welcome,
            Tag::Refuse,
            Tag::Ping,
            Tag::Pong,
            Tag::Heartbeat,
            Tag::PreVote,
            Tag::Vote,
            Tag::TransferLeader,
            Tag::Forward,
            Tag::Answer,
            Tag::NotTaken,
            Tag::Cancel,
            Tag::Append,
            Tag::AppendAnswer,
            Tag::SnapshotBegin,
            Tag::SnapshotAt,
            Tag::SnapshotChunk,
            Tag::SnapshotEnd,
            Tag::SnapshotBusy,
            Tag::SnapshotDone,
            Tag::SnapshotFailed,
        ];
        ALL.into_iter().find(|tag| *tag as u8 == byte)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub tag: Tag,
    pub body: Bytes,
}

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {bytes} bytes is over the bound of {bytes_max}")]
    TooLong { bytes: usize, bytes_max: usize },
    #[error("an empty frame")]
    Empty,
    #[error("a frame of unknown kind {0}")]
    UnknownTag(u8),
    #[error("the connection ended within a frame")]
    Half,
    #[error("a {tag:?} frame that cannot be read: {reason}")]
    Malformed { tag: Tag, reason: String },
    #[error("a {0:?} frame has no place here")]
    Unexpected(Tag),
    #[error(transparent)]
    Io(#[from] io::Error),
}

pub struct FrameReader<R> {
    io: R,
    buffer: BytesMut,
    bytes_max: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(io: R, bytes_max: usize) -> FrameReader<R> {
        FrameReader {
            io,
            buffer: BytesMut::new(),
            bytes_max,
        }
    }

    /// What was read and not taken yet is lost.
    pub fn into_inner(self) -> R {
        self.io
    }

    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// The next frame; `None` when the peer closed the connection between two frames.
    pub async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            let missing = match self.take()? {
                Taken::Frame(frame) => return Ok(Some(frame)),
                Taken::Missing(bytes) => bytes,
            };
            // Entries stay slices of what was read here, in the log's ring: a chunk is filled before the
            // next one is taken, or each small entry would hold a whole chunk.
            if self.buffer.capacity() - self.buffer.len() < missing.max(CHUNK_LEFT_BYTES) {
                self.buffer.reserve(missing.max(READ_BYTES));
            }
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(FrameError::Half)
                };
            }
        }
    }

    /// The next frame of an exchange in which the peer owes one.
    pub async fn expect(&mut self) -> Result<Frame, FrameError> {
        self.next().await?.ok_or(FrameError::Half)
    }

    fn take(&mut self) -> Result<Taken, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() else {
            return Ok(Taken::Missing(PREFIX_BYTES - self.buffer.len()));
        };
        let bytes = u32::from_be_bytes(*prefix) as usize;
        if bytes == 0 {
            return Err(FrameError::Empty);
        }
        if bytes > self.bytes_max {
            return Err(FrameError::TooLong {
                bytes,
                bytes_max: self.bytes_max,
            });
        }
        if let Some(tag) = self.buffer.get(PREFIX_BYTES)
            && Tag::parse(*tag).is_none()
        {
            return Err(FrameError::UnknownTag(*tag));
        }
        let whole = PREFIX_BYTES + bytes;
        if self.buffer.len() < whole {
            return Ok(Taken::Missing(whole - self.buffer.len()));
        }
        let mut body = self.buffer.split_to(whole).freeze();
        body.advance(PREFIX_BYTES);
        let tag = Tag::parse(body.get_u8()).expect("checked above");
        Ok(Taken::Frame(Frame { tag, body }))
    }
}

enum Taken {
    Frame(Frame),
    Missing(usize),
}

pub struct FrameWriter<W> {
    io: W,
    buffer: BytesMut,
    flush: Flush,
    bytes_max: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    Done,
    Due,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub fn new(io: W, bytes_max: usize) -> FrameWriter<W> {
        FrameWriter {
            io,
            buffer: BytesMut::new(),
            flush: Flush::Done,
            bytes_max,
        }
    }

    /// What is queued and not written yet is lost.
    pub fn into_inner(self) -> W {
        self.io
    }

    /// Queues one frame; `encode` appends its body.
    pub fn push_with(
        &mut self,
        tag: Tag,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), FrameError>,
    ) -> Result<(), FrameError> {
        let start = self.buffer.len();
        self.buffer.put_u32(0);
        self.buffer.put_u8(tag as u8);
        let outcome = encode(&mut self.buffer).and_then(|()| {
            let bytes = self.buffer.len() - start - PREFIX_BYTES;
            if bytes > self.bytes_max {
                return Err(FrameError::TooLong {
                    bytes,
                    bytes_max: self.bytes_max,
                });
            }
            let length = u32::try_from(bytes).expect("the bound of a frame fits into its length");
            self.buffer[start..start + PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
            Ok(())
        });
        if outcome.is_err() {
            self.buffer.truncate(start);
        }
        outcome
    }

    pub fn push(&mut self, tag: Tag, body: &impl Serialize) -> Result<(), FrameError> {
        self.push_with(tag, |buffer| encode(tag, body, buffer))
    }

    /// Bytes queued and not yet handed to the socket.
    pub fn queued_bytes(&self) -> usize {
        self.buffer.len()
    }

    pub fn has_work(&self) -> bool {
        !self.buffer.is_empty() || self.flush == Flush::Due
    }

    /// Writes and flushes what is queued.
    pub async fn drive(&mut self) -> io::Result<()> {
        while !self.buffer.is_empty() {
            self.flush = Flush::Due;
            if self.io.write_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        if self.flush == Flush::Due {
            self.io.flush().await?;
            self.flush = Flush::Done;
        }
        Ok(())
    }
}

/// Appends `value` in our codec.
pub fn encode(tag: Tag, value: &impl Serialize, buffer: &mut BytesMut) -> Result<(), FrameError> {
    postcard::to_io(value, buffer.writer())
        .map(|_| ())
        .map_err(|e| FrameError::Malformed {
            tag,
            reason: e.to_string(),
        })
}

/// Reads one value from the front of `body` and leaves the rest.
pub fn decode<T: serde::de::DeserializeOwned>(tag: Tag, body: &mut Bytes) -> Result<T, FrameError> {
    let (value, rest) = postcard::take_from_bytes(body).map_err(|e| FrameError::Malformed {
        tag,
        reason: e.to_string(),
    })?;
    let taken = body.len() - rest.len();
    body.advance(taken);
    Ok(value)
}

/// Reads one value that must be all of `body`.
pub fn decode_whole<T: serde::de::DeserializeOwned>(
    tag: Tag,
    mut body: Bytes,
) -> Result<T, FrameError> {
    let value = decode(tag, &mut body)?;
    if body.is_empty() {
        return Ok(value);
    }
    Err(FrameError::Malformed {
        tag,
        reason: format!("{} bytes too many", body.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        FrameReader::new(bytes, 64).next().await
    }

    #[tokio::test]
    async fn frames_read_back_however_they_arrive() {
        let mut wire = Vec::new();
        let mut writer = FrameWriter::new(&mut wire, 64);
        writer.push(Tag::Vote, &7u64).unwrap();
        writer.push_with(Tag::Ping, |_| Ok(())).unwrap();
        writer.drive().await.unwrap();
        assert_eq!(wire, b"\0\0\0\x02\x0c\x07\0\0\0\x01\x04");

        // One byte at a time, and every wait is dropped once before it is over.
        let (mut far, near) = tokio::io::duplex(1);
        let mut reader = FrameReader::new(near, 64);
        let send = tokio::spawn(async move {
            far.write_all(&wire).await.unwrap();
        });
        let mut frames = Vec::new();
        while frames.len() < 2 {
            tokio::select! {
                biased;
                frame = reader.next() => frames.push(frame.unwrap().unwrap()),
                () = tokio::task::yield_now() => {}
            }
        }
        send.await.unwrap();
        assert_eq!(
            frames[0],
            Frame {
                tag: Tag::Vote,
                body: Bytes::from_static(&[7])
            }
        );
        assert_eq!(frames[1].tag, Tag::Ping);
        assert!(reader.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_no_frame_is_told_apart() {
        assert!(matches!(
            read(b"\0\0\0\x02\x0c").await,
            Err(FrameError::Half)
        ));
        assert!(matches!(read(b"\0\0").await, Err(FrameError::Half)));
        assert!(matches!(read(b"\0\0\0\0").await, Err(FrameError::Empty)));
        assert!(matches!(
            read(b"\0\0\0\x41\x01").await,
            Err(FrameError::TooLong {
                bytes: 65,
                bytes_max: 64
            })
        ));
        assert!(matches!(
            read(b"\0\0\0\x02\xee").await,
            Err(FrameError::UnknownTag(0xee))
        ));
        assert!(read(b"").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn small_frames_that_are_kept_share_their_memory() {
        let (mut far, near) = tokio::io::duplex(4096);
        let mut reader = FrameReader::new(near, 4096);
        let mut kept: Vec<Bytes> = Vec::new();
        for _ in 0..64 {
            let mut writer = FrameWriter::new(&mut far, 4096);
            writer.push(Tag::Append, &[7u8; 32]).unwrap();
            writer.drive().await.unwrap();
            kept.push(reader.next().await.unwrap().unwrap().body);
        }
        let addresses = kept.iter().map(|body| body.as_ptr() as usize);
        let span = addresses.clone().max().unwrap() - addresses.min().unwrap();
        assert!(
            span < READ_BYTES,
            "one chunk holds them all, not {span} bytes"
        );
    }

    #[tokio::test]
    async fn a_frame_over_the_bound_is_not_written_and_hurts_no_other() {
        let mut wire = Vec::new();
        let mut writer = FrameWriter::new(&mut wire, 64);
        let giant = vec![0u8; 100];
        assert!(matches!(
            writer.push(Tag::Answer, &giant),
            Err(FrameError::TooLong { .. })
        ));
        writer.push(Tag::Answer, &1u8).unwrap();
        writer.drive().await.unwrap();
        assert_eq!(wire, [0, 0, 0, 2, Tag::Answer as u8, 1]);
    }
}
