//! The storage's contract: Raft's log and the state machine behind one door.

use std::ops::Range;

use bytes::Bytes;

use crate::error::StorageError;
use crate::log::{Entry, HardState, LogIndex, Snapshot, Term};
use crate::membership::Membership;
use crate::wal::LogBounds;

/// How far the state machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Applied {
    /// Last entry applied.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
}

/// What the disk below has room for, looked at before it is full. The later ones are worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum DiskSpace {
    /// Everything.
    #[default]
    Enough,
    /// Commands that add no data, and what Raft itself writes.
    Low,
    /// What Raft itself writes: votes, empty entries, membership changes.
    Out,
}

/// What a restarted node starts from.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Members at the applied index.
    pub membership: Membership,
    /// The newest hard state that reached the disk.
    pub hard_state: HardState,
    /// Entries behind the state machine's applied index.
    pub entries: Vec<Entry>,
}

/// Everything a node keeps: the log (first half) and the state machine (second half).
///
/// Invariant: `durable applied <= applied <= commit <= last`, the applied index and the data it stands for in one
/// commit. Calls may come from many threads, but `save` and `save_snapshot` from one at a time, and `apply` and
/// `apply_membership` from one at a time.
///
/// An error of `save`, `sync`, `apply` or `save_snapshot` means that this machine failed, not the command: the node stops.
/// One error does not: a `save` or an `apply` that was refused because the disk is full ([`StorageError::is_disk_full`]) has
/// changed nothing, and may be tried again.
pub trait Storage: Send + Sync + 'static {
    /// What applying one entry returns; encoded when a follower asked for it.
    type Outcome: prost::Message + Default + Clone + 'static;

    /// Sets the first members of a cluster whose members were all named before it started: the membership at index 0,
    /// the same on every member. Durable on return; nothing happens when there is a membership already.
    ///
    /// # Errors
    /// This machine failed.
    fn bootstrap(&self, membership: &Membership) -> Result<(), StorageError>;

    /// Takes a hard state and entries into the log: readable at once, durable after the next [`Storage::sync`].
    /// Entries at or below the last index replace the log from there. Does no I/O of its own beyond a full buffer.
    ///
    /// # Errors
    /// [`StorageError::Wal`].
    fn save(&self, hard_state: Option<&HardState>, entries: &[Entry]) -> Result<(), StorageError>;

    /// Replaces the state machine and the log prefix by a snapshot, whose index is the applied one or a later one. Durable on
    /// return; a crash in between leaves the old state or the new one.
    ///
    /// # Errors
    /// [`StorageError::CrcMismatch`], [`StorageError::CorruptRecord`] and [`StorageError::UnsupportedVersion`] leave the
    /// old state in place. One of which [`StorageError::is_disk_full`] is true leaves the old state or the new one, and the
    /// same snapshot can be saved once there is room.
    fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), StorageError>;

    /// Membership, hard state, and the entries behind the applied index, from what is on disk.
    ///
    /// # Errors
    /// [`StorageError::Wal`].
    fn read_all(&self) -> Result<Recovered, StorageError>;

    /// Returns when everything saved before the call is on disk.
    ///
    /// # Errors
    /// [`StorageError::Wal`]; never call it again then.
    fn sync(&self) -> Result<(), StorageError>;

    /// What the disk has room for when the log takes `upcoming_bytes` more. Cheap, waits for no disk; asked now and then, and
    /// again whenever that much was proposed. A storage that cannot tell has enough, until it refuses.
    fn disk_space(&self, upcoming_bytes: u64) -> DiskSpace {
        let _ = upcoming_bytes;
        DiskSpace::Enough
    }

    /// Whether an encoded command adds data: one that does not is taken while space is [`DiskSpace::Low`], as deletes and
    /// compactions are how space comes back.
    fn needs_space(&self, command: &Bytes) -> bool {
        let _ = command;
        true
    }

    /// Which entries the log holds.
    fn bounds(&self) -> LogBounds;

    /// Term of an entry, or of the boundary.
    ///
    /// # Errors
    /// [`StorageError::Wal`] outside of the bounds.
    fn term(&self, index: LogIndex) -> Result<Term, StorageError>;

    /// Entries of the log, see [`crate::wal::Wal::entries`].
    ///
    /// # Errors
    /// [`StorageError::Wal`].
    fn entries(&self, range: Range<LogIndex>, bytes_max: u64) -> Result<Vec<Entry>, StorageError>;

    /// The newest hard state saved.
    fn hard_state(&self) -> HardState;

    /// Gives up log entries up to `upto`, or as far as the state machine is durable when that is less. Segments are freed
    /// whole.
    ///
    /// # Errors
    /// [`StorageError::Wal`].
    fn release(&self, upto: LogIndex) -> Result<(), StorageError>;

    /// Applies committed entries that follow the applied index without a gap; one outcome an entry. Visible to readers on
    /// return, all of them or none after a crash. Entries of a membership change only move the applied index.
    ///
    /// # Errors
    /// [`StorageError::InvalidIndex`] on a gap; else this machine failed.
    fn apply(&self, entries: &[Entry]) -> Result<Vec<Self::Outcome>, StorageError>;

    /// Applies the entry of a membership change with the membership that Raft computed from it.
    ///
    /// # Errors
    /// As [`Storage::apply`].
    fn apply_membership(&self, entry: &Entry, membership: &Membership) -> Result<(), StorageError>;

    /// How far the state machine is, in memory.
    fn applied(&self) -> Applied;

    /// A hash over what all applied entries did, with the applied index: members that applied as much have the same, or one of
    /// them is damaged. `None` for a state machine that keeps none: its members are not compared.
    fn state_hash(&self) -> Option<(LogIndex, u32)> {
        None
    }

    /// What was found damaged, or cannot be read, in the state machine on this disk, in words: since then it refuses what needs
    /// it. `None` while all is well, and again after [`Storage::save_snapshot`] has replaced it. The log is not meant. Cheap:
    /// it is asked at every beat.
    fn damage(&self) -> Option<String> {
        None
    }

    /// How far the state machine is on disk: where a restart begins to replay.
    fn durable_applied(&self) -> LogIndex;

    /// Members at the applied index.
    fn membership(&self) -> Membership;

    /// The newest value of a key. Local: linearizable only behind a read index.
    ///
    /// # Errors
    /// [`StorageError::CrcMismatch`] and the like: nothing damaged is handed out.
    fn query(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// The state machine's content at the applied index, as a stream that blocks nobody.
    ///
    /// # Errors
    /// This machine failed.
    fn create_snapshot(&self) -> Result<Snapshot, StorageError>;

    /// Makes everything applied so far durable and returns its index; also drops a part of what waits to be dropped. Costs
    /// nothing when there is neither.
    ///
    /// # Errors
    /// This machine failed.
    fn checkpoint(&self) -> Result<LogIndex, StorageError>;

    /// Checkpoints, syncs and refuses every later call.
    ///
    /// # Errors
    /// As [`Storage::checkpoint`]; storage counts as closed all the same.
    fn close(&self) -> Result<(), StorageError>;
}
