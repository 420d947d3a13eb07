//! Bugs that are planted around a storage, with the feature `planted`: see [`harmony_types::planted`].

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use harmony_storage::UnifiedStorage;
use harmony_types::planted::{self, Bug};
use harmony_types::wal::LogBounds;
use harmony_types::{
    Applied, DiskSpace, Entry, HardState, LogIndex, Membership, Outcome, OutcomeKind, Recovered, Snapshot,
    Storage, StorageError, Term,
};

/// The suffix of a member's log that was replaced last: it outlives the process.
#[derive(Clone, Default)]
pub(super) struct Replaced(Arc<Mutex<Vec<Entry>>>);

impl Replaced {
    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A storage with a bug.
pub(super) struct Altered {
    inner: Arc<UnifiedStorage>,
    replaced: Replaced,
}

impl Altered {
    /// # Errors
    /// What was replaced cannot be written.
    pub(super) fn new(inner: Arc<UnifiedStorage>, replaced: Replaced) -> Result<Self, StorageError> {
        let old = std::mem::take(&mut *replaced.lock());
        if let Some(first) = old.first()
            && inner.term(LogIndex(first.index.0 - 1)).is_ok_and(|term| term <= first.term)
        {
            inner.save(None, &old)?;
        }
        Ok(Self { inner, replaced })
    }

    /// Keeps what these entries replace.
    fn keep_replaced(&self, entries: &[Entry]) -> Result<(), StorageError> {
        let end = self.inner.bounds().last.next();
        if let Some(first) = entries.first()
            && first.index < end
        {
            *self.replaced.lock() = self.inner.entries(first.index..end, u64::MAX)?;
        }
        Ok(())
    }
}

impl Storage for Altered {
    type Outcome = Outcome;

    fn save(&self, hard_state: Option<&HardState>, entries: &[Entry]) -> Result<(), StorageError> {
        if planted::is(Bug::ResurrectSuffix) {
            self.keep_replaced(entries)?;
        }
        let mut written = hard_state.cloned();
        if let Some(state) = &mut written
            && planted::is(Bug::ForgetVote)
        {
            state.vote = None;
        }
        if planted::is(Bug::ForgetTerm) && entries.is_empty() {
            return Ok(());
        }
        self.inner.save(written.as_ref(), entries)
    }

    fn sync(&self) -> Result<(), StorageError> {
        if planted::is(Bug::SkipSync) { Ok(()) } else { self.inner.sync() }
    }

    fn apply(&self, entries: &[Entry]) -> Result<Vec<Outcome>, StorageError> {
        let mut entries = entries.to_vec();
        if let Some(second) = entries.get_mut(1)
            && planted::is(Bug::SkipEntry)
        {
            second.data = Bytes::new();
        }
        let mut outcomes = self.inner.apply(&entries)?;
        if planted::is(Bug::SwapOutcomes) && 1 < outcomes.len() {
            outcomes.swap(0, 1);
        }
        for outcome in &mut outcomes {
            if let Some(OutcomeKind::Put(put)) = &mut outcome.kind
                && let Some(before) = &mut put.prev_kv
                && planted::is(Bug::PrevKvWrong)
            {
                before.version += 1;
            }
        }
        Ok(outcomes)
    }

    fn bootstrap(&self, membership: &Membership) -> Result<(), StorageError> {
        self.inner.bootstrap(membership)
    }

    fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), StorageError> {
        self.inner.save_snapshot(snapshot)
    }

    fn read_all(&self) -> Result<Recovered, StorageError> {
        self.inner.read_all()
    }

    fn disk_space(&self, upcoming_bytes: u64) -> DiskSpace {
        self.inner.disk_space(upcoming_bytes)
    }

    fn needs_space(&self, command: &Bytes) -> bool {
        self.inner.needs_space(command)
    }

    fn bounds(&self) -> LogBounds {
        self.inner.bounds()
    }

    fn term(&self, index: LogIndex) -> Result<Term, StorageError> {
        self.inner.term(index)
    }

    fn entries(&self, range: Range<LogIndex>, bytes_max: u64) -> Result<Vec<Entry>, StorageError> {
        self.inner.entries(range, bytes_max)
    }

    fn hard_state(&self) -> HardState {
        self.inner.hard_state()
    }

    fn release(&self, upto: LogIndex) -> Result<(), StorageError> {
        let upto = if planted::is(Bug::ReleaseTooEarly) { self.inner.applied().index } else { upto };
        self.inner.release(upto)
    }

    fn apply_membership(&self, entry: &Entry, membership: &Membership) -> Result<(), StorageError> {
        self.inner.apply_membership(entry, membership)
    }

    fn applied(&self) -> Applied {
        self.inner.applied()
    }

    fn state_hash(&self) -> Option<(LogIndex, u32)> {
        self.inner.state_hash()
    }

    fn damage(&self) -> Option<String> {
        self.inner.damage()
    }

    fn durable_applied(&self) -> LogIndex {
        self.inner.durable_applied()
    }

    fn membership(&self) -> Membership {
        self.inner.membership()
    }

    fn query(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.inner.query(key)
    }

    fn create_snapshot(&self) -> Result<Snapshot, StorageError> {
        self.inner.create_snapshot()
    }

    fn checkpoint(&self) -> Result<LogIndex, StorageError> {
        self.inner.checkpoint()
    }

    fn close(&self) -> Result<(), StorageError> {
        self.inner.close()
    }
}
