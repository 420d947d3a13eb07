//! A [`Storage`] made of a user's [`Application`] and a [`Wal`]: all that it takes to replicate a state machine.
//!
//! Beside the log there is one file, `state`: the application's newest snapshot with its index, term and members. It is
//! replaced as a whole, by rename. A restart restores it and replays the log behind it; an application that keeps its own
//! state on disk ([`Application::durable_index`]) is only given what it has not seen.
//!
//! Every [`Storage::checkpoint`] writes the whole state, so this suits states of up to some hundred megabytes.

mod state_file;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use harmony_types::{
    Application, Applied, DiskSpace, Entry, FileSystem, HardState, LogBounds, LogIndex, Membership,
    RecordType, Recovered, Snapshot, SnapshotMeta, Storage, StorageError, Term, Wal, WalRecord,
};

use self::state_file::StateFile;

/// An application and a log as one storage.
///
/// Invariants: the `state` file's index is in the log's bounds or on its boundary; the log never begins behind it.
pub struct ApplicationStorage<A, W> {
    application: A,
    wal: W,
    file: Mutex<StateFile>,
    /// Held while the application changes or says what it holds, so that a snapshot has one index. Taken after `file`.
    machine: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    applied: Applied,
    durable: LogIndex,
    membership: Membership,
}

impl<A: Application, W: Wal> ApplicationStorage<A, W> {
    /// Opens what `dir` and the log hold, and brings the application to the state it can be restored to without the log.
    ///
    /// # Errors
    /// [`StorageError::CrcMismatch`], [`StorageError::CorruptRecord`], [`StorageError::UnsupportedVersion`] name what is
    /// wrong with the `state` file; [`StorageError::Application`] when the application refuses it.
    pub fn open(
        application: A,
        wal: W,
        files: Arc<dyn FileSystem>,
        dir: impl Into<PathBuf>,
    ) -> Result<Self, StorageError> {
        let file = StateFile::open(files, dir.into())?;
        let mut state = State::default();
        let own = application.durable_index();
        if let Some(meta) = file.read_meta()? {
            state.applied = Applied { index: meta.index, term: meta.term };
            state.durable = meta.index;
            state.membership = meta.membership;
            let behind = own < meta.index;
            if behind {
                application.restore(file.read_data()?).map_err(application_error)?;
            }
            reach(&wal, state.applied)?;
        }
        if state.applied.index < own {
            state.applied = Applied { index: own, term: wal.term(own)? };
            state.durable = own;
        }
        Ok(Self {
            application,
            wal,
            file: Mutex::new(file),
            machine: Mutex::default(),
            state: Mutex::new(state),
        })
    }

    /// The application.
    pub fn application(&self) -> &A {
        &self.application
    }

    /// The log.
    pub fn wal(&self) -> &W {
        &self.wal
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Makes the log go on behind a snapshot, when it ends before it or went another way: a crash in the middle of an
/// installation leaves the snapshot without its boundary.
fn reach(wal: &impl Wal, applied: Applied) -> Result<(), StorageError> {
    let bounds = wal.bounds();
    if applied.index < bounds.boundary {
        let reason = format!("the log begins only behind {}: entries to apply are missing", bounds.boundary);
        return Err(StorageError::InvalidIndex { index: applied.index, reason });
    }
    if applied.index <= bounds.last && wal.term(applied.index)? == applied.term {
        return Ok(());
    }
    wal.append(WalRecord {
        record_type: RecordType::Snapshot,
        index: applied.index,
        term: applied.term,
        data: Bytes::new(),
        crc: 0,
    })?;
    Ok(wal.sync()?)
}

impl<A: Application, W: Wal + 'static> Storage for ApplicationStorage<A, W> {
    type Outcome = A::Outcome;

    fn bootstrap(&self, membership: &Membership) -> Result<(), StorageError> {
        membership
            .check()
            .map_err(|reason| StorageError::CorruptRecord { place: "membership".to_owned(), reason })?;
        let file = lock(&self.file);
        if self.state().membership != Membership::default() {
            return Ok(());
        }
        let meta = SnapshotMeta { membership: membership.clone(), ..SnapshotMeta::default() };
        file.write(Snapshot { meta, ..Snapshot::default() })?;
        self.state().membership = membership.clone();
        Ok(())
    }

    fn save(&self, hard_state: Option<&HardState>, entries: &[Entry]) -> Result<(), StorageError> {
        self.wal.append_many(hard_state, entries)?;
        Ok(())
    }

    fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), StorageError> {
        let meta = snapshot.meta.clone();
        let file = lock(&self.file);
        // The application may refuse it, and then the old file must still be there.
        let arrived = file.write_beside(snapshot)?;
        let machine = lock(&self.machine);
        self.application.restore(file.read_beside(&arrived)?).map_err(application_error)?;
        file.replace(arrived)?;
        let applied = Applied { index: meta.index, term: meta.term };
        reach(&self.wal, applied)?;
        *self.state() = State { applied, durable: meta.index, membership: meta.membership };
        drop((machine, file));
        Ok(())
    }

    fn read_all(&self) -> Result<Recovered, StorageError> {
        let State { durable, membership, .. } = self.state().clone();
        let (first, behind_last) = (durable.next(), self.wal.bounds().last.next());
        let entries =
            if first < behind_last { self.wal.entries(first..behind_last, u64::MAX)? } else { Vec::new() };
        Ok(Recovered { membership, hard_state: self.wal.hard_state(), entries })
    }

    fn sync(&self) -> Result<(), StorageError> {
        Ok(self.wal.sync()?)
    }

    fn disk_space(&self, upcoming_bytes: u64) -> DiskSpace {
        self.wal.disk_space(upcoming_bytes)
    }

    fn bounds(&self) -> LogBounds {
        self.wal.bounds()
    }

    fn term(&self, index: LogIndex) -> Result<Term, StorageError> {
        Ok(self.wal.term(index)?)
    }

    fn entries(&self, range: Range<LogIndex>, bytes_max: u64) -> Result<Vec<Entry>, StorageError> {
        Ok(self.wal.entries(range, bytes_max)?)
    }

    fn hard_state(&self) -> HardState {
        self.wal.hard_state()
    }

    fn release(&self, upto: LogIndex) -> Result<(), StorageError> {
        let upto = upto.min(self.durable_applied());
        Ok(self.wal.release(upto)?)
    }

    fn apply(&self, entries: &[Entry]) -> Result<Vec<Self::Outcome>, StorageError> {
        let Some(last) = entries.last() else { return Ok(Vec::new()) };
        let _machine = lock(&self.machine);
        check_follows(self.applied().index, entries[0].index)?;
        let outcomes = self.application.apply(entries).map_err(application_error)?;
        if outcomes.len() != entries.len() {
            let reason = format!("{} outcomes for {} entries", outcomes.len(), entries.len());
            return Err(application_error(reason.into()));
        }
        self.state().applied = Applied { index: last.index, term: last.term };
        Ok(outcomes)
    }

    fn apply_membership(&self, entry: &Entry, membership: &Membership) -> Result<(), StorageError> {
        let machine = lock(&self.machine);
        check_follows(self.applied().index, entry.index)?;
        let mut state = self.state();
        state.applied = Applied { index: entry.index, term: entry.term };
        state.membership = membership.clone();
        drop((state, machine));
        // The application's own files know nothing of members: so none may be ahead of the `state` file by a change.
        self.checkpoint()?;
        Ok(())
    }

    fn applied(&self) -> Applied {
        self.state().applied
    }

    fn state_hash(&self) -> Option<(LogIndex, u32)> {
        // Behind an application under way: the hash belongs to the index.
        let machine = self.machine.try_lock().ok()?;
        let hash = (self.applied().index, self.application.state_hash()?);
        drop(machine);
        Some(hash)
    }

    fn durable_applied(&self) -> LogIndex {
        self.state().durable
    }

    fn membership(&self) -> Membership {
        self.state().membership.clone()
    }

    fn query(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.application.query(key).map_err(application_error)
    }

    fn create_snapshot(&self) -> Result<Snapshot, StorageError> {
        let _machine = lock(&self.machine);
        let data = self.application.snapshot().map_err(application_error)?;
        let State { applied, membership, .. } = self.state().clone();
        Ok(Snapshot { meta: SnapshotMeta { index: applied.index, term: applied.term, membership }, data })
    }

    fn checkpoint(&self) -> Result<LogIndex, StorageError> {
        // Held throughout: an older snapshot must not replace a newer one.
        let file = lock(&self.file);
        let durable = self.durable_applied();
        if durable == self.applied().index {
            return Ok(durable);
        }
        let snapshot = self.create_snapshot()?;
        let index = snapshot.meta.index;
        if durable < index {
            file.write(snapshot)?;
            self.state().durable = index;
        }
        Ok(index)
    }

    fn close(&self) -> Result<(), StorageError> {
        let checkpoint = self.checkpoint();
        self.wal.close()?;
        checkpoint.map(drop)
    }
}

fn check_follows(applied: LogIndex, first: LogIndex) -> Result<(), StorageError> {
    if first == applied.next() {
        return Ok(());
    }
    let reason = format!("does not follow the applied index {applied}");
    Err(StorageError::InvalidIndex { index: first, reason })
}

fn application_error(source: harmony_types::application::ApplicationError) -> StorageError {
    StorageError::Application { source }
}

/// The guarded values are whole at every moment, so a panic elsewhere does not make them worse.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
