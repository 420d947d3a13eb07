//! The replicated log's units: terms, indexes, entries, hard state, snapshots (Raft thesis, chapter 3).

use std::fmt;
use std::io::Read;

use bytes::Bytes;

use crate::id::NodeId;
use crate::membership::Membership;

/// Raft's logical time: one leader at most for each term. 0 before the first election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term(pub u64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Place of an entry in the replicated log, counted from 1; 0 is "before the first".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogIndex(pub u64);

impl LogIndex {
    /// Before the first entry.
    pub const ZERO: Self = Self(0);

    /// The place after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The place before this one; 0 stays 0.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an entry's data holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum EntryType {
    /// A command for the state machine; empty data is the entry a new leader commits first.
    #[default]
    Normal = 0,
    /// A single membership change.
    ConfChange = 1,
    /// A membership change in the joint form.
    ConfChangeV2 = 2,
}

impl EntryType {
    /// The type with this number on disk and on the wire, or `None`.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Normal),
            1 => Some(Self::ConfChange),
            2 => Some(Self::ConfChangeV2),
            _ => None,
        }
    }
}

/// One unit of replication. `(index, term)` names its content: two logs that agree on both agree on all before.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Entry {
    /// Term of the leader that appended it.
    pub term: Term,
    /// Place in the log.
    pub index: LogIndex,
    /// How to read `data`.
    pub entry_type: EntryType,
    /// Encoded command or membership change; shared, never copied on its way through the layers.
    pub data: Bytes,
}

/// What a node must remember across restarts before it answers anybody (Raft thesis, figure 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HardState {
    /// Newest term seen.
    pub term: Term,
    /// Who got this node's vote in `term`.
    pub vote: Option<NodeId>,
    /// Highest index known to be committed. May lag: it is not synced for its own sake.
    pub commit: LogIndex,
}

/// Which log prefix a snapshot replaces, and who the members were at that place.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SnapshotMeta {
    /// Last entry contained.
    pub index: LogIndex,
    /// Term of that entry.
    pub term: Term,
    /// Members at `index`.
    pub membership: Membership,
}

/// A state machine's content at one index.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// What the data stands for.
    pub meta: SnapshotMeta,
    /// The content; a stream when it may not fit in memory.
    pub data: SnapshotData,
}

/// A snapshot's content: small ones as bytes, large ones read once, front to back.
#[derive(Default)]
pub enum SnapshotData {
    /// Nothing: a meta-only snapshot.
    #[default]
    Empty,
    /// The whole content in memory.
    Bytes(Bytes),
    /// The content as a stream; reading it does not block writers.
    Stream(Box<dyn Read + Send>),
}

impl SnapshotData {
    /// A reader over the content, whatever its form.
    #[must_use]
    pub fn into_reader(self) -> Box<dyn Read + Send> {
        match self {
            Self::Empty => Box::new(std::io::empty()),
            Self::Bytes(bytes) => Box::new(std::io::Cursor::new(bytes)),
            Self::Stream(stream) => stream,
        }
    }
}

impl fmt::Debug for SnapshotData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_types_keep_their_numbers() {
        for number in 0..=2 {
            assert_eq!(EntryType::from_u8(number).unwrap() as u8, number);
        }
        assert_eq!(EntryType::from_u8(3), None);
    }

    #[test]
    fn every_form_of_snapshot_data_reads_back() {
        let mut read = String::new();
        SnapshotData::Bytes(Bytes::from_static(b"abc")).into_reader().read_to_string(&mut read).unwrap();
        SnapshotData::Stream(Box::new(&b"def"[..])).into_reader().read_to_string(&mut read).unwrap();
        SnapshotData::Empty.into_reader().read_to_string(&mut read).unwrap();
        assert_eq!(read, "abcdef");
    }
}
