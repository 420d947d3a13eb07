//! A frame between peers.
//!
//! | offset | size | meaning |
//! | --- | --- | --- |
//! | 0 | 4 | length of the payload, little endian |
//! | 4 | 4 | crc32 of the length field and the payload, little endian |
//! | 8 | length | payload |

use bytes::{BufMut, BytesMut};
use prost::Message;

/// Bytes in front of a payload.
pub(super) const HEAD_BYTES: usize = 8;

/// What is wrong with a frame: the connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("frame of {bytes} bytes is over the limit of {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("frame with checksum {found:#010x}, expected {expected:#010x}")]
    Checksum { expected: u32, found: u32 },
}

/// The head of a frame, read before its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) payload_bytes: usize,
    checksum: u32,
}

impl Head {
    /// Reads the head; refuses payloads over `limit` before any memory is set aside for them.
    pub(super) fn decode(head: [u8; HEAD_BYTES], limit: usize) -> Result<Self, FrameError> {
        let [a, b, c, d, rest @ ..] = head;
        let payload_bytes = u32::from_le_bytes([a, b, c, d]) as usize;
        if limit < payload_bytes {
            return Err(FrameError::TooLarge { bytes: payload_bytes, limit });
        }
        Ok(Self { payload_bytes, checksum: u32::from_le_bytes(rest) })
    }

    /// Checks the payload that followed.
    pub(super) fn check(self, payload: &[u8]) -> Result<(), FrameError> {
        let expected = checksum(payload);
        if expected == self.checksum {
            Ok(())
        } else {
            Err(FrameError::Checksum { expected, found: self.checksum })
        }
    }
}

/// Appends a message as one frame; returns its payload's size.
///
/// # Errors
/// [`FrameError::TooLarge`]; nothing is appended.
pub(super) fn encode(message: &impl Message, limit: usize, out: &mut BytesMut) -> Result<usize, FrameError> {
    let bytes = message.encoded_len();
    if limit.min(u32::MAX as usize) < bytes {
        return Err(FrameError::TooLarge { bytes, limit });
    }
    let start = out.len();
    out.reserve(HEAD_BYTES + bytes);
    out.put_bytes(0, HEAD_BYTES);
    message.encode(out).expect("a growing buffer has room");
    fill_head(&mut out[start..]);
    Ok(bytes)
}

fn fill_head(frame: &mut [u8]) {
    let (head, payload) = frame.split_at_mut(HEAD_BYTES);
    let length = u32::try_from(payload.len()).expect("the limit of a frame fits in 32 bits");
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..].copy_from_slice(&checksum(payload).to_le_bytes());
}

fn checksum(payload: &[u8]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    hash.update(&length.to_le_bytes());
    hash.update(payload);
    hash.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> BytesMut {
        let mut out = BytesMut::new();
        encode(&"hello".to_owned(), 100, &mut out).unwrap();
        out
    }

    fn check(frame: &[u8]) -> Result<(), FrameError> {
        let head = Head::decode(frame[..HEAD_BYTES].try_into().unwrap(), 100)?;
        assert_eq!(head.payload_bytes, frame.len() - HEAD_BYTES);
        head.check(&frame[HEAD_BYTES..])
    }

    #[test]
    fn every_flipped_bit_behind_the_length_is_noticed() {
        assert_eq!(check(&frame()), Ok(()));
        for bit in 32..frame().len() * 8 {
            let mut damaged = frame();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(check(&damaged), Err(FrameError::Checksum { .. })), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_by_its_head() {
        let head = [0xff; HEAD_BYTES];
        assert_eq!(Head::decode(head, 100), Err(FrameError::TooLarge { bytes: 0xffff_ffff, limit: 100 }));
        let mut out = BytesMut::new();
        assert!(encode(&"hello".to_owned(), 3, &mut out).is_err());
        assert!(out.is_empty());
    }
}
