//! Opening after a kill, with all that fits into memory in the log and in no checkpoint, over trees of different sizes.

use std::path::Path;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use harmony_storage::{StorageConfig, UnifiedStorage};
use harmony_types::{Entry, HardState, Storage, Term};
use harmony_wal::OsFileSystem;

mod common;

/// Entries behind the checkpoint: about as many as fit into memory before the next one.
const TAIL: u64 = 80_000;

fn open(dir: &Path) -> UnifiedStorage {
    let config = StorageConfig::default();
    UnifiedStorage::open(OsFileSystem::new(), &dir.join("wal"), &dir.join("tree"), config)
        .expect("the disk works")
}

fn apply(storage: &UnifiedStorage, entries: &[Entry]) {
    let Some(last) = entries.last() else { return };
    let hard_state = HardState { term: Term(1), vote: None, commit: last.index };
    storage.save(Some(&hard_state), entries).expect("the disk works");
    storage.apply(entries).expect("the disk works");
}

fn recovery(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open after a kill");
    group.sample_size(10);
    for keys in [10_000, 100_000, 1_000_000] {
        let dir = tempfile::tempdir().expect("a directory");
        let storage = open(dir.path());
        let puts = common::Puts::new(keys);
        for first in (0..keys).step_by(64) {
            let entries: Vec<Entry> = (first..keys.min(first + 64)).map(|number| puts.put(number)).collect();
            apply(&storage, &entries);
        }
        storage.checkpoint().expect("the disk works");
        for _ in (0..TAIL).step_by(100) {
            apply(&storage, &puts.random(100));
        }
        storage.sync().expect("the disk works");
        assert_eq!(storage.durable_applied().0, keys, "the tail is in no checkpoint");
        // Dropped without a word: as killed.
        drop(storage);
        group.bench_function(BenchmarkId::new("keys", keys), |bench| {
            bench.iter(|| {
                let storage = open(dir.path());
                assert_eq!(storage.applied().index.0, keys + TAIL);
                storage
            });
        });
    }
    group.finish();
}

criterion_group!(benches, recovery);
criterion_main!(benches);
