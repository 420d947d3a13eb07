//! The same entries give the same bytes: from an empty tree or from any checkpoint, in one go or in pieces, whatever each
//! store went through meanwhile.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use common::life::{Contents, commands};
use common::{Store, put};
use harmony_storage::{HashKv, StorageConfig};
use harmony_types::fake::fs::{Crash, MemoryFileSystem};
use harmony_types::fake::seed::{Seed, SeededRng, for_each_seed};
use harmony_types::txn::DeleteRange;
use harmony_types::{CommandKind, Storage};

fn config(rng: &mut SeededRng) -> StorageConfig {
    let mut config = StorageConfig { checkpoint_bytes: 1 + rng.below(6_000), ..common::config() };
    config.wal.segment_bytes = *rng.pick(&[4 << 10, 8 << 10, 32 << 10]);
    config
}

/// Everything that two members compare; HashKV at every revision that can be read.
fn everything(store: &Store) -> (Contents, Vec<HashKv>) {
    let storage = store.storage();
    let (compact, newest) = (storage.compact_revision().as_i64(), storage.revision().as_i64());
    let hashes = (compact.max(1)..=newest).map(|revision| storage.hash_kv(revision).unwrap()).collect();
    (Contents::of(store).unwrap(), hashes)
}

/// Applies what the log has behind `store`'s applied index, in pieces of chance, with checkpoints, compaction steps and
/// restarts between them.
fn replay(store: &mut Store, entries: &[harmony_types::Entry], rng: &mut SeededRng) {
    let mut applied = usize::try_from(store.storage().applied().index.0).unwrap();
    while applied < entries.len() {
        let end = entries.len().min(applied + 1 + rng.index(0..9));
        let piece = &entries[applied..end];
        // A restart may have found all of them in the log.
        if store.storage().bounds().last < piece[piece.len() - 1].index {
            store.try_save(piece).unwrap();
        }
        store.storage().apply(piece).unwrap();
        match rng.below(6) {
            0 => drop(store.storage().checkpoint().unwrap()),
            1 => drop(store.storage().drop_compacted().unwrap()),
            2 => store.restart(rng.chance(1, 2)).unwrap(),
            3 => store.lose_power(Crash::Seeded(Seed(rng.below(u64::MAX)))).unwrap(),
            _ => {}
        }
        applied = usize::try_from(store.storage().applied().index.0).unwrap();
    }
}

#[test]
fn the_same_entries_give_the_same_bytes_from_every_checkpoint() {
    for_each_seed(0..40, 5, |_, rng| {
        let mut first = Store::with(MemoryFileSystem::new(), config(rng)).unwrap();
        let entries: Vec<_> = commands(rng, 70).into_iter().map(|command| first.entry(command)).collect();
        // What is on disk behind each checkpoint: all of the log, and the tree up to there.
        let mut checkpoints = vec![first.fs.crash_image(Crash::KeepAll)];
        for piece in entries.chunks(14) {
            first.try_save(piece).unwrap();
            first.storage().apply(piece).unwrap();
            first.storage().checkpoint().unwrap();
            checkpoints.push(first.fs.crash_image(Crash::LoseUnsynced));
        }
        let expected = everything(&first);
        for (nth, image) in checkpoints.into_iter().enumerate() {
            for twice in 0..2 {
                let image = image.crash_image(Crash::KeepAll);
                let mut store = Store::with(image, config(rng)).unwrap();
                replay(&mut store, &entries, rng);
                assert!(everything(&store) == expected, "checkpoint {nth}, replay {twice}");
            }
        }
    });
}

#[test]
fn opening_replays_the_log_to_the_same_bytes() {
    for_each_seed(0..40, 5, |_, rng| {
        let mut first = Store::with(MemoryFileSystem::new(), config(rng)).unwrap();
        let entries: Vec<_> = commands(rng, 60).into_iter().map(|command| first.entry(command)).collect();
        let checkpoint_at = rng.index(0..entries.len());
        for (nth, entry) in entries.iter().enumerate() {
            first.try_save(std::slice::from_ref(entry)).unwrap();
            first.storage().apply(std::slice::from_ref(entry)).unwrap();
            if nth == checkpoint_at {
                first.storage().checkpoint().unwrap();
            }
        }
        let image = first.fs.crash_image(Crash::LoseUnsynced);
        let expected = everything(&first);
        for _ in 0..2 {
            // Opening alone: the tree's checkpoint, and the rest from the log.
            let opened = Store::with(image.crash_image(Crash::KeepAll), config(rng)).unwrap();
            assert_eq!(opened.storage().applied(), first.storage().applied());
            assert!(everything(&opened) == expected);
        }
        // The same log beside an empty tree.
        let mut empty = Store::new();
        let log = first.storage().entries(entries[0].index..first.next, u64::MAX).unwrap();
        assert_eq!(log, entries, "nothing was released");
        empty.try_save(&log).unwrap();
        empty.restart(false).unwrap();
        assert!(everything(&empty) == expected);
    });
}

#[test]
fn a_tail_of_two_memories_needs_no_checkpoint_to_open() {
    const MIB: usize = 1 << 20;
    // Opening replays up to 4 MiB at once: 3 of these entries. Two such parts fill a memory, one does not, though the versions
    // that an entry replaces count for half. Of two full memories, opening takes one into the tree.
    let mut config = StorageConfig { checkpoint_bytes: 5 * MIB as u64, ..common::config() };
    config.wal.segment_bytes = 64 * MIB as u64;
    for (entries, expected) in [(6, 0), (12, 0), (18, 6)] {
        let mut store = Store::with(MemoryFileSystem::new(), config.clone()).unwrap();
        let value = "v".repeat(MIB);
        // Some keys are written in several parts of the tail.
        let entries: Vec<_> =
            (0..entries).map(|number| store.entry(put(&format!("k{}", number % 9), &value))).collect();
        store.save(&entries);
        store.restart(false).unwrap();
        let storage = store.storage();
        assert_eq!(storage.applied().index.0, entries.len() as u64);
        assert_eq!(storage.durable_applied().0, expected, "{} MiB of tail", entries.len());
        let hash = storage.applied_hash();

        let other = Store::with(MemoryFileSystem::new(), common::config()).unwrap();
        other.storage().apply(&entries).unwrap();
        assert_eq!(hash, other.storage().applied_hash(), "{} MiB of tail", entries.len());
        assert_eq!(storage.checkpoint().unwrap().0, entries.len() as u64);
        assert_eq!(storage.hash().unwrap(), other.storage().hash().unwrap());
    }
}

#[test]
fn a_tail_that_is_read_by_several_threads_gives_the_same_bytes() {
    const KEYS: usize = 600;
    let mut rng = Seed(3).rng();
    let mut config = common::config();
    config.wal.segment_bytes = 64 << 20;
    let mut first = Store::with(MemoryFileSystem::new(), config.clone()).unwrap();
    let value = "v".repeat(4 << 10);
    // Three parts of 4 MiB.
    let entries: Vec<_> = (0..3_000)
        .map(|nth| {
            let key = format!("key {}", rng.index(0..KEYS));
            match nth % 10 {
                // Some keys, or none.
                0 => first.entry(CommandKind::DeleteRange(DeleteRange {
                    range_end: format!("{key}5").into(),
                    key: key.into(),
                    ..DeleteRange::default()
                })),
                _ => first.entry(put(&key, &format!("{nth} {value}"))),
            }
        })
        .collect();
    let (before, tail) = entries.split_at(KEYS);
    first.save(before);
    first.storage().apply(before).unwrap();
    first.storage().checkpoint().unwrap();
    first.save(tail);
    let image = first.fs.crash_image(Crash::LoseUnsynced);
    first.storage().apply(tail).unwrap();
    // All of the tail in memory; and one for which opening makes checkpoints between the parts.
    for checkpoint_bytes in [64 << 20, 2 << 20] {
        let config = StorageConfig { checkpoint_bytes, ..config.clone() };
        let opened = Store::with(image.crash_image(Crash::KeepAll), config).unwrap();
        let storage = opened.storage();
        assert_eq!(storage.applied(), first.storage().applied());
        assert_eq!(checkpoint_bytes < 4 << 20, (before.len() as u64) < storage.durable_applied().0);
        assert_eq!(storage.applied_hash(), first.storage().applied_hash());
        assert_eq!(storage.hash().unwrap(), first.storage().hash().unwrap());
    }
}
