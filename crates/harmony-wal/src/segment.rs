//! The segment: one file of the log, its name, its head, and how it opens and ends.
//!
//! A segment is named `{sequence:016x}-{first index:016x}.wal` and starts with this head, little endian:
//!
//! | offset | size | meaning |
//! | --- | --- | --- |
//! | 0 | 8 | magic `HARMWAL\n` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | how the free space reads: 0 = as zeros, the only one known |
//! | 16 | 8 | sequence number, from 1 |
//! | 24 | 8 | sequence number of the oldest segment that was needed when this one was made |
//! | 32 | 8 | cluster id |
//! | 40 | 8 | member id, 0 = none |
//! | 48 | 8 | boundary: index of the entry before this segment |
//! | 56 | 8 | term of that entry |
//! | 64 | 4 | zeros |
//! | 68 | 4 | CRC-32 of bytes 0..68 |
//!
//! Two frames follow: a `Crc` record whose payload (4 bytes) is the checksum of the last frame of the segment before
//! (0 in the first segment), and a `State` record with the hard state, so that old segments can go. All of it is made
//! durable under the name `{sequence:016x}.new` and then renamed: a segment that has its name has its opening.
//!
//! The segment that follows is made before this one is closed by a `Seal` frame. A sealed segment without a follower
//! therefore misses one; and as the seal's bytes are known beforehand, the follower's `Crc` record proves that this
//! one is whole, be its seal written or not.

use std::path::{Path, PathBuf};

use crc32fast::Hasher;
use harmony_types::config::Identity;
use harmony_types::{HardState, LogIndex, NodeId, RecordType, Term, WalError, WalOffset};

use crate::frame::{self, Kind, Meta, long, word};
use crate::index::INDEX_END;
use crate::record;

/// The newest format that this release writes and reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Bytes of the head.
pub(crate) const HEAD_BYTES: usize = 72;
/// Bytes of the head and the two frames behind it: the first record of a caller starts here.
pub(crate) const OPENING_BYTES: u32 = {
    let bytes = HEAD_BYTES + frame::frame_bytes(4) + frame::frame_bytes(record::VOTE_BYTES);
    assert!(bytes == 160);
    160
};
/// Bytes of a seal; each segment keeps them free for it.
pub(crate) const SEAL_BYTES: usize = frame::FRAME_BYTES_MIN;

const MAGIC: [u8; 8] = *b"HARMWAL\n";

/// A segment's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) sequence: u32,
    pub(crate) oldest: u32,
    pub(crate) cluster: u64,
    pub(crate) node: u64,
    pub(crate) boundary: LogIndex,
    pub(crate) boundary_term: Term,
}

impl Head {
    pub(crate) fn name(&self) -> SegmentName {
        SegmentName { sequence: self.sequence, first: self.boundary.next() }
    }

    fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        let numbers = [
            u64::from(self.sequence),
            u64::from(self.oldest),
            self.cluster,
            self.node,
            self.boundary.0,
            self.boundary_term.0,
        ];
        for (slot, number) in numbers.iter().enumerate() {
            bytes[16 + 8 * slot..][..8].copy_from_slice(&number.to_le_bytes());
        }
        let crc = head_crc(&bytes);
        bytes[68..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads and checks the head of the segment `name` in file `path`.
    pub(crate) fn decode(bytes: &[u8; HEAD_BYTES], path: &Path, name: SegmentName) -> Result<Self, WalError> {
        let corrupt = |reason: &str| WalError::CorruptRecord {
            path: path.to_owned(),
            offset: 0,
            index: name.first.prev(),
            reason: reason.to_owned(),
        };
        if bytes[..8] != MAGIC {
            return Err(corrupt("the file does not start as a segment does"));
        }
        let version = word(bytes, 8);
        if FORMAT_VERSION < version {
            return Err(WalError::UnsupportedVersion {
                path: path.to_owned(),
                found: version,
                supported: FORMAT_VERSION,
            });
        }
        let (found, expected) = (word(bytes, 68), head_crc(bytes));
        if found != expected {
            return Err(WalError::CrcMismatch {
                path: path.to_owned(),
                offset: 0,
                index: name.first.prev(),
                expected,
                found,
            });
        }
        if version != FORMAT_VERSION || word(bytes, 12) != 0 {
            return Err(corrupt("the segment head has an unknown version or kind of space"));
        }
        let sequence =
            |at| u32::try_from(long(bytes, at)).map_err(|_| corrupt("sequence number out of range"));
        let head = Self {
            sequence: sequence(16)?,
            oldest: sequence(24)?,
            cluster: long(bytes, 32),
            node: long(bytes, 40),
            boundary: LogIndex(long(bytes, 48)),
            boundary_term: Term(long(bytes, 56)),
        };
        if head.boundary == INDEX_END {
            return Err(corrupt("boundary out of range"));
        }
        if head.name() != name {
            return Err(corrupt(&format!("the file is segment {}: it was renamed or copied", head.name())));
        }
        Ok(head)
    }

    /// Whether a head that names a newer version is one of this version with a damaged number: its checksum tells.
    pub(crate) fn version_is_damaged(bytes: &[u8; HEAD_BYTES]) -> bool {
        let mut bytes = *bytes;
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        word(&bytes, 68) == head_crc(&bytes)
    }

    /// Refuses a segment of another cluster or member. No member id matches only none.
    pub(crate) fn check_identity(&self, identity: Identity, path: &Path) -> Result<(), WalError> {
        let node = NodeId::or_zero(identity.node);
        if self.cluster == identity.cluster.0 && self.node == node {
            return Ok(());
        }
        Err(WalError::Foreign {
            path: path.to_owned(),
            found_cluster: harmony_types::ClusterId(self.cluster),
            found_node: self.node,
            cluster: identity.cluster,
            node,
        })
    }
}

fn head_crc(bytes: &[u8; HEAD_BYTES]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&bytes[..68]);
    hasher.finalize()
}

/// A segment's file name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentName {
    pub(crate) sequence: u32,
    /// First index that the segment can hold.
    pub(crate) first: LogIndex,
}

impl std::fmt::Display for SegmentName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}-{:016x}.wal", self.sequence, self.first.0)
    }
}

impl SegmentName {
    /// Reads a file name; `None` for one that no segment has.
    pub(crate) fn parse(name: &Path) -> Option<Self> {
        let text = name.to_str()?;
        let (sequence, first) = text.strip_suffix(".wal")?.split_once('-')?;
        let parsed = Self {
            sequence: u32::from_str_radix(sequence, 16).ok()?,
            first: LogIndex(u64::from_str_radix(first, 16).ok()?),
        };
        (parsed.to_string() == text && parsed.sequence != 0 && parsed.first.0 != 0).then_some(parsed)
    }

    pub(crate) fn path(self, dir: &Path) -> PathBuf {
        dir.join(self.to_string())
    }

    /// Where the segment is made before it gets its name.
    pub(crate) fn unfinished_path(self, dir: &Path) -> PathBuf {
        dir.join(format!("{:016x}.new", self.sequence))
    }
}

/// Appends a segment's opening: head, `Crc` and `State`. `chain` is the checksum of the last frame of the segment
/// before. Returns the checksum of the last frame written.
pub(crate) fn encode_opening(out: &mut Vec<u8>, head: &Head, chain: u32, state: &HardState) -> u32 {
    let start = out.len();
    out.extend_from_slice(&head.encode());
    let byte = u32::try_from(HEAD_BYTES).expect("a small constant");
    let meta = Meta {
        kind: Kind::Record(RecordType::Crc),
        index: head.boundary,
        term: head.boundary_term,
        durable: OPENING_BYTES,
    };
    let crc =
        frame::encode(out, WalOffset::new(head.sequence, byte), chain, &meta, &chain.to_le_bytes(), &[]);
    let byte = u32::try_from(out.len() - start).expect("an opening is small");
    let meta = Meta {
        kind: Kind::Record(RecordType::State),
        index: state.commit,
        term: state.term,
        durable: OPENING_BYTES,
    };
    let vote = record::encode_vote(state);
    let chain = frame::encode(out, WalOffset::new(head.sequence, byte), crc, &meta, &vote, &[]);
    assert_eq!(out.len() - start, OPENING_BYTES as usize, "the opening has a fixed size");
    chain
}

/// The seal of segment `at.segment()` at byte `at`, and its checksum. Nothing in it depends on anything else.
pub(crate) fn seal(at: WalOffset, chain: u32) -> (Vec<u8>, u32) {
    let meta = Meta {
        kind: Kind::Seal,
        index: LogIndex(u64::from(at.segment()) + 1),
        term: Term(0),
        durable: at.byte(),
    };
    let mut bytes = Vec::with_capacity(SEAL_BYTES);
    let crc = frame::encode(&mut bytes, at, chain, &meta, &[], &[]);
    (bytes, crc)
}

#[cfg(test)]
mod tests {
    use harmony_types::ClusterId;

    use super::*;

    const HEAD: Head = Head {
        sequence: 3,
        oldest: 2,
        cluster: 0xcdf8,
        node: 7,
        boundary: LogIndex(41),
        boundary_term: Term(5),
    };

    #[test]
    fn names_read_back_and_others_are_refused() {
        let name = HEAD.name();
        assert_eq!(name.to_string(), "0000000000000003-000000000000002a.wal");
        assert_eq!(SegmentName::parse(Path::new(&name.to_string())), Some(name));
        for other in ["LOCK", "3-2a.wal", "0000000000000003-000000000000002A.wal", "0000000000000003.new"] {
            assert_eq!(SegmentName::parse(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn a_head_reads_back_and_every_flipped_byte_is_found() {
        let (bytes, path) = (HEAD.encode(), Path::new("/wal/x"));
        assert_eq!(Head::decode(&bytes, path, HEAD.name()).unwrap(), HEAD);
        for position in 0..HEAD_BYTES {
            let mut damaged = bytes;
            damaged[position] ^= 0x11;
            Head::decode(&damaged, path, HEAD.name()).unwrap_err();
        }
        let renamed = SegmentName { sequence: 4, ..HEAD.name() };
        assert!(matches!(Head::decode(&bytes, path, renamed), Err(WalError::CorruptRecord { .. })));
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = HEAD.encode();
        bytes[8] = 2;
        let error = Head::decode(&bytes, Path::new("/wal/x"), HEAD.name()).unwrap_err();
        assert!(matches!(error, WalError::UnsupportedVersion { found: 2, supported: 1, .. }), "{error}");
    }

    #[test]
    fn only_the_same_cluster_and_member_match() {
        let identity = |cluster, node| Identity { cluster: ClusterId(cluster), node: NodeId::new(node) };
        HEAD.check_identity(identity(0xcdf8, 7), Path::new("/x")).unwrap();
        for (cluster, node) in [(1, 7), (0xcdf8, 8), (0xcdf8, 0)] {
            let error = HEAD.check_identity(identity(cluster, node), Path::new("/x")).unwrap_err();
            assert!(matches!(error, WalError::Foreign { found_node: 7, .. }), "{error}");
        }
    }
}
