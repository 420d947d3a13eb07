//! A log in memory. Clones speak of the same log, so that a node can be started again on it.
#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "shared by tests, each of which uses a part"
)]

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use harmony_types::{
    Entry, HardState, LogBounds, LogIndex, RecordType, Term, Wal, WalError, WalOffset, WalRecord,
};

#[derive(Clone, Default)]
pub struct MemoryWal(Arc<Mutex<Log>>);

#[derive(Clone, Default)]
struct Log {
    boundary: LogIndex,
    boundary_term: Term,
    entries: Vec<Entry>,
    hard_state: HardState,
    /// Every later sync fails.
    broken: bool,
    /// Nothing can be appended.
    full: bool,
    /// The log as it was synced last, when somebody wants to know.
    synced: Option<Box<Log>>,
}

impl Log {
    fn bounds(&self) -> LogBounds {
        LogBounds {
            boundary: self.boundary,
            boundary_term: self.boundary_term,
            last: LogIndex(self.boundary.0 + self.entries.len() as u64),
        }
    }

    fn slot(&self, index: LogIndex) -> usize {
        (index.0 - self.boundary.0 - 1) as usize
    }

    fn invalid(&self, index: LogIndex) -> WalError {
        WalError::InvalidIndex { index, bounds: self.bounds(), reason: "outside of the log" }
    }

    fn term(&self, index: LogIndex) -> Result<Term, WalError> {
        if index == self.boundary {
            return Ok(self.boundary_term);
        }
        if index < self.boundary || self.bounds().last < index {
            return Err(self.invalid(index));
        }
        Ok(self.entries[self.slot(index)].term)
    }
}

impl MemoryWal {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap()
    }

    /// A log that can lose what was not synced.
    pub fn crashable() -> Self {
        let wal = Self::default();
        wal.lock().synced = Some(Box::default());
        wal
    }

    /// Loses what was not synced.
    pub fn crash(&self) {
        let mut log = self.lock();
        let synced = log.synced.take().unwrap();
        *log = Log { synced: Some(synced.clone()), ..*synced };
    }

    /// The disk is full, or not any more.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// The log as it is now; it goes on without this copy.
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.lock().clone())))
    }

    /// Makes every later sync fail.
    pub fn break_disk(&self) {
        self.lock().broken = true;
    }
}

impl Wal for MemoryWal {
    fn append(&self, record: WalRecord) -> Result<WalOffset, WalError> {
        assert_eq!(record.record_type, RecordType::Snapshot, "a node appends no other single record");
        let mut log = self.lock();
        if log.term(record.index).ok() == Some(record.term) {
            let slot = (record.index.0 - log.boundary.0) as usize;
            log.entries.drain(..slot);
        } else {
            log.entries.clear();
        }
        (log.boundary, log.boundary_term) = (record.index, record.term);
        Ok(WalOffset::default())
    }

    fn append_many(&self, hard_state: Option<&HardState>, entries: &[Entry]) -> Result<WalOffset, WalError> {
        let mut log = self.lock();
        if log.full {
            return Err(WalError::DiskFull { dir: "/wal".into(), needed: 1, free: 0 });
        }
        if let Some(first) = entries.first() {
            if first.index <= log.boundary || log.bounds().last.next() < first.index {
                return Err(log.invalid(first.index));
            }
            let slot = log.slot(first.index);
            log.entries.truncate(slot);
            log.entries.extend_from_slice(entries);
        }
        if let Some(hard_state) = hard_state {
            log.hard_state = *hard_state;
        }
        Ok(WalOffset::default())
    }

    fn read(&self, offset: WalOffset) -> Result<WalRecord, WalError> {
        Err(WalError::NotFound { offset })
    }

    fn read_all(&self) -> Result<Vec<WalRecord>, WalError> {
        Ok(Vec::new())
    }

    fn scan(&self, _: &mut dyn FnMut(WalOffset, WalRecord) -> bool) -> Result<(), WalError> {
        Ok(())
    }

    fn entries(&self, range: Range<LogIndex>, bytes_max: u64) -> Result<Vec<Entry>, WalError> {
        let log = self.lock();
        if range.start <= log.boundary || log.bounds().last.next() < range.end {
            return Err(log.invalid(range.start));
        }
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in &log.entries[log.slot(range.start)..log.slot(range.end)] {
            bytes += entry.data.len() as u64;
            if !entries.is_empty() && bytes_max < bytes {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn term(&self, index: LogIndex) -> Result<Term, WalError> {
        self.lock().term(index)
    }

    fn bounds(&self) -> LogBounds {
        self.lock().bounds()
    }

    fn hard_state(&self) -> HardState {
        self.lock().hard_state
    }

    fn truncate(&self, from: LogIndex) -> Result<(), WalError> {
        let mut log = self.lock();
        let slot = log.slot(from);
        log.entries.truncate(slot);
        Ok(())
    }

    fn release(&self, upto: LogIndex) -> Result<(), WalError> {
        let mut log = self.lock();
        if log.boundary < upto {
            let term = log.term(upto)?;
            let count = (upto.0 - log.boundary.0) as usize;
            log.entries.drain(..count);
            (log.boundary, log.boundary_term) = (upto, term);
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), WalError> {
        let mut log = self.lock();
        if log.synced.take().is_some() {
            log.synced = Some(Box::new(log.clone()));
        }
        if log.broken {
            return Err(WalError::Poisoned { reason: "the test broke the disk".to_owned() });
        }
        Ok(())
    }

    fn close(&self) -> Result<(), WalError> {
        Ok(())
    }
}
