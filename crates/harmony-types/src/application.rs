//! A user's own state machine: implement [`Application`] and `harmony-node` replicates it.

use std::error::Error;

use bytes::Bytes;

use crate::log::{Entry, LogIndex, SnapshotData};

/// What an application may answer when it fails: any error.
pub type ApplicationError = Box<dyn Error + Send + Sync>;

/// A deterministic state machine.
///
/// Every member applies the same entries in the same order; what `apply` does may depend on the entries and the state
/// alone, never on a clock, a random number or this machine. An error means that this machine failed: the node stops.
pub trait Application: Send + Sync + 'static {
    /// What applying one entry returns to whoever proposed it. `Bytes`, `String`, `u64` and every prost message do.
    type Outcome: prost::Message + Default + Clone + 'static;

    /// Applies entries in order; one outcome each. An entry with empty data is a new leader's first: it changes nothing
    /// and its outcome is the default.
    ///
    /// # Errors
    /// This machine failed.
    fn apply(&self, entries: &[Entry]) -> Result<Vec<Self::Outcome>, ApplicationError>;

    /// The whole state, for a member that lags and for a shorter log.
    ///
    /// # Errors
    /// This machine failed.
    fn snapshot(&self) -> Result<SnapshotData, ApplicationError>;

    /// Replaces the whole state.
    ///
    /// # Errors
    /// The snapshot makes no sense, or this machine failed; the old state must still be there then.
    fn restore(&self, snapshot: SnapshotData) -> Result<(), ApplicationError>;

    /// Answers a local query; linearizable only behind a read index.
    ///
    /// # Errors
    /// This machine failed.
    fn query(&self, key: &[u8]) -> Result<Option<Bytes>, ApplicationError>;

    /// A hash over what all applied entries did, for an application that keeps one: members that applied as much must have the
    /// same. The one whose hash differs from a majority's takes a snapshot of theirs.
    fn state_hash(&self) -> Option<u32> {
        None
    }

    /// Last index that is in the state on disk, for an application that keeps its own. Replay begins behind it. 0 for one
    /// that lives in memory: it is restored from the newest snapshot and the log.
    fn durable_index(&self) -> LogIndex {
        LogIndex::ZERO
    }
}
