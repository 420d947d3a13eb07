//! The write-ahead log's contract.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use crate::error::WalError;
use crate::log::{Entry, HardState, LogIndex, Term};
use crate::storage::DiskSpace;

/// What a record carries. The numbers are on disk and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum RecordType {
    /// A log entry: first data byte is the entry's type, the rest its data. An entry at an index that the log
    /// already holds replaces it and everything behind it.
    Entry = 1,
    /// A hard state: `index` is the commit index, `term` the term, data the vote (8 bytes, little endian, 0 = none).
    State = 2,
    /// A snapshot boundary: entries up to `index` are replaced. When the log does not hold exactly this index and
    /// term, the whole log is: it goes on behind the boundary.
    Snapshot = 3,
    /// Opens each segment and seeds its checksum chain.
    Crc = 4,
    /// Drops the entries from `index` on; no data.
    Truncate = 5,
}

impl RecordType {
    /// The type with this number on disk, or `None`.
    #[must_use]
    pub const fn from_u32(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Entry),
            2 => Some(Self::State),
            3 => Some(Self::Snapshot),
            4 => Some(Self::Crc),
            5 => Some(Self::Truncate),
            _ => None,
        }
    }
}

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalRecord {
    /// How to read the rest.
    pub record_type: RecordType,
    /// Log index, see [`RecordType`].
    pub index: LogIndex,
    /// Term, see [`RecordType`].
    pub term: Term,
    /// Payload, see [`RecordType`].
    pub data: Bytes,
    /// Checksum found on disk; ignored by `append`, which computes it.
    pub crc: u32,
}

/// Where a record stands: segment sequence in the upper 32 bits, byte within the segment in the lower.
///
/// Ordered as the log is; a record keeps its offset for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WalOffset(pub u64);

impl WalOffset {
    /// The offset of byte `byte` in segment `segment`.
    #[must_use]
    pub const fn new(segment: u32, byte: u32) -> Self {
        Self((segment as u64) << 32 | byte as u64)
    }

    /// Sequence number of the segment.
    #[must_use]
    pub const fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Byte within the segment.
    #[must_use]
    pub const fn byte(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }
}

impl fmt::Display for WalOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment(), self.byte())
    }
}

/// Which entries a log holds. Empty when `last == boundary`.
///
/// The entry at `boundary` itself is gone (replaced by a snapshot or released) but its term is still known, as Raft's
/// consistency check needs it. Invariant: `boundary <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LogBounds {
    /// Index before the first entry held.
    pub boundary: LogIndex,
    /// Term of the entry at `boundary`; 0 at index 0.
    pub boundary_term: Term,
    /// Last entry held, or `boundary`.
    pub last: LogIndex,
}

impl LogBounds {
    /// First entry held, or the next to be written when there is none.
    #[must_use]
    pub const fn first(&self) -> LogIndex {
        self.boundary.next()
    }
}

/// A write-ahead log of Raft entries, hard states and snapshot boundaries.
///
/// All methods may be called from many threads. What `append` accepted can be read at once and is durable after the
/// next `sync` that began later; threads that sync together share one disk write. After an I/O error the log is
/// poisoned: every call but reads and `close` fails until it is opened again, and no sync is ever retried.
pub trait Wal: Send + Sync {
    /// Appends one record and returns its offset.
    ///
    /// # Errors
    /// [`WalError::TooLarge`], [`WalError::InvalidIndex`] (an entry that would leave a gap or step back in term),
    /// [`WalError::Full`], [`WalError::DiskFull`] leave the log as it was. [`WalError::Io`] poisons it.
    fn append(&self, record: WalRecord) -> Result<WalOffset, WalError>;

    /// Appends a hard state (if any) and entries as one group: after a crash either the group's tail is missing or it
    /// is whole, never a hole. Returns the offset of the first record written, or of the end when there is nothing.
    ///
    /// # Errors
    /// As [`Wal::append`]; nothing of the group is appended then.
    fn append_many(&self, hard_state: Option<&HardState>, entries: &[Entry]) -> Result<WalOffset, WalError>;

    /// Reads the record at an offset that `append` or a scan returned, and checks it.
    ///
    /// # Errors
    /// [`WalError::NotFound`] when no record starts there; [`WalError::CrcMismatch`] or [`WalError::CorruptRecord`] when
    /// the disk changed it.
    fn read(&self, offset: WalOffset) -> Result<WalRecord, WalError>;

    /// All records in order, checked. Needs memory for the whole log: [`Wal::scan`] does not.
    ///
    /// # Errors
    /// As [`Wal::read`].
    fn read_all(&self) -> Result<Vec<WalRecord>, WalError>;

    /// Visits all records in order until `visit` returns false.
    ///
    /// # Errors
    /// As [`Wal::read`].
    fn scan(&self, visit: &mut dyn FnMut(WalOffset, WalRecord) -> bool) -> Result<(), WalError>;

    /// The entries `range`, in order: at least one when the range is not empty, then as many as fit in `bytes_max` of
    /// data.
    ///
    /// # Errors
    /// [`WalError::InvalidIndex`] when the range leaves the log's bounds; else as [`Wal::read`].
    fn entries(&self, range: Range<LogIndex>, bytes_max: u64) -> Result<Vec<Entry>, WalError>;

    /// Term of the entry at `index`, or of the boundary.
    ///
    /// # Errors
    /// [`WalError::InvalidIndex`] outside of the bounds.
    fn term(&self, index: LogIndex) -> Result<Term, WalError>;

    /// Which entries the log holds.
    fn bounds(&self) -> LogBounds;

    /// The newest hard state appended.
    fn hard_state(&self) -> HardState;

    /// Drops all entries from `from` on. They can never come back, whatever crash follows a later sync.
    ///
    /// # Errors
    /// [`WalError::InvalidIndex`] at or below the boundary; else as [`Wal::append`].
    fn truncate(&self, from: LogIndex) -> Result<(), WalError>;

    /// Gives up entries up to and including `upto`; whole segments are freed, so some may stay readable. The newest hard
    /// state stays.
    ///
    /// # Errors
    /// [`WalError::InvalidIndex`] past the last durable entry; [`WalError::Io`].
    fn release(&self, upto: LogIndex) -> Result<(), WalError>;

    /// Returns when everything appended before the call is on disk.
    ///
    /// # Errors
    /// [`WalError::Io`] once, then [`WalError::Poisoned`].
    fn sync(&self) -> Result<(), WalError>;

    /// What the log has place for when `upcoming_bytes` more come: in segments that it has, or in those that the disk has room
    /// for. Waits for no disk. A log that cannot tell has enough, until it refuses.
    fn disk_space(&self, upcoming_bytes: u64) -> DiskSpace {
        let _ = upcoming_bytes;
        DiskSpace::Enough
    }

    /// Bytes of the disk that the log is about to take: whoever else writes to that disk leaves it so much.
    fn unreserved_bytes(&self) -> u64 {
        0
    }

    /// Syncs and refuses every later call.
    ///
    /// # Errors
    /// As [`Wal::sync`]; the log counts as closed all the same.
    fn close(&self) -> Result<(), WalError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_types_keep_their_numbers() {
        for number in 1..=5 {
            assert_eq!(RecordType::from_u32(number).unwrap() as u32, number);
        }
        assert_eq!(RecordType::from_u32(0), None);
        assert_eq!(RecordType::from_u32(6), None);
    }

    #[test]
    fn offsets_split_and_order_as_the_log_does() {
        let offset = WalOffset::new(3, 4096);
        assert_eq!((offset.segment(), offset.byte()), (3, 4096));
        assert!(WalOffset::new(2, u32::MAX) < offset);
        assert_eq!(offset.to_string(), "3:4096");
    }
}
