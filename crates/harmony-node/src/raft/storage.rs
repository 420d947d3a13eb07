//! Raft's view of the log: straight to [`Storage`].

use std::sync::{Arc, Mutex, PoisonError};

use harmony_types::{EntryType, HardState, LogIndex, NodeError, Storage, StorageError, Term};
use raft_proto::eraftpb;

use crate::raft::convert::{conf_state_to_raft, entry_to_raft, hard_state_to_raft, snapshot_meta_to_raft};

/// The `raft` crate's storage over ours.
pub(crate) struct LogStore<S> {
    storage: Arc<S>,
    start: HardState,
    /// The first failure to read: raft panics on what it cannot read, and this says why.
    failure: Arc<Mutex<Option<String>>>,
}

impl<S: Storage> LogStore<S> {
    /// Checks that what the disk holds fits together.
    pub(crate) fn open(storage: Arc<S>, failure: Arc<Mutex<Option<String>>>) -> Result<Self, NodeError> {
        let start = start_state(&*storage)?;
        Ok(Self { storage, start, failure })
    }

    /// The hard state that this node starts from.
    pub(crate) fn start(&self) -> HardState {
        self.start
    }

    fn failed(&self, error: StorageError) -> ::raft::Error {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| error.to_string());
        ::raft::Error::Store(::raft::StorageError::Other(Box::new(error)))
    }
}

/// The hard state to start from.
///
/// The commit index is written without a sync of its own while the state machine's applied index may be durable, so the
/// commit index on disk may lag behind it: what was applied was committed. The term on disk may lag behind the log after a
/// crash in the middle of a snapshot's installation: no vote was ever given in the higher term then, as a vote is synced
/// before it leaves.
fn start_state<S: Storage>(storage: &S) -> Result<HardState, NodeError> {
    let bounds = storage.bounds();
    let applied = storage.applied();
    let mut state = storage.hard_state();
    let invalid =
        |index: LogIndex, reason: String| NodeError::Storage(StorageError::InvalidIndex { index, reason });
    if bounds.last < applied.index {
        let reason = format!("the state machine is ahead of the log, which ends at {}", bounds.last);
        return Err(invalid(applied.index, reason));
    }
    if applied.index < bounds.boundary {
        let reason = format!("the log begins only behind {}: entries to apply are missing", bounds.boundary);
        return Err(invalid(applied.index, reason));
    }
    if bounds.last < state.commit {
        let reason =
            format!("committed, but the log ends at {}: acknowledged entries were lost", bounds.last);
        return Err(invalid(state.commit, reason));
    }
    let last_term = storage.term(bounds.last)?;
    if state.term < last_term {
        state = HardState { term: last_term, vote: None, commit: state.commit };
    }
    state.commit = state.commit.max(applied.index);
    Ok(state)
}

impl<S: Storage> ::raft::Storage for LogStore<S> {
    fn initial_state(&self) -> ::raft::Result<::raft::RaftState> {
        Ok(::raft::RaftState::new(
            hard_state_to_raft(&self.start),
            conf_state_to_raft(&self.storage.membership()),
        ))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: ::raft::GetEntriesContext,
    ) -> ::raft::Result<Vec<eraftpb::Entry>> {
        if low <= self.storage.bounds().boundary.0 {
            return Err(::raft::Error::Store(::raft::StorageError::Compacted));
        }
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        match self.storage.entries(LogIndex(low)..LogIndex(high), bytes_max) {
            Ok(entries) => Ok(entries.into_iter().map(entry_to_raft).collect()),
            // The prefix may have been released since the look at the bounds.
            Err(_) if low <= self.storage.bounds().boundary.0 => {
                Err(::raft::Error::Store(::raft::StorageError::Compacted))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn term(&self, index: u64) -> ::raft::Result<u64> {
        match self.storage.term(LogIndex(index)) {
            Ok(Term(term)) => Ok(term),
            Err(error) => {
                let bounds = self.storage.bounds();
                Err(if index < bounds.boundary.0 {
                    ::raft::Error::Store(::raft::StorageError::Compacted)
                } else if bounds.last.0 < index {
                    ::raft::Error::Store(::raft::StorageError::Unavailable)
                } else {
                    self.failed(error)
                })
            }
        }
    }

    fn first_index(&self) -> ::raft::Result<u64> {
        Ok(self.storage.bounds().first().0)
    }

    fn last_index(&self) -> ::raft::Result<u64> {
        Ok(self.storage.bounds().last.0)
    }

    /// What a snapshot taken now would stand for. The content is taken later, by whoever sends it, at this index or a
    /// higher one, and travels beside raft.
    fn snapshot(&self, request_index: u64, _to: u64) -> ::raft::Result<eraftpb::Snapshot> {
        let applied = self.storage.applied();
        if applied.index == LogIndex::ZERO || applied.index.0 < request_index {
            return Err(::raft::Error::Store(::raft::StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(snapshot_meta_to_raft(&harmony_types::SnapshotMeta {
            index: applied.index,
            term: applied.term,
            membership: self.storage.membership(),
        }))
    }
}

/// True when an entry changes the membership.
pub(crate) fn is_conf_change(entry_type: EntryType) -> bool {
    matches!(entry_type, EntryType::ConfChange | EntryType::ConfChangeV2)
}
