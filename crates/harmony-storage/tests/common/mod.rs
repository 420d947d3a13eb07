//! What the storage tests share.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

pub mod generate;
pub mod model;

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use harmony_storage::{StorageConfig, StorageError, UnifiedStorage};
use harmony_types::fake::fs::MemoryFileSystem;
use harmony_types::txn::Put;
use harmony_types::wal::{LogBounds, WalOffset};
use harmony_types::{
    Command, CommandKind, Entry, EntryType, HardState, LogIndex, Outcome, RecordType, Storage, Term, Wal,
    WalError, WalRecord,
};

#[derive(Clone, Default)]
struct Log {
    bounds: LogBounds,
    entries: Vec<Entry>,
    hard_state: HardState,
}

/// A log in memory, until the real one is there.
#[derive(Default)]
pub struct MemoryWal(Mutex<Log>);

impl MemoryWal {
    /// The log as it is now.
    pub fn copy(&self) -> Self {
        Self(Mutex::new(self.0.lock().unwrap().clone()))
    }
}

impl Wal for MemoryWal {
    fn append(&self, record: WalRecord) -> Result<WalOffset, WalError> {
        assert_eq!(record.record_type, RecordType::Snapshot);
        let mut log = self.0.lock().unwrap();
        log.entries.clear();
        log.bounds = LogBounds { boundary: record.index, boundary_term: record.term, last: record.index };
        Ok(WalOffset(0))
    }
    fn append_many(&self, hard_state: Option<&HardState>, entries: &[Entry]) -> Result<WalOffset, WalError> {
        let mut log = self.0.lock().unwrap();
        if let Some(hard_state) = hard_state {
            log.hard_state = *hard_state;
        }
        for entry in entries {
            assert_eq!(entry.index, log.bounds.last.next());
            log.entries.push(entry.clone());
            log.bounds.last = entry.index;
        }
        Ok(WalOffset(0))
    }
    fn read(&self, offset: WalOffset) -> Result<WalRecord, WalError> {
        Err(WalError::NotFound { offset })
    }
    fn read_all(&self) -> Result<Vec<WalRecord>, WalError> {
        Ok(vec![])
    }
    fn scan(&self, _: &mut dyn FnMut(WalOffset, WalRecord) -> bool) -> Result<(), WalError> {
        Ok(())
    }
    fn entries(&self, range: Range<LogIndex>, _: u64) -> Result<Vec<Entry>, WalError> {
        let log = self.0.lock().unwrap();
        Ok(log.entries.iter().filter(|entry| range.contains(&entry.index)).cloned().collect())
    }
    fn term(&self, index: LogIndex) -> Result<Term, WalError> {
        let log = self.0.lock().unwrap();
        if index == log.bounds.boundary {
            return Ok(log.bounds.boundary_term);
        }
        let found = log.entries.iter().find(|entry| entry.index == index);
        found.map(|entry| entry.term).ok_or(WalError::InvalidIndex {
            index,
            bounds: log.bounds,
            reason: "outside",
        })
    }
    fn bounds(&self) -> LogBounds {
        self.0.lock().unwrap().bounds
    }
    fn hard_state(&self) -> HardState {
        self.0.lock().unwrap().hard_state
    }
    fn truncate(&self, _: LogIndex) -> Result<(), WalError> {
        Ok(())
    }
    fn release(&self, _: LogIndex) -> Result<(), WalError> {
        Ok(())
    }
    fn sync(&self) -> Result<(), WalError> {
        Ok(())
    }
    fn close(&self) -> Result<(), WalError> {
        Ok(())
    }
}

/// A store whose restarts a test controls.
pub struct Store {
    pub fs: MemoryFileSystem,
    pub wal: Arc<MemoryWal>,
    pub config: StorageConfig,
    storage: Option<UnifiedStorage>,
    pub next: LogIndex,
}

impl Store {
    pub fn new() -> Self {
        let config = StorageConfig { tree_cache_bytes: 4 << 20, ..StorageConfig::default() };
        Self::with(MemoryFileSystem::new(), config).unwrap()
    }

    pub fn with(fs: MemoryFileSystem, config: StorageConfig) -> Result<Self, StorageError> {
        Self::on(fs, Arc::default(), config)
    }

    /// Opens what is on a disk, with this log.
    pub fn on(
        fs: MemoryFileSystem,
        wal: Arc<MemoryWal>,
        config: StorageConfig,
    ) -> Result<Self, StorageError> {
        let mut store = Self { fs, wal, config, storage: None, next: LogIndex(1) };
        store.open()?;
        Ok(store)
    }

    /// Gives the files free without a word, as a killed process does.
    pub fn stop(&mut self) {
        self.storage = None;
    }

    fn open(&mut self) -> Result<(), StorageError> {
        let storage = UnifiedStorage::with_wal(
            Arc::new(self.fs.clone()),
            self.wal.clone(),
            Path::new("/data/tree"),
            self.config.clone(),
        )?;
        self.next = storage.bounds().last.next();
        self.storage = Some(storage);
        Ok(())
    }

    /// Opens again, without or with a clean end before.
    pub fn restart(&mut self, clean: bool) -> Result<(), StorageError> {
        if let Some(storage) = self.storage.take()
            && clean
        {
            storage.close().unwrap();
        }
        self.open()
    }

    pub fn storage(&self) -> &UnifiedStorage {
        self.storage.as_ref().expect("the store is open")
    }

    /// The next entry, with this command.
    pub fn entry(&mut self, kind: CommandKind) -> Entry {
        let data = Command::from(kind).encode_to_bytes();
        let entry = Entry { term: Term(1), index: self.next, entry_type: EntryType::Normal, data };
        self.next = self.next.next();
        entry
    }

    /// Puts entries into the log as committed ones, durable.
    pub fn save(&mut self, entries: &[Entry]) {
        let commit = entries.last().map_or(self.next.prev(), |last| last.index);
        self.next = commit.next();
        let hard_state = HardState { term: Term(1), vote: None, commit };
        self.storage().save(Some(&hard_state), entries).unwrap();
        self.storage().sync().unwrap();
    }

    /// Saves and applies commands in one batch.
    pub fn run_all(&mut self, kinds: impl IntoIterator<Item = CommandKind>) -> Vec<Outcome> {
        let entries: Vec<Entry> = kinds.into_iter().map(|kind| self.entry(kind)).collect();
        self.save(&entries);
        self.storage().apply(&entries).unwrap()
    }

    pub fn run(&mut self, kind: CommandKind) -> Outcome {
        self.run_all([kind]).remove(0)
    }
}

pub fn put(key: &str, value: &str) -> CommandKind {
    CommandKind::Put(Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..Put::default()
    })
}
