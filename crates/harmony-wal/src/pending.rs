//! What was appended and not yet written: frames encoded in place, one behind the other, across segments.

use harmony_types::config::Identity;
use harmony_types::{HardState, LogIndex, NodeId, Term, WalOffset};

use crate::frame::{self, FRAME_BYTES_MIN, Kind, Meta};
use crate::segment::{self, Head, OPENING_BYTES, SEAL_BYTES};

/// Bytes of each segment that records leave free: for its seal, and for the note that releases older segments. A log
/// without room for another segment can note that, and has room then.
const RESERVED_BYTES: u64 = (SEAL_BYTES + FRAME_BYTES_MIN) as u64;

/// Encoded bytes and where they go. Cleared and used again, so that appending allocates nothing in the long run.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) bytes: Vec<u8>,
    pub(crate) pieces: Vec<Piece>,
}

/// A run of bytes for one place: from `start` to the start of the next piece.
pub(crate) struct Piece {
    pub(crate) start: usize,
    pub(crate) at: WalOffset,
    /// The segment to make first; the piece starts with its opening.
    pub(crate) fresh: Option<Fresh>,
}

/// A segment that is to be made, and the seal of the one before.
pub(crate) struct Fresh {
    pub(crate) head: Head,
    pub(crate) file_bytes: u64,
    pub(crate) seal: Vec<u8>,
    pub(crate) seal_at: WalOffset,
}

impl Pending {
    /// Empties it, and gives back memory that an unusual record took.
    pub(crate) fn clear(&mut self, capacity_max: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(capacity_max);
        self.pieces.clear();
    }
}

/// What a new segment's opening repeats of the log before it.
#[derive(Clone, Copy)]
pub(crate) struct Context {
    pub(crate) last: LogIndex,
    pub(crate) last_term: Term,
    pub(crate) state: HardState,
}

/// The end of the log: puts frames one behind the other and opens segments as needed, all in memory.
pub(crate) struct Encoder {
    pub(crate) pending: Pending,
    identity: Identity,
    segment_bytes: u64,
    /// Oldest segment needed.
    pub(crate) oldest: u32,
    at: WalOffset,
    /// Length of the open segment's file.
    file_bytes: u64,
    chain: u32,
    /// Everything before it is synced.
    pub(crate) durable: WalOffset,
}

/// Where an encoder starts.
pub(crate) struct Start {
    pub(crate) at: WalOffset,
    pub(crate) file_bytes: u64,
    pub(crate) chain: u32,
    pub(crate) oldest: u32,
}

impl Encoder {
    /// Goes on at `start`, everything before which is durable.
    pub(crate) fn new(identity: Identity, segment_bytes: u64, start: &Start) -> Self {
        Self {
            pending: Pending::default(),
            identity,
            segment_bytes,
            oldest: start.oldest,
            at: start.at,
            file_bytes: start.file_bytes,
            chain: start.chain,
            durable: start.at,
        }
    }

    /// Where the next frame goes, unless it does not fit.
    pub(crate) fn end(&self) -> WalOffset {
        self.at
    }

    /// Length of the open segment's file.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Bytes of the open segment that frames may still take.
    pub(crate) fn room(&self) -> u64 {
        self.file_bytes.saturating_sub(u64::from(self.at.byte()) + RESERVED_BYTES)
    }

    /// Bytes of new segments that frames with these payloads would need.
    pub(crate) fn new_segment_bytes(&self, payloads: impl Iterator<Item = usize>) -> u64 {
        let (mut byte, mut file_bytes, mut added) = (u64::from(self.at.byte()), self.file_bytes, 0);
        for payload in payloads {
            let frame = frame::frame_bytes(payload) as u64;
            if file_bytes < byte + frame + RESERVED_BYTES {
                (byte, file_bytes) = (u64::from(OPENING_BYTES), self.next_file_bytes(frame));
                added += file_bytes;
            }
            byte += frame;
        }
        added
    }

    /// As [`Encoder::new_segment_bytes`], for one note that releases older segments.
    pub(crate) fn new_segment_bytes_for_note(&self) -> u64 {
        let fits = u64::from(self.at.byte()) + RESERVED_BYTES <= self.file_bytes;
        if fits { 0 } else { self.next_file_bytes(FRAME_BYTES_MIN as u64) }
    }

    /// Encodes one frame. Returns where it stands.
    pub(crate) fn push(&mut self, meta: &Meta, prefix: &[u8], data: &[u8], context: &Context) -> WalOffset {
        let bytes = frame::frame_bytes(prefix.len() + data.len()) as u64;
        let reserved = if meta.kind == Kind::Release { SEAL_BYTES as u64 } else { RESERVED_BYTES };
        if self.file_bytes < u64::from(self.at.byte()) + bytes + reserved {
            self.roll(bytes, context);
        }
        if self.pending.pieces.is_empty() {
            self.pending.pieces.push(Piece { start: self.pending.bytes.len(), at: self.at, fresh: None });
        }
        let at = self.at;
        let meta = Meta { durable: self.durable_byte(), ..*meta };
        self.chain = frame::encode(&mut self.pending.bytes, at, self.chain, &meta, prefix, data);
        let bytes = u32::try_from(bytes).expect("a frame fits into its segment");
        self.at = WalOffset::new(at.segment(), at.byte() + bytes);
        at
    }

    fn durable_byte(&self) -> u32 {
        if self.durable.segment() == self.at.segment() { self.durable.byte() } else { OPENING_BYTES }
    }

    fn next_file_bytes(&self, frame: u64) -> u64 {
        self.segment_bytes.max(u64::from(OPENING_BYTES) + frame + RESERVED_BYTES)
    }

    /// Closes the segment and opens the next with room for a frame of `bytes`.
    fn roll(&mut self, bytes: u64, context: &Context) {
        let (seal, chain) = segment::seal(self.at, self.chain);
        let head = Head {
            sequence: self.at.segment() + 1,
            oldest: self.oldest,
            cluster: self.identity.cluster.0,
            node: NodeId::or_zero(self.identity.node),
            boundary: context.last,
            boundary_term: context.last_term,
        };
        self.file_bytes = self.next_file_bytes(bytes);
        let fresh = Fresh { head, file_bytes: self.file_bytes, seal, seal_at: self.at };
        let start = self.pending.bytes.len();
        let at = WalOffset::new(head.sequence, 0);
        self.pending.pieces.push(Piece { start, at, fresh: Some(fresh) });
        self.chain = segment::encode_opening(&mut self.pending.bytes, &head, chain, &context.state);
        self.at = WalOffset::new(head.sequence, OPENING_BYTES);
    }
}
