//! What can go wrong in storage.

use std::io;
use std::path::PathBuf;

use crate::error::WalError;
use crate::id::ClusterId;
use crate::log::LogIndex;
use crate::revision::Revision;

/// Errors of storage: the log under it, the tree, and the state machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The log under it.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The operating system refused a call.
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
    /// The B-tree refused a call.
    #[error("{action} in {path}: {source}")]
    Tree {
        /// What was attempted.
        action: &'static str,
        /// The tree's file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A record in the tree or a snapshot fails its checksum: nothing of it is handed out.
    #[error("{place}: checksum {found:#010x}, expected {expected:#010x}: the disk changed a record")]
    CrcMismatch {
        /// Table and key, or file and offset.
        place: String,
        /// Checksum computed over what was found.
        expected: u32,
        /// Checksum found.
        found: u32,
    },
    /// A record, table or snapshot that makes no sense.
    #[error("{place}: {reason}")]
    CorruptRecord {
        /// Table and key, or file and offset.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// What was asked for does not exist.
    #[error("{what} not found")]
    NotFound {
        /// What.
        what: String,
    },
    /// An index that does not continue what is there.
    #[error("index {index}: {reason}")]
    InvalidIndex {
        /// The index.
        index: LogIndex,
        /// What is wrong with it.
        reason: String,
    },
    /// A read at a revision that was compacted.
    #[error("revision {requested} has been compacted, the oldest is {compacted}")]
    Compacted {
        /// Asked for.
        requested: Revision,
        /// The compact revision, itself readable.
        compacted: Revision,
    },
    /// A read at a revision that does not exist yet.
    #[error("revision {requested} is in the future, the newest is {current}")]
    FutureRevision {
        /// Asked for.
        requested: Revision,
        /// The newest.
        current: Revision,
    },
    /// A view was ended to free what it kept: pages of the tree that were given up since, and memory.
    #[error(
        "the view at revision {revision} was ended: {kept_bytes} bytes were kept for it, the limit is {limit_bytes}: read again at a new view, in less time, or raise the limit"
    )]
    ViewExpired {
        /// Its newest revision.
        revision: Revision,
        /// Bytes written to the tree since it was taken, or held in memory for views.
        kept_bytes: u64,
        /// What these may be.
        limit_bytes: u64,
    },
    /// Written by another release, usually a newer one. Nothing was changed on disk.
    #[error(
        "{place} has format version {found}; this release reads {supported}: use the release that wrote it, or a newer one"
    )]
    UnsupportedVersion {
        /// File or stream.
        place: String,
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
        /// The tree's file.
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
    /// Another process has the directory.
    #[error("{path} is locked: another process uses this directory")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The user's state machine failed on this machine; the node stops.
    #[error("application: {source}")]
    Application {
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Applying panicked: a bug that this state, or this machine, brought to light. The node stops.
    #[error("applying the entries {first} to {last} panicked: {reason}")]
    ApplyPanicked {
        /// The first of the entries that were applied together.
        first: LogIndex,
        /// The last.
        last: LogIndex,
        /// What the panic said.
        reason: String,
    },
    /// The disk may have no room for what the tree has to write. Nothing was changed: what was applied stays in memory and in
    /// the log, and the same call succeeds once there is room.
    #[error(
        "{dir}: a commit to the tree may need {needed} bytes and the disk has {free}: make room, or compact; nothing was \
         changed"
    )]
    DiskFull {
        /// The tree's directory.
        dir: PathBuf,
        /// Bytes that it may need, beside pages of the tree that are free.
        needed: u64,
        /// Bytes that the disk has.
        free: u64,
    },
    /// Storage was closed.
    #[error("storage is closed")]
    Closed,
}

impl StorageError {
    /// Whether this says that the disk is full, or the log's quota used up, before anything was changed: the same call
    /// succeeds once there is room. A system that reports a full disk in the middle of a call is not meant.
    #[must_use]
    pub const fn is_disk_full(&self) -> bool {
        matches!(self, Self::DiskFull { .. } | Self::Wal(WalError::DiskFull { .. } | WalError::Full { .. }))
    }

    /// True for bytes that are not those that were written: other members have them still.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::CrcMismatch { .. } | Self::CorruptRecord { .. })
    }

    /// An [`StorageError::Io`] in the making, for `map_err`. Takes a copy of `path` only when there is an error.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.into(), source }
    }
}
