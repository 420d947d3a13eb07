//! The frame: what stands around each record on disk.
//!
//! All numbers are little endian. A frame starts and ends at a multiple of 8 bytes.
//!
//! | offset | size | meaning |
//! | --- | --- | --- |
//! | 0 | 4 | length: bytes of header, payload and trailer, without padding; 0 = end of the log |
//! | 4 | 4 | durable: every byte of this segment before this one was synced when the frame was written; never 0 |
//! | 8 | 8 | index, see [`Kind`] |
//! | 16 | 8 | term, see [`Kind`] |
//! | 24 | 4 | checksum: CRC-32 of bytes 0..24, 28..32 and the payload, seeded with segment and offset |
//! | 28 | 3 | link: low 24 bits of the CRC-32 of (checksum of the frame before, bytes 0..24, kind), same seed |
//! | 31 | 1 | kind, see [`Kind`]; never 0 |
//! | 32 | n | payload |
//! | 32+n | 0-7 | zeros up to a multiple of 8, less 4 |
//! | end-4 | 3 | poor: 512-byte sectors wholly inside the frame with at most one byte that is not 0 |
//! | end-1 | 1 | end mark `0xA5` |
//!
//! Why it is so:
//! - The **checksum** stands alone, so that one frame can be read and checked without those before it. The **link**
//!   ties each frame to the one before (the checksum covers it), and lets a reader trust a header, its length above
//!   all, though the payload is damaged.
//! - Both are seeded with segment and offset: a frame that stands where it was not written never validates, be it
//!   stale content of a recycled file, a misdirected write, or the image of a frame inside of a payload.
//! - **durable** makes each frame a witness that everything before that byte had been synced: with it, recovery tells
//!   damage to acknowledged records from a torn write (see `tail.rs`).
//! - **kind**, **durable** and the **end mark** are never 0, and **poor** counts the sectors that could be, so that a
//!   sector which the disk did not write can be told from one that was written. The trailer is outside of the
//!   checksum: damage to it alone loses nothing and is ignored.

use crc32fast::Hasher;
use harmony_types::{LogIndex, RecordType, Term, WalOffset, limits};

/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 32;
/// Bytes at the end of a frame.
pub(crate) const TRAILER_BYTES: usize = 4;
/// The smallest frame, that of an empty payload.
pub(crate) const FRAME_BYTES_MIN: usize = 40;
/// Largest payload: the largest record and the type byte of an entry.
pub(crate) const PAYLOAD_BYTES_MAX: usize = limits::RECORD_BYTES_MAX + 1;
/// What a disk writes whole or not at all.
pub(crate) const SECTOR_BYTES: usize = 512;

/// Where the checksum stands in the header.
const CRC_AT: usize = 24;
const ALIGN: usize = 8;
const END_MARK: u8 = 0xA5;

const _: () = assert!((HEADER_BYTES + TRAILER_BYTES).next_multiple_of(ALIGN) == FRAME_BYTES_MIN);
const _: () = assert!(PAYLOAD_BYTES_MAX / SECTOR_BYTES < 1 << 24);

/// What a frame holds: a record, or a note of the log to itself. The numbers are on disk and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A record that `Wal` knows.
    Record(RecordType),
    /// Segments before `index` (a sequence number) are not needed any more. No payload.
    Release,
    /// The segment is complete and goes on in segment `index` (a sequence number). No payload.
    Seal,
}

impl Kind {
    const RELEASE: u8 = 6;
    const SEAL: u8 = 7;

    pub(crate) fn to_u8(self) -> u8 {
        match self {
            Self::Record(RecordType::Entry) => 1,
            Self::Record(RecordType::State) => 2,
            Self::Record(RecordType::Snapshot) => 3,
            Self::Record(RecordType::Crc) => 4,
            Self::Record(RecordType::Truncate) => 5,
            Self::Release => Self::RELEASE,
            Self::Seal => Self::SEAL,
        }
    }

    pub(crate) fn from_u8(number: u8) -> Option<Self> {
        match number {
            Self::RELEASE => Some(Self::Release),
            Self::SEAL => Some(Self::Seal),
            _ => RecordType::from_u32(u32::from(number)).map(Self::Record),
        }
    }
}

/// What the writer of a frame says about its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta {
    pub(crate) kind: Kind,
    pub(crate) index: LogIndex,
    pub(crate) term: Term,
    /// See the table; a multiple of 8, not 0.
    pub(crate) durable: u32,
}

/// A frame's first 32 bytes, decoded but not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) length: u32,
    pub(crate) durable: u32,
    pub(crate) index: LogIndex,
    pub(crate) term: Term,
    pub(crate) crc: u32,
    pub(crate) link: u32,
    pub(crate) kind: u8,
}

impl Header {
    /// Decodes the first 32 bytes.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Self {
        let last = word(bytes, 28);
        Self {
            length: word(bytes, 0),
            durable: word(bytes, 4),
            index: LogIndex(long(bytes, 8)),
            term: Term(long(bytes, 16)),
            crc: word(bytes, 24),
            link: last & 0xff_ffff,
            kind: bytes[31],
        }
    }

    /// Whether the length can be one. Only then may the sizes below be asked for.
    pub(crate) fn plausible(&self) -> bool {
        let length = self.length as usize;
        (HEADER_BYTES + TRAILER_BYTES..=HEADER_BYTES + PAYLOAD_BYTES_MAX + TRAILER_BYTES).contains(&length)
    }

    /// Bytes of payload.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.length as usize - HEADER_BYTES - TRAILER_BYTES
    }

    /// Bytes that the frame takes.
    pub(crate) fn frame_bytes(&self) -> usize {
        frame_bytes(self.payload_bytes())
    }
}

/// Bytes that the frame of a payload takes.
pub(crate) const fn frame_bytes(payload: usize) -> usize {
    (HEADER_BYTES + payload + TRAILER_BYTES).next_multiple_of(ALIGN)
}

/// Appends the frame of payload `prefix ++ data` at `at`, behind a frame with checksum `chain`. Returns its checksum.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    at: WalOffset,
    chain: u32,
    meta: &Meta,
    prefix: &[u8],
    data: &[u8],
) -> u32 {
    let payload = prefix.len() + data.len();
    assert!(payload <= PAYLOAD_BYTES_MAX, "payload of {payload} bytes");
    assert!(meta.durable != 0 && meta.durable.is_multiple_of(8), "durable up to {}", meta.durable);
    let bytes = frame_bytes(payload);
    let length = u32::try_from(HEADER_BYTES + payload + TRAILER_BYTES).expect("payloads are limited");

    let mut header = [0; HEADER_BYTES];
    header[0..4].copy_from_slice(&length.to_le_bytes());
    header[4..8].copy_from_slice(&meta.durable.to_le_bytes());
    header[8..16].copy_from_slice(&meta.index.0.to_le_bytes());
    header[16..24].copy_from_slice(&meta.term.0.to_le_bytes());
    header[31] = meta.kind.to_u8();
    let link = link_of(at, chain, &header);
    header[28..31].copy_from_slice(&link.to_le_bytes()[..3]);

    let start = out.len();
    out.reserve(bytes);
    out.extend_from_slice(&header);
    out.extend_from_slice(prefix);
    out.extend_from_slice(data);
    let crc = checksum_in_place(at, &mut out[start..]);
    out[start + CRC_AT..][..4].copy_from_slice(&crc.to_le_bytes());
    out.resize(start + bytes - TRAILER_BYTES, 0);
    let poor = poor_sectors(at.byte(), &out[start..]).to_le_bytes();
    out.extend_from_slice(&[poor[0], poor[1], poor[2], END_MARK]);
    crc
}

/// Whether this header stands at `at` behind a frame with checksum `chain`: then its length can be trusted.
pub(crate) fn link_holds(at: WalOffset, chain: u32, bytes: &[u8; HEADER_BYTES]) -> bool {
    let header = Header::decode(bytes);
    header.plausible() && header.link == link_of(at, chain, bytes)
}

/// The checksum computed over header and payload, whatever the header says it is.
pub(crate) fn checksum(at: WalOffset, header: &[u8; HEADER_BYTES], payload: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(header_checksum(at, header));
    hasher.update(payload);
    hasher.finalize()
}

/// The checksum of a frame at `at` before its payload: the payload's bytes go on from it.
pub(crate) fn header_checksum(at: WalOffset, header: &[u8; HEADER_BYTES]) -> u32 {
    let mut covered = [0; HEADER_BYTES - 4];
    covered[..CRC_AT].copy_from_slice(&header[..CRC_AT]);
    covered[CRC_AT..].copy_from_slice(&header[CRC_AT + 4..]);
    let mut hasher = Hasher::new_with_initial(seed(at));
    hasher.update(&covered);
    hasher.finalize()
}

/// As [`checksum`], of a frame without its padding and trailer. A short run of bytes costs a CRC almost as much as a
/// payload of a hundred: this moves the bytes before the checksum up to those behind it for a moment, and takes one run.
pub(crate) fn checksum_in_place(at: WalOffset, frame: &mut [u8]) -> u32 {
    let (mut first, mut crc) = ([0; CRC_AT], [0; 4]);
    first.copy_from_slice(&frame[..CRC_AT]);
    crc.copy_from_slice(&frame[CRC_AT..CRC_AT + 4]);
    frame[4..CRC_AT + 4].copy_from_slice(&first);
    let mut hasher = Hasher::new_with_initial(seed(at));
    hasher.update(&frame[4..]);
    frame[..CRC_AT].copy_from_slice(&first);
    frame[CRC_AT..CRC_AT + 4].copy_from_slice(&crc);
    hasher.finalize()
}

/// How many sectors the trailer at the end of `frame` says are poor; `None` without end mark.
pub(crate) fn declared_poor_sectors(frame: &[u8]) -> Option<u32> {
    let trailer = word(frame, frame.len() - TRAILER_BYTES);
    (trailer >> 24 == u32::from(END_MARK)).then_some(trailer & 0xff_ffff)
}

/// The parts into which sector borders cut `frame`, which starts at byte `at` of its file.
pub(crate) fn portions(at: u32, frame: &[u8]) -> impl Iterator<Item = &[u8]> {
    let first = (SECTOR_BYTES - at as usize % SECTOR_BYTES).min(frame.len());
    let (head, rest) = frame.split_at(first);
    std::iter::once(head).chain(rest.chunks(SECTOR_BYTES))
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn poor_sectors(at: u32, frame: &[u8]) -> u32 {
    if frame.len() < SECTOR_BYTES {
        return 0;
    }
    let poor = |sector: &&[u8]| {
        sector.len() == SECTOR_BYTES && sector.iter().filter(|byte| **byte != 0).nth(1).is_none()
    };
    u32::try_from(portions(at, frame).filter(poor).count()).expect("payloads are limited")
}

fn seed(at: WalOffset) -> u32 {
    // For one offset, two segments never share a seed (an odd factor is a bijection), and a CRC is a bijection of its
    // seed: stale frames of a recycled file fail for certain, not only with high probability.
    at.segment().wrapping_mul(0x9E37_79B9) ^ at.byte()
}

fn link_of(at: WalOffset, chain: u32, header: &[u8; HEADER_BYTES]) -> u32 {
    let mut linked = [0; 29];
    linked[..4].copy_from_slice(&chain.to_le_bytes());
    linked[4..28].copy_from_slice(&header[..24]);
    linked[28] = header[31];
    let mut hasher = Hasher::new_with_initial(seed(at));
    hasher.update(&linked);
    hasher.finalize() & 0xff_ffff
}

pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        Meta { kind: Kind::Record(RecordType::Entry), index: LogIndex(7), term: Term(3), durable: 160 }
    }

    fn header(frame: &[u8]) -> &[u8; HEADER_BYTES] {
        frame.first_chunk().unwrap()
    }

    fn valid(at: WalOffset, frame: &[u8]) -> bool {
        let decoded = Header::decode(header(frame));
        decoded.plausible()
            && decoded.frame_bytes() <= frame.len()
            && decoded.crc == checksum(at, header(frame), &frame[HEADER_BYTES..][..decoded.payload_bytes()])
    }

    #[test]
    fn the_bytes_of_version_1_do_not_change() {
        let mut frame = Vec::new();
        encode(&mut frame, WalOffset::new(2, 160), 0x1234_5678, &meta(), &[0], b"abc");
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN);
    }

    const GOLDEN: &str = "28000000a000000007000000000000000300000000000000c076a2299c420f0100616263000000a5";

    #[test]
    fn one_run_gives_the_same_checksum_and_leaves_the_frame_as_it_was() {
        let at = WalOffset::new(9, 800);
        let mut frame = Vec::new();
        let crc = encode(&mut frame, at, 5, &meta(), &[1], &[3; 77]);
        let length = HEADER_BYTES + 78;
        let before = frame.clone();
        assert_eq!(checksum_in_place(at, &mut frame[..length]), crc);
        assert_eq!(frame, before);
        assert_eq!(checksum(at, header(&frame), &frame[HEADER_BYTES..length]), crc);
    }

    #[test]
    fn a_frame_validates_only_where_it_was_written() {
        let at = WalOffset::new(2, 4096);
        let mut frame = Vec::new();
        let crc = encode(&mut frame, at, 99, &meta(), &[0], &[5; 1000]);
        assert_eq!(frame.len(), frame_bytes(1001));
        assert_eq!(Header::decode(header(&frame)).crc, crc);
        assert!(valid(at, &frame) && link_holds(at, 99, header(&frame)));
        assert!(!link_holds(at, 98, header(&frame)), "behind another frame");
        for elsewhere in [WalOffset::new(1, 4096), WalOffset::new(3, 4096), WalOffset::new(2, 4104)] {
            assert!(!valid(elsewhere, &frame) && !link_holds(elsewhere, 99, header(&frame)), "{elsewhere}");
        }
    }

    #[test]
    fn every_flipped_byte_before_the_padding_is_found() {
        let at = WalOffset::new(1, 160);
        let mut frame = Vec::new();
        encode(&mut frame, at, 0, &meta(), &[0], b"payload");
        for position in 0..HEADER_BYTES + 8 {
            for mask in 1..=0xff {
                let mut damaged = frame.clone();
                damaged[position] ^= mask;
                assert!(!valid(at, &damaged), "byte {position} ^ {mask:#x}");
                let header_damaged = position < HEADER_BYTES && !(24..28).contains(&position);
                assert_eq!(link_holds(at, 0, header(&damaged)), !header_damaged, "byte {position}");
            }
        }
    }

    #[test]
    fn poor_sectors_are_counted_and_cut_at_borders() {
        let at = WalOffset::new(1, 1000);
        let mut data = vec![0; 2000];
        data[600] = 1;
        let mut frame = Vec::new();
        encode(&mut frame, at, 0, &meta(), &[], &data);
        // Sectors at 1024, 1536 and 2048 lie wholly inside; the first holds the end of the header.
        assert_eq!(declared_poor_sectors(&frame), Some(2));
        let lengths: Vec<usize> = portions(at.byte(), &frame).map(<[u8]>::len).collect();
        assert_eq!(lengths, [24, 512, 512, 512, 480]);
        assert_eq!(portions(512, &[0; 40]).count(), 1);
    }

    #[test]
    fn kinds_keep_their_numbers() {
        for number in 1..=7 {
            assert_eq!(Kind::from_u8(number).unwrap().to_u8(), number);
        }
        assert_eq!((Kind::from_u8(0), Kind::from_u8(8)), (None, None));
    }
}
