use std::sync::Arc;

use bytes::Bytes;
use harmony_types::config::StorageConfig;
use harmony_types::fake::fs::MemoryFileSystem;
use harmony_types::fake::seed::{SeededRng, for_each_seed};
use harmony_types::txn::{DeleteRange, Put};
use harmony_types::{HardState, LogIndex, Storage as _, Term};

use super::*;
use crate::mvcc::compact;
use crate::unified::UnifiedStorage;

struct Shape {
    keys: u64,
    key_bytes: usize,
    value_bytes_max: usize,
    puts: usize,
    /// Deletes, of ten.
    deletes: u64,
}

fn commands(shape: &Shape, rng: &mut SeededRng, revision: u64) -> Vec<CommandKind> {
    let mut commands = Vec::new();
    for _ in 0..shape.puts {
        let key = Bytes::from(format!("{:0width$}", rng.below(shape.keys), width = shape.key_bytes));
        commands.push(if rng.below(10) < shape.deletes {
            CommandKind::DeleteRange(DeleteRange { key, ..DeleteRange::default() })
        } else {
            let value = rng.index(0..shape.value_bytes_max);
            CommandKind::Put(Put { key, value: rng.bytes(value).into(), ..Put::default() })
        });
    }
    if rng.chance(1, 3) {
        let revision = i64::try_from(revision).unwrap();
        commands.push(CommandKind::Compact(harmony_types::command::Compact { revision }));
    }
    commands
}

/// Pages written by each checkpoint, and what was said that it may need. Returns the highest ratio.
fn check_bound(shape: &Shape, rng: &mut SeededRng) -> f64 {
    let fs: Arc<dyn FileSystem> = Arc::new(MemoryFileSystem::new());
    let config = StorageConfig { tree_cache_bytes: 64 << 20, ..StorageConfig::default() };
    let storage = UnifiedStorage::open(fs, Path::new("/d/wal"), Path::new("/d/tree"), config).unwrap();
    let mut next = LogIndex(1);
    let mut highest: f64 = 0.0;
    for _ in 0..12 {
        let entries: Vec<Entry> = commands(shape, rng, storage.progress().revision.0)
            .into_iter()
            .map(|command| {
                let data = Command::from(command).encode_to_vec().into();
                let entry = Entry { term: Term(1), index: next, entry_type: EntryType::Normal, data };
                next = next.next();
                entry
            })
            .collect();
        let commit = next.prev();
        storage.save(Some(&HardState { term: Term(1), vote: None, commit }), &entries).unwrap();
        storage.apply(&entries).unwrap();
        let tree = storage.tree.load_full();
        let (pages, before) = (tree.file_pages(), tree.written_bytes());
        let need = storage.memory.with_top(|top| {
            let progress = storage.progress();
            let rows = compact::Pace::beside(top, compact::CHECKPOINT_ROWS).rows_max;
            let is_due = compact::is_due(&progress, compact::KEEP_NONE);
            Need::of(top, pages).and(choices(is_due.then_some(rows), pages)[0].1)
        });
        storage.checkpoint().unwrap();
        let written = tree.written_bytes() - before;
        assert!(written <= need.of_disk(), "{written} bytes written, {need:?} of {pages} pages");
        #[allow(clippy::cast_precision_loss)]
        let ratio = written as f64 / need.of_disk() as f64;
        highest = highest.max(ratio);
    }
    highest
}

#[test]
fn no_checkpoint_writes_more_than_was_said() {
    let shapes = [
        Shape { keys: 20, key_bytes: 4, value_bytes_max: 20, puts: 1, deletes: 3 },
        Shape { keys: 20_000, key_bytes: 8, value_bytes_max: 200, puts: 1, deletes: 1 },
        Shape { keys: 3_000, key_bytes: 8, value_bytes_max: 20, puts: 2_000, deletes: 1 },
        Shape { keys: 5_000, key_bytes: 30, value_bytes_max: 300, puts: 500, deletes: 4 },
        Shape { keys: 500, key_bytes: 900, value_bytes_max: 300, puts: 300, deletes: 2 },
        Shape { keys: 300, key_bytes: 30, value_bytes_max: 5_000, puts: 200, deletes: 2 },
        Shape { keys: 40, key_bytes: 8, value_bytes_max: 200_000, puts: 20, deletes: 2 },
    ];
    for_each_seed(0..1, 0, |_, rng| {
        for (number, shape) in shapes.iter().enumerate() {
            let highest = check_bound(shape, rng);
            assert!(0.02 < highest, "shape {number}: the bound is {:.0} times too high", 1.0 / highest);
        }
    });
}
