//! Compaction: in bounded steps, through crashes, and what stays readable at its edge.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use std::path::Path;

use bytes::{BufMut as _, BytesMut};
use common::{Store, TREE_DIR, put};
use harmony_storage::{EventsRequest, HashKv, StorageConfig, StorageError};
use harmony_types::command::Compact;
use harmony_types::fake::fs::{CallKind, Crash, Fault, MemoryFileSystem};
use harmony_types::fake::seed::Seed;
use harmony_types::txn::{DeleteRange, Range};
use harmony_types::{CommandKind, KeyValue, Revision, Storage};
use prost::Message as _;

fn delete(key: &'static str, end: &'static [u8]) -> CommandKind {
    CommandKind::DeleteRange(DeleteRange { key: key.into(), range_end: end.into(), ..DeleteRange::default() })
}

fn compact(revision: i64) -> CommandKind {
    CommandKind::Compact(Compact { revision })
}

fn all(revision: i64) -> Range {
    Range { key: "\0".into(), range_end: vec![0].into(), revision, ..Range::default() }
}

/// Events in the tree's file.
fn rows(store: &Store) -> u64 {
    let image = store.fs.crash_image(Crash::KeepAll);
    harmony_storage::stats(&image, Path::new(TREE_DIR)).unwrap().events
}

fn drop_all(store: &Store) {
    while store.storage().drop_compacted().unwrap() {}
    store.storage().checkpoint().unwrap();
}

/// etcd#17780: the newest revision is a delete, everything up to it is compacted, and the power goes at any call of that.
#[test]
fn a_crash_in_compaction_never_takes_the_revision_back() {
    let config = || StorageConfig { checkpoint_bytes: 2_000, ..common::config() };
    let commands = || {
        let puts = (0..12).map(|number| put(&format!("k{}", number % 3), "v"));
        puts.chain([delete("\0", b"\0")])
    };
    let calm = {
        let mut store = Store::new();
        store.run_all(commands());
        store.run(compact(14));
        drop_all(&store);
        assert_eq!(store.storage().revision(), Revision(14));
        store
    };
    let mut crashed_between = 0;
    for n in 1.. {
        let disk = MemoryFileSystem::new();
        let mut store = Store::with(disk.clone(), config()).unwrap();
        store.run_all(commands());
        store.storage().checkpoint().unwrap();
        disk.inject(Fault::on(CallKind::CHANGING).nth(n).lasting());
        let entry = store.entry(compact(14));
        let saved = store.try_save(std::slice::from_ref(&entry)).is_ok();
        let run = || -> Result<(), StorageError> {
            store.storage().apply(std::slice::from_ref(&entry))?;
            store.storage().checkpoint()?;
            while store.storage().drop_compacted()? {}
            store.storage().checkpoint()?;
            store.storage().close()
        };
        let is_done = saved && run().is_ok();
        for crash in [Crash::LoseUnsynced, Crash::KeepAll, Crash::Seeded(Seed(n))] {
            let mut after = Store::with(disk.crash_image(crash), config()).unwrap();
            assert_eq!(after.storage().revision(), Revision(14), "call {n}, {crash:?}");
            let compacted = after.storage().compact_revision();
            assert!(compacted == Revision(14) || (compacted == Revision(0) && !saved), "call {n}, {crash:?}");
            if compacted != Revision(14) {
                continue;
            }
            crashed_between += u64::from(!is_done);
            // It goes on where it was, and ends as if nothing had happened.
            assert_eq!(after.storage().hash().unwrap(), calm.storage().hash().unwrap());
            assert_eq!(after.storage().hash_kv(0).unwrap(), calm.storage().hash_kv(0).unwrap());
            drop_all(&after);
            // The rows at the compact revision stay, for watches.
            assert_eq!(rows(&after), 3);
            after.restart(false).unwrap();
            assert_eq!(after.storage().revision(), Revision(14));
            assert_eq!(after.storage().hash().unwrap(), calm.storage().hash().unwrap());
            assert_eq!(after.run(put("k0", "again")).revision, 15);
        }
        if is_done {
            break;
        }
    }
    assert!(5 < crashed_between, "only {crashed_between} crashes were in the compaction");
}

#[test]
fn the_revision_stays_when_everything_up_to_it_is_gone() {
    let mut store = Store::new();
    store.run_all([put("a", "1"), put("b", "1"), delete("a", b"c")]);
    // The second one takes the tombstones, too.
    store.run_all([compact(4), put("c", "1"), delete("c", b""), compact(6)]);
    drop_all(&store);
    assert_eq!(rows(&store), 1, "the delete at the compact revision");
    for _ in 0..2 {
        assert_eq!(
            (store.storage().revision(), store.storage().compact_revision()),
            (Revision(6), Revision(6))
        );
        store.restart(false).unwrap();
    }
    store.move_by_snapshot();
    assert_eq!(store.storage().revision(), Revision(6));
    assert_eq!(store.run(put("a", "1")).revision, 7);
}

#[test]
fn a_compaction_goes_on_in_steps_after_a_restart() {
    const ROWS: u64 = 45_000;
    let mut store = Store::new();
    for first in (0..ROWS).step_by(1_000) {
        store.run_all((first..first + 1_000).map(|number| put(&format!("k{}", number % 10), "")));
    }
    store.storage().checkpoint().unwrap();
    store.run(compact(i64::try_from(ROWS).unwrap() + 1));
    let mut left = vec![rows(&store)];
    while *left.last().unwrap() != 1 {
        // Nothing but checkpoints, which have nothing else to do.
        store.storage().checkpoint().unwrap();
        store.restart(false).unwrap();
        left.push(rows(&store));
        let step = left[left.len() - 2] - left[left.len() - 1];
        assert!((1..=20_000).contains(&step), "{left:?}");
        assert_eq!(store.storage().range(&all(0)).unwrap().outcome.count, 10);
    }
    assert!(3 < left.len(), "{left:?}");
}

/// Each commit drops at least twice what it adds: what waits to be dropped shrinks, however fast writes come.
#[test]
fn compaction_catches_up_with_writes() {
    const BATCH: usize = 600;
    // Memory is full all the time: commits are those that apply waits for, which drop least.
    let config = StorageConfig { checkpoint_bytes: 1, ..common::config() };
    let mut store = Store::with(MemoryFileSystem::new(), config).unwrap();
    let batch = || (0..BATCH).map(|number| put(&format!("k{}", number % 7), ""));
    for _ in 0..10 {
        store.run_all(batch());
    }
    store.storage().checkpoint().unwrap();
    let mut waiting = vec![rows(&store)];
    for _ in 0..12 {
        let revision = store.storage().revision().as_i64();
        store.run_all([compact(revision)]);
        store.run_all(batch());
        waiting.push(rows(&store));
    }
    assert!(9 * BATCH as u64 <= waiting[0], "{waiting:?}");
    // The first compaction begins with the commit behind it.
    assert!(waiting[1..].is_sorted_by(|before, after| after <= before), "{waiting:?}");
    // Of the last batch and the one before, which is in memory still.
    assert!(waiting[12] <= 2 * BATCH as u64, "{waiting:?}");
}

#[test]
fn the_compact_revision_is_readable_and_below_it_nothing_is() {
    let mut store = Store::new();
    store.run_all([put("a", "1"), put("a", "2"), delete("a", b""), put("a", "3")]);
    store.run(compact(4));
    for _ in 0..2 {
        let found = store.storage().range(&all(4)).unwrap();
        assert_eq!((found.outcome.count, found.revision), (0, Revision(5)), "deleted at 4");
        assert_eq!(store.storage().range(&all(5)).unwrap().outcome.count, 1);
        for revision in 1..4 {
            let error = store.storage().range(&all(revision)).unwrap_err();
            let StorageError::Compacted { requested, compacted } = error else { panic!("{error}") };
            assert_eq!((requested.as_i64(), compacted), (revision, Revision(4)));
        }
        let error = store.storage().range(&all(6)).unwrap_err();
        assert!(matches!(error, StorageError::FutureRevision { .. }), "{error}");
        drop_all(&store);
    }
}

#[test]
fn a_tombstone_at_the_compact_revision_stays_until_a_later_compaction() {
    let mut store = Store::new();
    store.run_all([put("a", "1"), delete("a", b""), put("b", "1")]);
    store.run(compact(3));
    drop_all(&store);
    let stats = |store: &Store| {
        let image = store.fs.crash_image(Crash::KeepAll);
        let stats = harmony_storage::stats(&image, Path::new(TREE_DIR)).unwrap();
        (stats.tombstones, stats.events)
    };
    assert_eq!(stats(&store), (1, 2));
    store.run(compact(4));
    drop_all(&store);
    assert_eq!(stats(&store), (0, 1));
}

/// What etcd hashes for a version: its revision as a key of the table, then the key value.
fn etcd_pair(kv: &KeyValue) -> Vec<u8> {
    let mut pair = BytesMut::new();
    pair.put_i64(kv.mod_revision);
    pair.put_u8(b'_');
    pair.put_i64(0);
    pair.put_slice(&kv.encode_to_vec());
    pair.to_vec()
}

#[test]
fn a_tombstone_at_the_compact_revision_is_not_hashed() {
    let mut store = Store::new();
    store.run_all([put("a", "1"), put("b", "1"), delete("a", b"")]);
    store.run(compact(4));
    let b = store.storage().get(b"b").unwrap().unwrap();
    let hash = crc32c::crc32c(&[b"key".to_vec(), etcd_pair(&b)].concat());
    let expected = HashKv { hash, compact_revision: 4, hash_revision: 4 };
    for _ in 0..2 {
        assert_eq!(store.storage().hash_kv(0).unwrap(), expected);
        assert_eq!(store.storage().hash_kv(4).unwrap(), expected);
        drop_all(&store);
    }
}

#[test]
fn hash_kv_below_the_compact_revision_is_refused() {
    let mut store = Store::new();
    store.run_all([put("a", "1"), put("a", "2"), put("a", "3")]);
    assert_eq!(store.storage().hash_kv(2).unwrap().compact_revision, -1);
    store.run(compact(3));
    let error = store.storage().hash_kv(2).unwrap_err();
    let StorageError::Compacted { requested, compacted } = error else { panic!("{error}") };
    assert_eq!((requested, compacted), (Revision(2), Revision(3)));
    let found = store.storage().hash_kv(3).unwrap();
    assert_eq!((found.compact_revision, found.hash_revision), (3, 3));
    let error = store.storage().hash_kv(5).unwrap_err();
    let StorageError::FutureRevision { requested, current } = error else { panic!("{error}") };
    assert_eq!((requested, current), (Revision(5), Revision(4)));
}

/// Members drop at their own pace: what can be asked for is the same.
#[test]
fn nothing_that_can_be_read_depends_on_how_far_compaction_has_come() {
    let mut store = Store::new();
    for round in 0..30 {
        store.run_all([put("a", &round.to_string()), put(&format!("k{}", round % 4), "v")]);
        if round % 3 == 2 {
            store.run(delete("k", b"k2"));
        }
    }
    store.storage().checkpoint().unwrap();
    let newest = store.storage().revision().as_i64();
    // At a put, and at a delete.
    for edge in [40, 63] {
        store.run(compact(edge));
        let said = |store: &Store| {
            let reads: Vec<_> = (edge..=newest)
                .map(|revision| {
                    let storage = store.storage();
                    (storage.range(&all(revision)).unwrap(), storage.hash_kv(revision).unwrap())
                })
                .collect();
            let first = Revision(edge.cast_unsigned()).into();
            let request = EventsRequest { first, prev_kv: true, ..EventsRequest::default() };
            (reads, store.storage().events(&request).unwrap(), store.storage().hash().unwrap())
        };
        let before = said(&store);
        drop_all(&store);
        assert!(said(&store) == before, "compacted at {edge}");
        store.restart(false).unwrap();
        assert!(said(&store) == before, "compacted at {edge}");
    }
}

/// Or what each step may need would add up until no disk has room for it.
#[test]
fn a_long_run_of_steps_is_made_durable_on_the_way() {
    let config = StorageConfig { checkpoint_bytes: 1 << 20, ..common::config() };
    let mut store = Store::with(MemoryFileSystem::new(), config).unwrap();
    for round in 0..90 {
        store.run_all(
            (0..1_000).map(|number| put(&format!("k{number}"), &format!("{round}"))).collect::<Vec<_>>(),
        );
    }
    let revision = store.storage().revision().as_i64();
    store.run(compact(revision));
    store.storage().checkpoint().unwrap();
    let before = store.fs.calls(CallKind::Sync);
    let mut steps = 0;
    while store.storage().drop_compacted().unwrap() {
        steps += 1;
    }
    assert!(2 < steps && before < store.fs.calls(CallKind::Sync), "{steps} steps without a durable one");
}
