//! The replicated log's units: terms, indexes, entries, hard state, snapshots (Raft thesis, chapter 3).

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

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

impl Snapshot {
    /// The same once more, when its content can be read more than once.
    #[must_use]
    pub fn again(&self) -> Option<Self> {
        Some(Self { meta: self.meta.clone(), data: self.data.again()? })
    }
}

/// A snapshot's content: small ones as bytes, large ones read front to back.
#[derive(Default)]
pub enum SnapshotData {
    /// Nothing: a meta-only snapshot.
    #[default]
    Empty,
    /// The whole content in memory.
    Bytes(Bytes),
    /// The content as a stream that is read once; reading it does not block writers.
    Stream(Box<dyn Read + Send>),
    /// Content that is kept elsewhere: each call is a new reader over all of it.
    Kept(Arc<dyn Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync>),
}

impl SnapshotData {
    /// A reader over the content, whatever its form.
    #[must_use]
    pub fn into_reader(self) -> Box<dyn Read + Send> {
        match self {
            Self::Empty => Box::new(std::io::empty()),
            Self::Bytes(bytes) => Box::new(std::io::Cursor::new(bytes)),
            Self::Stream(stream) => stream,
            Self::Kept(open) => open().unwrap_or_else(|error| Box::new(Unreadable(Some(error)))),
        }
    }

    /// The same once more, when it can be read more than once.
    #[must_use]
    pub fn again(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Bytes(bytes) => Some(Self::Bytes(bytes.clone())),
            Self::Stream(_) => None,
            Self::Kept(open) => Some(Self::Kept(Arc::clone(open))),
        }
    }
}

impl fmt::Debug for SnapshotData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
            Self::Kept(_) => f.write_str("Kept"),
        }
    }
}

/// Content that could not be opened: its first read says why.
struct Unreadable(Option<io::Error>);

impl Read for Unreadable {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(self.0.take().unwrap_or_else(|| io::ErrorKind::NotFound.into()))
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

    #[test]
    fn content_that_is_kept_is_read_as_often_as_needed() {
        let kept = SnapshotData::Kept(Arc::new(|| Ok(Box::new(&b"ghi"[..]) as _)));
        for data in [kept.again().unwrap(), kept] {
            let mut read = String::new();
            data.into_reader().read_to_string(&mut read).unwrap();
            assert_eq!(read, "ghi");
        }
        let lost = SnapshotData::Kept(Arc::new(|| Err(io::ErrorKind::StorageFull.into())));
        let error = lost.into_reader().read(&mut [0; 4]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(SnapshotData::Stream(Box::new(io::empty())).again().is_none());
    }
}
