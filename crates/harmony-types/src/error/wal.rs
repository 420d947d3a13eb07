//! What can go wrong in the write-ahead log.

use std::io;
use std::path::PathBuf;

use crate::id::ClusterId;
use crate::log::LogIndex;
use crate::wal::{LogBounds, WalOffset};

/// Errors of the write-ahead log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// The operating system refused a call. After a write or sync the log is poisoned.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A record's bytes are not those that were written. Nothing was changed on disk.
    #[error(
        "{path} at byte {offset}: checksum {found:#010x}, expected {expected:#010x} (behind index {index}); the disk \
         changed a record that was already written: restore this member from its peers or a backup"
    )]
    CrcMismatch {
        /// Segment file.
        path: PathBuf,
        /// Byte of the record's frame in it.
        offset: u64,
        /// Last good index before it.
        index: LogIndex,
        /// Checksum computed over what was found.
        expected: u32,
        /// Checksum found.
        found: u32,
    },
    /// A record or segment makes no sense although it is no torn tail. Nothing was changed on disk.
    #[error("{path} at byte {offset}: {reason} (behind index {index})")]
    CorruptRecord {
        /// Segment file.
        path: PathBuf,
        /// Byte of the record's frame in it.
        offset: u64,
        /// Last good index before it.
        index: LogIndex,
        /// What is wrong.
        reason: String,
    },
    /// A segment that the others need is not there.
    #[error("{dir}: segment {sequence} is missing: the log would have a hole behind index {index}")]
    MissingSegment {
        /// The log's directory.
        dir: PathBuf,
        /// Sequence number of the missing segment.
        sequence: u64,
        /// Last good index before it.
        index: LogIndex,
    },
    /// No record starts at this offset.
    #[error("no record at offset {offset}")]
    NotFound {
        /// The offset asked for.
        offset: WalOffset,
    },
    /// An index outside of what the log holds, or one that would leave a gap.
    #[error("index {index}: {reason} (the log holds {}..={})", bounds.first(), bounds.last)]
    InvalidIndex {
        /// The index asked for.
        index: LogIndex,
        /// What the log holds.
        bounds: LogBounds,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A record over the limit; the log is unchanged.
    #[error("record of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The log has reached its quota; release a prefix.
    #[error("the log holds {bytes} bytes, its quota is {quota}")]
    Full {
        /// What it holds.
        bytes: u64,
        /// What it may hold.
        quota: u64,
    },
    /// The disk has no room for the log's next segment. The log is unchanged; go on once there is room.
    #[error(
        "{dir}: the log needs {needed} bytes for its next segments and the disk has {free}: make room, or release \
         a prefix"
    )]
    DiskFull {
        /// The log's directory.
        dir: PathBuf,
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that the disk has.
        free: u64,
    },
    /// An earlier write or sync failed, so nobody knows what is on disk. Open the log again.
    #[error("the log is poisoned by an earlier failure: {reason}")]
    Poisoned {
        /// The earlier failure.
        reason: String,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// Another process has the directory.
    #[error("{path} is locked: another process uses this directory")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Written by a newer release. Nothing was changed on disk.
    #[error("{path} has format version {found}; this release reads up to {supported}: use a newer release")]
    UnsupportedVersion {
        /// Segment file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest one known.
        supported: u32,
    },
    /// The directory belongs to another cluster or member. Nothing was changed on disk.
    #[error(
        "{path} belongs to member {found_node:x} of cluster {found_cluster}, not to member {node:x} of cluster {cluster}"
    )]
    Foreign {
        /// Segment file.
        path: PathBuf,
        /// Cluster in the file.
        found_cluster: ClusterId,
        /// Member in the file.
        found_node: u64,
        /// Cluster expected.
        cluster: ClusterId,
        /// Member expected.
        node: u64,
    },
}

impl WalError {
    /// An [`WalError::Io`] in the making, for `map_err`. Takes a copy of `path` only when there is an error.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.into(), source }
    }
}
