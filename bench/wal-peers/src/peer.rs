//! What every peer is asked to do, in its own words.

use std::path::Path;

use crate::Result;
use crate::payload::Payloads;
use crate::peers::{harmony, okay, raft, raw};

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Ours.
    Harmony,
    /// raft-engine with its defaults.
    RaftEngine,
    /// raft-engine with compression off.
    RaftEngineNoLz4,
    /// okaywal.
    OkayWal,
    /// A zero-filled file: write, `fdatasync`. No log, but what the disk allows one.
    Raw,
}

/// What a log is opened for; decides settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To keep all that is appended.
    Keep,
    /// To keep a million entries, read by index afterwards.
    Fill,
    /// To give up old entries and write over their files.
    Recycle,
}

/// An open log.
pub trait Log: Send + Sync {
    /// A hand that appends `batch` entries a call. `lane` tells hands apart that work at the same time, from 0.
    fn writer<'a>(&'a self, lane: u64, payloads: &'a Payloads, batch: usize) -> Result<Box<dyn Writer + 'a>>;

    /// Makes durable what was appended without a sync.
    fn sync(&self) -> Result<()>;

    /// Reads the entry with this index, counted from 1 within its lane where the peer has lanes, and shows its payload.
    fn read(&self, lane: u64, index: u64, show: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>;

    /// The newest index in a lane.
    fn last(&self, lane: u64) -> u64;

    /// Gives up everything but the newest entries, as a node does after a snapshot.
    fn release(&self) -> Result<()>;

    /// Size of its files where they are recycled: after so many bytes more, one of those is written to.
    fn file_bytes(&self) -> u64;

    /// Reads all in order, checked as the peer checks, and shows each entry's index and payload.
    fn read_all(&self, show: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()>;
}

/// A hand that appends.
pub trait Writer: Send {
    /// Appends the next batch. With `sync`, it is durable when this returns.
    fn append(&mut self, sync: bool) -> Result<()>;
}

impl Peer {
    pub const ALL: [Self; 5] =
        [Self::Harmony, Self::RaftEngine, Self::RaftEngineNoLz4, Self::OkayWal, Self::Raw];

    pub fn name(self) -> &'static str {
        match self {
            Self::Harmony => "harmony-wal",
            Self::RaftEngine => "raft-engine",
            Self::RaftEngineNoLz4 => "raft-engine, no LZ4",
            Self::OkayWal => "okaywal",
            Self::Raw => "raw file",
        }
    }

    /// Opens a log in `dir`, and makes it when there is none.
    pub fn open(self, dir: &Path, purpose: Purpose) -> Result<Box<dyn Log>> {
        Ok(match self {
            Self::Harmony => Box::new(harmony::open(dir)?),
            Self::RaftEngine => Box::new(raft::open(dir, purpose, true)?),
            Self::RaftEngineNoLz4 => Box::new(raft::open(dir, purpose, false)?),
            Self::OkayWal => Box::new(okay::open(dir, purpose)?),
            Self::Raw => Box::new(raw::open(dir)?),
        })
    }

    /// Opens the log that is in `dir` and shows each of its entries, index and payload, in order: on the way where the peer
    /// can, as a user who needs them would have it.
    pub fn recover(self, dir: &Path, show: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<Box<dyn Log>> {
        if self == Self::Harmony {
            return Ok(Box::new(harmony::recover(dir, show)?));
        }
        let log = self.open(dir, Purpose::Fill)?;
        log.read_all(show)?;
        Ok(log)
    }

    /// How it is set up, for the report.
    pub fn settings(self) -> &'static str {
        match self {
            Self::Harmony => harmony::SETTINGS,
            Self::RaftEngine => raft::SETTINGS,
            Self::RaftEngineNoLz4 => "as raft-engine, batch-compression-threshold = 0",
            Self::OkayWal => okay::SETTINGS,
            Self::Raw => raw::SETTINGS,
        }
    }
}
