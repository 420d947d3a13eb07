use std::sync::Arc;

use bytes::Bytes;
use harmony_types::config::StorageConfig;
use harmony_types::fake::fs::MemoryFileSystem;
use harmony_types::fake::seed::{SeededRng, for_each_seed};
use harmony_types::txn::{DeleteRange, Put};
use harmony_types::{CommandKind, DiskSpace, HardState, LogIndex, Storage as _, Term};

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

/// A storage on a disk of its own, and what is put into it.
struct Puts {
    disk: MemoryFileSystem,
    storage: UnifiedStorage,
    next: LogIndex,
}

impl Puts {
    fn new(segment_bytes: u64) -> Self {
        let disk = MemoryFileSystem::new();
        let mut config = StorageConfig { tree_cache_bytes: 8 << 20, ..StorageConfig::default() };
        config.wal.segment_bytes = segment_bytes;
        let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
        let storage = UnifiedStorage::open(fs, Path::new("/d/wal"), Path::new("/d/tree"), config).unwrap();
        Self { disk, storage, next: LogIndex(1) }
    }

    fn save(&mut self, key: u64, value_bytes: usize) -> Entry {
        let (key, value) = (format!("{key:08}").into(), vec![7; value_bytes].into());
        let data =
            Command::from(CommandKind::Put(Put { key, value, ..Put::default() })).encode_to_vec().into();
        let entry = Entry { term: Term(1), index: self.next, entry_type: EntryType::Normal, data };
        let state = HardState { term: Term(1), vote: None, commit: self.next };
        self.storage.save(Some(&state), std::slice::from_ref(&entry)).unwrap();
        self.storage.sync().unwrap();
        self.next = self.next.next();
        entry
    }

    fn put(&mut self, key: u64, value_bytes: usize) {
        let entry = self.save(key, value_bytes);
        self.storage.apply(&[entry]).unwrap();
    }

    /// Leaves the disk so many bytes.
    fn leave(&self, free: u64) {
        self.disk.set_capacity(Some(self.disk.used_bytes() + free));
    }
}

/// Each fold for a reader adds what it may need to what the next commit asks for, until a durable one. A checkpoint needs far
/// less, and must have its room all the same: nothing else makes the sum small again.
#[test]
fn reads_between_two_checkpoints_leave_room_for_the_next_one() {
    let mut puts = Puts::new(64 << 20);
    // So that what the tree's file has free does not help.
    let mut key = 0;
    while 40 < puts.storage.tree.load().space().unwrap().free_pages || key < 100 {
        puts.put(key, 3_000);
        key += 1;
        if key % 4 == 0 {
            puts.storage.checkpoint().unwrap();
        }
    }
    puts.storage.checkpoint().unwrap();
    puts.leave(6 << 20);
    for _ in 0..200 {
        puts.put(1, 10);
        // The first view freezes what is in memory, the second takes it into the tree.
        drop(puts.storage.fixed_view().unwrap());
        puts.put(2, 10);
        drop(puts.storage.fixed_view().unwrap());
    }
    assert_eq!(puts.storage.disk_space(0), DiskSpace::Enough, "no checkpoint was refused");
    puts.storage.checkpoint().unwrap();
}

/// What the log is about to take of the same disk is not the tree's: one of them would meet a full disk in the middle of a
/// write.
#[test]
fn a_checkpoint_leaves_the_log_its_next_segment() {
    const SEGMENT: u64 = 4 << 20;
    let mut puts = Puts::new(SEGMENT);
    puts.put(1, 10);
    while puts.storage.wal().unreserved_bytes() == 0 {
        puts.save(1, 10_000);
    }
    puts.leave(SEGMENT + 50_000);
    let refused = puts.storage.checkpoint();
    assert!(matches!(refused, Err(StorageError::DiskFull { free: 50_000, .. })), "{refused:?}");
    puts.leave(SEGMENT + 2_000_000);
    puts.storage.checkpoint().unwrap();
    while puts.storage.wal().unreserved_bytes() != 0 {
        puts.save(1, 10_000);
    }
}

#[test]
fn commands_that_add_data_need_space_and_no_others() {
    use harmony_types::command::Compact;
    use harmony_types::lease::{LeaseGrant, LeaseRevoke};
    use harmony_types::txn::{Txn, TxnOp, TxnOpKind};

    let puts = Puts::new(4 << 20);
    let txn = |kind| CommandKind::Txn(Txn { failure: vec![TxnOp { kind: Some(kind) }], ..Txn::default() });
    for (kind, needs) in [
        (CommandKind::Put(Put::default()), true),
        (CommandKind::LeaseGrant(LeaseGrant::default()), true),
        (txn(TxnOpKind::Put(Put::default())), true),
        (txn(TxnOpKind::DeleteRange(DeleteRange::default())), false),
        (CommandKind::DeleteRange(DeleteRange::default()), false),
        (CommandKind::Compact(Compact::default()), false),
        (CommandKind::LeaseRevoke(LeaseRevoke::default()), false),
    ] {
        let command = Bytes::from(Command::from(kind.clone()).encode_to_vec());
        assert_eq!(puts.storage.needs_space(&command), needs, "{kind:?}");
    }
    assert!(puts.storage.needs_space(&Bytes::from_static(b"\xff no command")));
}
