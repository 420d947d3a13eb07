//! What a workload and a checker ask of one node, whatever carries the calls.

use harmony_types::testing::TestError;
use harmony_types::{KeyValue, LogIndex, NodeId, Revision, Term};

/// A node's view of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Itself.
    pub id: NodeId,
    /// Who leads, if known.
    pub leader: Option<NodeId>,
    /// Newest term seen.
    pub term: Term,
    /// Store revision.
    pub revision: Revision,
    /// Applied index.
    pub applied: LogIndex,
}

/// Hash over all keys at a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateHash {
    /// The hash.
    pub hash: u32,
    /// Hashes are comparable only at the same compact revision ...
    pub compact_revision: i64,
    /// ... and the same revision.
    pub revision: i64,
}

/// A blocking client of one node. Every call ends within a bounded time.
pub trait Client: Send + Sync {
    /// Writes a key; the revision of the write.
    ///
    /// # Errors
    /// The write was refused, or its outcome is unknown.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Revision, TestError>;

    /// Reads a key, linearizably.
    ///
    /// # Errors
    /// The node cannot confirm that it is up to date.
    fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, TestError>;

    /// Deletes a key; the revision after it.
    ///
    /// # Errors
    /// As [`Client::put`].
    fn delete(&self, key: &[u8]) -> Result<Revision, TestError>;

    /// The node's view of itself, without asking a quorum.
    ///
    /// # Errors
    /// The node does not answer.
    fn status(&self) -> Result<NodeStatus, TestError>;

    /// Hash of the node's own state at a revision, without asking a quorum.
    ///
    /// # Errors
    /// The node has not reached that revision, or does not answer.
    fn state_hash(&self, revision: Revision) -> Result<StateHash, TestError>;
}
