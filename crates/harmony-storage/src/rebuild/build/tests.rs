//! What a rebuild holds in memory.

use std::path::Path;
use std::sync::Arc;

use harmony_types::fake::fs::MemoryFileSystem;
use harmony_types::txn::Put;
use harmony_types::{Command, CommandKind, Entry, EntryType, Storage, Term};

use crate::{RebuildStep, StorageConfig, UnifiedStorage};

const STEP_BYTES: usize = 2_000;
/// Two versions, key and numbers: more than the longest row.
const ROW_BYTES_MAX: usize = 700;

/// Writes `count` keys with a value of 300 bytes.
fn write(storage: &UnifiedStorage, count: u32) {
    for number in 0..count {
        let put = Put { key: format!("key{number}").into(), value: vec![b'v'; 300].into(), ..Put::default() };
        let index = storage.applied().index.next();
        let data = Command::from(CommandKind::Put(put)).encode_to_bytes();
        let entry = Entry { term: Term(1), index, entry_type: EntryType::Normal, data };
        storage.save(None, std::slice::from_ref(&entry)).unwrap();
        storage.apply(&[entry]).unwrap();
    }
}

#[test]
fn a_step_holds_what_it_was_told_to_and_one_row() {
    let config = StorageConfig { tree_cache_bytes: 1 << 20, ..StorageConfig::default() };
    let fs = Arc::new(MemoryFileSystem::new());
    let storage = UnifiedStorage::open(fs, Path::new("/wal"), Path::new("/tree"), config).unwrap();
    write(&storage, 200);
    let mut rebuild = storage.start_rebuild().unwrap();
    // All of these come by a round.
    write(&storage, 200);
    let (mut full, mut steps) = (0, 0);
    while rebuild.step(STEP_BYTES).unwrap() == RebuildStep::More {
        let state = storage.rebuilds.lock();
        let (_, build) = state.build.as_ref().unwrap();
        assert!(build.held.bytes.len() < STEP_BYTES + ROW_BYTES_MAX, "{}", build.held.bytes.len());
        full += usize::from(STEP_BYTES <= build.held.bytes.len());
        steps += 1;
    }
    // 400 rows of 330 bytes in the copy, 200 of 660 in the round.
    assert!(100 < full, "{full} of {steps} steps were full");
}
