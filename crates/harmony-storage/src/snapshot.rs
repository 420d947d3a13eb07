//! Snapshots: the state machine's content as a stream of checked frames, in both directions with constant memory.
//!
//! The stream opens with the 8 bytes `hmnysnap` and the format version (u32, big endian; 2). Frames follow:
//!
//! | offset | bytes | meaning |
//! | --- | --- | --- |
//! | 0 | 4 | length of the payload, big endian |
//! | 4 | 4 | CRC-32 (IEEE) of kind and payload, big endian |
//! | 8 | 1 | kind: 1 head, 2 rows of `latest`, 3 rows of `log`, 4 end, 5 replicated rows of `state` |
//! | 9 | | payload |
//!
//! One head, rows of `latest`, rows of `log`, rows of `state`, one end, in this order; nothing behind the end. The head is a [`Head`] as
//! protobuf. Rows stand one after the other in ascending order of their keys, each as key length (u32, big endian), key,
//! row length (u32, big endian), row as in the tree, its checksum included. The end carries the number of rows of each
//! table, u64 each, big endian. Rows that compaction gave up are left out, so two members at one applied index
//! write the same bytes.

mod frames;
pub(crate) mod inspect;
pub(crate) mod read;
pub(crate) mod restore;
pub(crate) mod write;

use crate::tree::meta::MembershipRow;

const MAGIC: [u8; 8] = *b"hmnysnap";

/// Version of the stream that this release writes, and the only one it reads: version 1 was never released.
pub(crate) const STREAM_VERSION: u32 = 2;

const FRAME_HEAD_BYTES: usize = 9;

/// Payload at which a frame of rows is closed, bytes; a larger row has a frame of its own.
const FRAME_BYTES: usize = 64 << 10;

/// Largest payload that a reader accepts, bytes: two versions of the largest value with room to spare.
const FRAME_BYTES_MAX: usize = 4 * harmony_types::limits::RECORD_BYTES_MAX;

const KIND_HEAD: u8 = 1;
const KIND_LATEST: u8 = 2;
const KIND_LOG: u8 = 3;
const KIND_END: u8 = 4;
const KIND_STATE: u8 = 5;

/// What a snapshot stands for.
#[derive(Clone, PartialEq, prost::Message)]
struct Head {
    /// The cluster.
    #[prost(uint64, tag = "1")]
    cluster: u64,
    /// Last entry contained.
    #[prost(uint64, tag = "2")]
    index: u64,
    /// Its term.
    #[prost(uint64, tag = "3")]
    term: u64,
    /// The revision.
    #[prost(uint64, tag = "4")]
    revision: u64,
    /// The compact revision, 0 for never.
    #[prost(uint64, tag = "5")]
    compact: u64,
    /// The members.
    #[prost(message, optional, tag = "6")]
    membership: Option<MembershipRow>,
    /// The rolling hash over what each entry did.
    #[prost(fixed32, tag = "7")]
    state_hash: u32,
}

fn frame_crc(kind: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(payload);
    hasher.finalize()
}
