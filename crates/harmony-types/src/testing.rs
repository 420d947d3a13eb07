//! What a test asks of a cluster, however it runs: simulated, in one process, or as real processes.

use std::error::Error;

use bytes::Bytes;

use crate::id::NodeId;
use crate::log::Term;
use crate::revision::Revision;

/// Any failure of a test cluster or of an operation on it.
pub type TestError = Box<dyn Error + Send + Sync>;

/// A cluster that a test can hurt.
pub trait TestCluster {
    /// How a node is reached.
    type Node: TestNode;

    /// Starts `node_count` nodes and waits until they serve.
    ///
    /// # Errors
    /// A node did not start.
    fn start(&mut self, node_count: usize) -> Result<(), TestError>;

    /// Stops all nodes.
    ///
    /// # Errors
    /// A node did not stop cleanly.
    fn stop(&mut self) -> Result<(), TestError>;

    /// All members, running or not.
    fn node_ids(&self) -> Vec<NodeId>;

    /// A handle on a running node.
    fn node(&self, id: NodeId) -> Option<&Self::Node>;

    /// Cuts a node off from all others, in both directions.
    fn partition_node(&mut self, id: NodeId);

    /// Heals it.
    fn unpartition_node(&mut self, id: NodeId);

    /// Kills a node without warning, as `kill -9` does.
    ///
    /// # Errors
    /// It does not run.
    fn kill_node(&mut self, id: NodeId) -> Result<(), TestError>;

    /// Starts a killed node on its old directory.
    ///
    /// # Errors
    /// It did not start.
    fn restart_node(&mut self, id: NodeId) -> Result<(), TestError>;
}

/// One node of a test cluster, as a client of it.
pub trait TestNode {
    /// Writes a key; the revision of the write.
    ///
    /// # Errors
    /// The write was refused, or its outcome is unknown.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Revision, TestError>;

    /// Reads a key, linearizably.
    ///
    /// # Errors
    /// The node cannot confirm that it is up to date.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TestError>;

    /// Deletes a key; the revision after it.
    ///
    /// # Errors
    /// As [`TestNode::put`].
    fn delete(&self, key: &[u8]) -> Result<Revision, TestError>;

    /// Whether it believes that it leads.
    fn is_leader(&self) -> bool;

    /// Its term.
    fn term(&self) -> Term;
}
