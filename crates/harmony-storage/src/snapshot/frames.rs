//! A stream cut into its frames, and frames of rows into rows.

use std::io::{self, Read};

use harmony_types::StorageError;
use prost::Message as _;

use super::{FRAME_BYTES_MAX, FRAME_HEAD_BYTES, Head, KIND_HEAD, MAGIC, STREAM_VERSION, frame_crc};

/// The frames of a stream, each checked.
pub(super) struct Frames<R> {
    stream: R,
    offset: u64,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, offset: 0 }
    }

    pub(super) fn corrupt(&self, reason: &str) -> StorageError {
        StorageError::CorruptRecord {
            place: format!("snapshot stream, byte {}", self.offset),
            reason: reason.to_owned(),
        }
    }

    fn read(&mut self, bytes: usize) -> Result<Vec<u8>, StorageError> {
        // Grows with what really arrives: a damaged length does not allocate.
        let mut buffer = Vec::new();
        let read = self.stream.by_ref().take(bytes as u64).read_to_end(&mut buffer).map_err(failed)?;
        if read < bytes {
            return Err(self.corrupt("the stream ends early"));
        }
        self.offset += bytes as u64;
        Ok(buffer)
    }

    /// What the stream begins with.
    pub(super) fn head(&mut self) -> Result<Head, StorageError> {
        self.magic()?;
        let (kind, payload) = self.next()?;
        if kind != KIND_HEAD {
            return Err(self.corrupt("the head is missing"));
        }
        Head::decode(payload.as_slice()).map_err(|error| self.corrupt(&error.to_string()))
    }

    fn magic(&mut self) -> Result<(), StorageError> {
        let head = self.read(MAGIC.len() + 4)?;
        let (magic, version) = head.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(self.corrupt("this is no snapshot"));
        }
        let found = u32::from_be_bytes(version.try_into().expect("4 bytes were read"));
        if found != STREAM_VERSION {
            let place = "the snapshot stream".to_owned();
            return Err(StorageError::UnsupportedVersion { place, found, supported: STREAM_VERSION });
        }
        Ok(())
    }

    /// Kind and payload of the next frame, checked.
    pub(super) fn next(&mut self) -> Result<(u8, Vec<u8>), StorageError> {
        let place = format!("snapshot stream, byte {}", self.offset);
        let head = self.read(FRAME_HEAD_BYTES)?;
        let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("4 bytes of 9"));
        let (bytes, found, kind) = (number(0) as usize, number(4), head[8]);
        if FRAME_BYTES_MAX < bytes {
            return Err(self.corrupt("the frame is too long"));
        }
        let payload = self.read(bytes)?;
        let expected = frame_crc(kind, &payload);
        if expected != found {
            return Err(StorageError::CrcMismatch { place, expected, found });
        }
        Ok((kind, payload))
    }

    /// Nothing may follow.
    pub(super) fn end(&mut self) -> Result<(), StorageError> {
        let mut one = Vec::new();
        match self.stream.by_ref().take(1).read_to_end(&mut one).map_err(failed)? {
            0 => Ok(()),
            _ => Err(self.corrupt("bytes behind the end")),
        }
    }
}

/// What a stream that is made here says in its error; else the system's.
fn failed(error: io::Error) -> StorageError {
    error.downcast::<StorageError>().unwrap_or_else(StorageError::io("read", "the snapshot stream"))
}

/// Key and content of the next row of a frame.
pub(super) fn take_row<'a>(
    frames: &Frames<impl Read>,
    rest: &mut &'a [u8],
) -> Result<(&'a [u8], &'a [u8]), StorageError> {
    take_bytes(rest).zip(take_bytes(rest)).ok_or_else(|| frames.corrupt("a row is cut short"))
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk::<4>()?;
    let (bytes, behind) = behind.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *rest = behind;
    Some(bytes)
}
