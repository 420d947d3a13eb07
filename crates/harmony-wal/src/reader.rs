//! Reads a segment front to back in large pieces, frame by frame.

use std::path::PathBuf;
use std::sync::Arc;

use harmony_types::{File, WalError, WalOffset};

use crate::frame::{self, HEADER_BYTES, Header};

/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Where a buffer stands that holds nothing: behind every segment.
const NOWHERE: u64 = 1 << 40;

/// What stands at one place of a segment.
pub(crate) enum Step {
    /// A good frame.
    Frame(Header),
    /// No good frame: the end, a torn tail, or damage. `tail.rs` tells which.
    Stop,
}

/// One segment's bytes, with zeros behind the end of the file.
pub(crate) struct SegmentReader {
    file: Arc<dyn File>,
    path: PathBuf,
    sequence: u32,
    file_bytes: u64,
    buffer: Vec<u8>,
    /// Byte of the file at the buffer's start.
    buffer_at: u64,
}

impl SegmentReader {
    pub(crate) fn new(file: Arc<dyn File>, path: PathBuf, sequence: u32) -> Result<Self, WalError> {
        let file_bytes = file.len().map_err(WalError::io("measure", &path))?;
        Ok(Self { file, path, sequence, file_bytes, buffer: Vec::new(), buffer_at: 0 })
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// `bytes` bytes from `at` on.
    pub(crate) fn window(&mut self, at: u64, bytes: usize) -> Result<&[u8], WalError> {
        self.window_mut(at, bytes).map(|window| &*window)
    }

    fn window_mut(&mut self, at: u64, bytes: usize) -> Result<&mut [u8], WalError> {
        let end = self.buffer_at + self.buffer.len() as u64;
        if at < self.buffer_at || end < at + bytes as u64 {
            let left = self.file_bytes.saturating_sub(at).min(CHUNK_BYTES as u64);
            // Only what the buffer grows by is cleared: the rest is read over.
            self.buffer.resize(bytes.max(usize::try_from(left).expect("at most a chunk")), 0);
            match self.file.read_at(&mut self.buffer, at) {
                Ok(read) => self.buffer[read..].fill(0),
                Err(error) => {
                    self.buffer.clear();
                    return Err(WalError::io("read", &self.path)(error));
                }
            }
            self.buffer_at = at;
        }
        let start = usize::try_from(at - self.buffer_at).expect("within the buffer");
        Ok(&mut self.buffer[start..start + bytes])
    }

    /// The frame at byte `at` behind a frame with checksum `chain`.
    pub(crate) fn step(&mut self, at: u32, chain: u32) -> Result<Step, WalError> {
        let offset = WalOffset::new(self.sequence, at);
        let bytes: [u8; HEADER_BYTES] =
            self.window(u64::from(at), HEADER_BYTES)?.try_into().expect("a window has its size");
        if !frame::link_holds(offset, chain, &bytes) {
            return Ok(Step::Stop);
        }
        let header = Header::decode(&bytes);
        if self.file_bytes < u64::from(at) + header.frame_bytes() as u64 {
            return Ok(Step::Stop);
        }
        let bytes = HEADER_BYTES + header.payload_bytes();
        let good = frame::checksum_in_place(offset, self.window_mut(u64::from(at), bytes)?) == header.crc;
        Ok(if good { Step::Frame(header) } else { Step::Stop })
    }

    /// Whether the frame at byte `at`, if there is a good one, is in the buffer.
    pub(crate) fn holds_frame(&self, at: u32) -> bool {
        let Some(start) = u64::from(at).checked_sub(self.buffer_at) else { return false };
        let bytes = usize::try_from(start).ok().and_then(|start| self.buffer.get(start..));
        let Some(header) = bytes.and_then(<[u8]>::first_chunk).map(Header::decode) else { return false };
        !header.plausible() || bytes.is_some_and(|bytes| HEADER_BYTES + header.payload_bytes() <= bytes.len())
    }

    /// Gives up the buffer, with the byte at its start, and goes on in `buffer`, whose content does not matter.
    pub(crate) fn exchange(&mut self, buffer: Vec<u8>) -> (u64, Vec<u8>) {
        (std::mem::replace(&mut self.buffer_at, NOWHERE), std::mem::replace(&mut self.buffer, buffer))
    }

    /// The payload of the frame at byte `at`.
    pub(crate) fn payload(&mut self, at: u32, header: &Header) -> Result<&[u8], WalError> {
        let payload = header.payload_bytes();
        self.window(u64::from(at), HEADER_BYTES + payload).map(|bytes| &bytes[HEADER_BYTES..])
    }

    /// Everything from `at` on, without the zeros at the end.
    pub(crate) fn rest(&mut self, at: u32) -> Result<Vec<u8>, WalError> {
        let mut rest = Vec::new();
        let mut zeros = 0;
        let mut position = u64::from(at);
        while position < self.file_bytes {
            let bytes =
                usize::try_from((self.file_bytes - position).min(CHUNK_BYTES as u64)).expect("a chunk");
            let chunk = self.window(position, bytes)?;
            match without_zeros_at_the_end(chunk) {
                [] => zeros += bytes,
                written => {
                    rest.resize(rest.len() + zeros, 0);
                    rest.extend_from_slice(written);
                    zeros = bytes - written.len();
                }
            }
            position += bytes as u64;
        }
        Ok(rest)
    }
}

/// Compares whole pages first: an open looks at all the free space of a segment, most often 64 MiB of zeros.
fn without_zeros_at_the_end(bytes: &[u8]) -> &[u8] {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut end = bytes.len();
    while bytes[..end].last_chunk() == Some(&ZEROS) {
        end -= ZEROS.len();
    }
    let last = bytes[..end].iter().rposition(|byte| *byte != 0);
    &bytes[..last.map_or(0, |last| last + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_zeros_at_the_end_go() {
        for written in [0, 1, 4095, 4096, 4097, 9000] {
            for zeros in [0, 1, 4096, 5000, 8192] {
                let mut bytes = vec![0; written];
                if let Some(last) = bytes.last_mut() {
                    *last = 1;
                }
                bytes.resize(written + zeros, 0);
                assert_eq!(without_zeros_at_the_end(&bytes).len(), written);
            }
        }
    }
}
