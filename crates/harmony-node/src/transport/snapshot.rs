//! Snapshots on a connection of their own, in checksummed pieces, on threads that may block.
//!
//! ```text
//! sender                                   receiver
//! head: number of the transfer, message ─▶
//!                                        ◀─ bytes that it has of this transfer already
//! piece, piece, …                       ─▶ into a file without a name
//!                                        ◀─ bytes that it has, after each piece
//! end: size and checksum of everything  ─▶ reads the file again, compares, hands it to the node
//!                                        ◀─ done, or why not
//! ```
//!
//! A connection that breaks is no end: the receiver keeps what it has for [`RESUME_PATIENCE`], the sender keeps its reader
//! and the pieces that were not confirmed, and both go on where they stopped. Whoever restarts has lost its half; then
//! Raft asks for another snapshot.

mod arrivals;
mod receive;
mod send;

use std::time::Duration;

use bytes::Bytes;

pub(super) use self::arrivals::Arrivals;
pub(super) use self::receive::receive;
pub(super) use self::send::send;
use crate::transport::wire::WireMessage;

/// Content in one frame, bytes.
const PIECE_BYTES: usize = 256 << 10;

/// Largest frame but the first, bytes.
const FRAME_BYTES_MAX: usize = 2 * PIECE_BYTES;

/// Pieces under way that are not confirmed, bytes: what a resumed transfer may have to repeat, kept in memory.
const WINDOW_BYTES: u64 = 8 << 20;

/// Time without progress after which a connection is given up.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Time without progress after which a transfer is given up, however often it was connected again.
pub(super) const RESUME_PATIENCE: Duration = Duration::from_secs(60);

/// The sender's first frame.
#[derive(Clone, PartialEq, prost::Message)]
struct Head {
    /// Tells this sender's transfers apart, those of its earlier lives too.
    #[prost(fixed64, tag = "1")]
    transfer: u64,
    #[prost(message, optional, tag = "2")]
    announcement: Option<WireMessage>,
}

/// The sender's other frames.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Piece {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
    /// The last frame: no data.
    #[prost(bool, tag = "2")]
    end: bool,
    /// Size of everything up to here.
    #[prost(uint64, tag = "3")]
    total_bytes: u64,
    /// With the end: crc32 of everything.
    #[prost(fixed32, tag = "4")]
    checksum: u32,
}

/// The receiver's frames.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Answer {
    /// Why nothing comes of it; empty when something does.
    #[prost(string, tag = "1")]
    refusal: String,
    /// What is there.
    #[prost(uint64, tag = "2")]
    bytes: u64,
    /// Everything arrived and was taken.
    #[prost(bool, tag = "3")]
    done: bool,
    /// The refusal is for now only: the connection before this one has not ended yet.
    #[prost(bool, tag = "4")]
    again: bool,
}
