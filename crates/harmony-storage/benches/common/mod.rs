//! A store with keys of 32 bytes and values of 256.
#![allow(dead_code, unreachable_pub, missing_docs)] // each benchmark uses a part

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use harmony_storage::{StorageConfig, UnifiedStorage};
use harmony_types::command::Compact;
use harmony_types::fake::seed::{Seed, SeededRng};
use harmony_types::txn::Put;
use harmony_types::{Command, CommandKind, Entry, EntryType, LogIndex, Revision, Storage, Term};
use harmony_wal::OsFileSystem;

/// Puts with the indexes of a log without a gap.
pub struct Puts {
    keys: u64,
    last: Cell<u64>,
    rng: RefCell<SeededRng>,
}

impl Puts {
    pub fn new(keys: u64) -> Self {
        Self { keys, last: Cell::new(0), rng: RefCell::new(Seed(1).rng()) }
    }

    pub fn put(&self, number: u64) -> Entry {
        let value = Bytes::from_static(&[7; 256]);
        self.entry(CommandKind::Put(Put { key: key(number), value, ..Put::default() }))
    }

    pub fn compact(&self, revision: Revision) -> Entry {
        self.entry(CommandKind::Compact(Compact { revision: revision.as_i64() }))
    }

    fn entry(&self, command: CommandKind) -> Entry {
        self.last.set(self.last.get() + 1);
        let data = Command::from(command).encode_to_bytes();
        Entry { term: Term(1), index: LogIndex(self.last.get()), entry_type: EntryType::Normal, data }
    }

    pub fn random_key(&self) -> Bytes {
        key(self.rng.borrow_mut().below(self.keys))
    }

    pub fn random(&self, count: u64) -> Vec<Entry> {
        (0..count)
            .map(|_| {
                let number = self.rng.borrow_mut().below(self.keys);
                self.put(number)
            })
            .collect()
    }
}

pub struct Store {
    pub storage: UnifiedStorage,
    puts: Puts,
    _dir: tempfile::TempDir,
}

pub fn key(number: u64) -> Bytes {
    format!("key/{number:028}").into()
}

impl Store {
    pub fn filled(keys: u64) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (wal, tree) = (dir.path().join("wal"), dir.path().join("tree"));
        let storage = UnifiedStorage::open(OsFileSystem::new(), &wal, &tree, StorageConfig::default());
        let storage = storage.expect("the disk works");
        let store = Self { storage, puts: Puts::new(keys), _dir: dir };
        for first in (0..keys).step_by(64) {
            let entries: Vec<Entry> =
                (first..keys.min(first + 64)).map(|number| store.puts.put(number)).collect();
            store.storage.apply(&entries).expect("the disk works");
        }
        store
    }

    pub fn compact(&self, revision: Revision) -> Entry {
        self.puts.compact(revision)
    }

    pub fn random_key(&self) -> Bytes {
        self.puts.random_key()
    }

    pub fn random_puts(&self, count: u64) -> Vec<Entry> {
        self.puts.random(count)
    }
}
