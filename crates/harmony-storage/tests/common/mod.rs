//! What the storage tests share.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

pub mod compare;
pub mod generate;
pub mod life;
pub mod model;
pub mod model_auth;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use harmony_storage::{StorageConfig, StorageError, UnifiedStorage};
use harmony_types::fake::fs::{Crash, MemoryFileSystem};
use harmony_types::txn::Put;
use harmony_types::{Command, CommandKind, Entry, EntryType, HardState, LogIndex, Outcome, Storage, Term};

/// Where the log is.
pub const WAL_DIR: &str = "/data/wal";
/// Where the tree is.
pub const TREE_DIR: &str = "/data/tree";

/// Small files, so that tests are quick.
pub fn config() -> StorageConfig {
    let mut config = StorageConfig { tree_cache_bytes: 1 << 20, ..StorageConfig::default() };
    config.wal.segment_bytes = 32 << 10;
    config
}

/// A store whose restarts a test controls.
pub struct Store {
    pub fs: MemoryFileSystem,
    pub config: StorageConfig,
    storage: Option<UnifiedStorage>,
    pub next: LogIndex,
}

impl Store {
    pub fn new() -> Self {
        Self::with(MemoryFileSystem::new(), config()).unwrap()
    }

    /// Opens what is on a disk.
    pub fn with(fs: MemoryFileSystem, config: StorageConfig) -> Result<Self, StorageError> {
        let mut store = Self { fs, config, storage: None, next: LogIndex(1) };
        store.open()?;
        Ok(store)
    }

    /// Gives the files free without a word, as a killed process does.
    pub fn stop(&mut self) {
        self.storage = None;
    }

    fn open(&mut self) -> Result<(), StorageError> {
        let fs = Arc::new(self.fs.clone());
        let storage = UnifiedStorage::open(fs, Path::new(WAL_DIR), Path::new(TREE_DIR), self.config.clone())?;
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

    /// The power goes, and what `crash` left is opened.
    pub fn lose_power(&mut self, crash: Crash) -> Result<(), StorageError> {
        self.fs = self.fs.crash_image(crash);
        self.storage = None;
        self.open()
    }

    /// Goes on as another member, which got all it has as a snapshot.
    pub fn move_by_snapshot(&mut self) {
        let snapshot = self.storage().create_snapshot().unwrap();
        let copy = Self::with(MemoryFileSystem::new(), self.config.clone()).unwrap();
        let next = snapshot.meta.index.next();
        copy.storage().save_snapshot(snapshot).unwrap();
        *self = Self { next, ..copy };
    }

    pub fn storage(&self) -> &UnifiedStorage {
        self.storage.as_ref().expect("the store is open")
    }

    /// Whether the last opening went well.
    pub fn is_open(&self) -> bool {
        self.storage.is_some()
    }

    /// The next entry, with this command.
    pub fn entry(&mut self, command: impl Into<Command>) -> Entry {
        let data = command.into().encode_to_bytes();
        let entry = Entry { term: Term(1), index: self.next, entry_type: EntryType::Normal, data };
        self.next = self.next.next();
        entry
    }

    /// Puts entries into the log as committed ones, durable.
    pub fn save(&mut self, entries: &[Entry]) {
        self.try_save(entries).unwrap();
    }

    pub fn try_save(&mut self, entries: &[Entry]) -> Result<(), StorageError> {
        let commit = entries.last().map_or(self.next.prev(), |last| last.index);
        self.next = commit.next();
        let hard_state = HardState { term: Term(1), vote: None, commit };
        self.storage().save(Some(&hard_state), entries)?;
        self.storage().sync()
    }

    /// Saves and applies commands in one batch.
    pub fn run_all(&mut self, commands: impl IntoIterator<Item = impl Into<Command>>) -> Vec<Outcome> {
        let entries: Vec<Entry> = commands.into_iter().map(|command| self.entry(command)).collect();
        self.save(&entries);
        self.storage().apply(&entries).unwrap()
    }

    pub fn run(&mut self, command: impl Into<Command>) -> Outcome {
        self.run_all([command]).remove(0)
    }
}

pub fn put(key: &str, value: &str) -> CommandKind {
    CommandKind::Put(Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..Put::default()
    })
}
