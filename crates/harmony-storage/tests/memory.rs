//! Writes that are not in the tree yet: they are read as if they were, whatever a checkpoint does beside them, and a failed
//! apply leaves none.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use common::{Store, put};
use harmony_storage::{EventsRequest, StorageConfig};
use harmony_types::fake::fs::{CallKind, MemoryFileSystem};
use harmony_types::txn::{Put, Range, Txn, TxnOp, TxnOpKind};
use harmony_types::{CommandKind, Storage, StorageError};

/// Rows of the pair's range: more than are read under the lock.
const FILL: usize = 3_000;

fn all(limit: i64) -> Range {
    Range { key: "\0".into(), range_end: vec![0].into(), limit, ..Range::default() }
}

/// Writes the first and the last key of the store, with the same value.
fn pair(value: &str) -> CommandKind {
    let op = |key: &'static str| {
        let put = Put { key: key.into(), value: Bytes::copy_from_slice(value.as_bytes()), ..Put::default() };
        TxnOp { kind: Some(TxnOpKind::Put(put)) }
    };
    CommandKind::Txn(Txn { success: vec![op("a"), op("z")], ..Txn::default() })
}

#[test]
fn a_failed_apply_leaves_nothing_and_can_be_repeated() {
    let mut store = Store::new();
    store.run_all([put("kept", "1"), put("changed", "1")]);
    let hash = store.storage().hash().unwrap();
    store.run_all([put("changed", "2")]);
    let (before, applied) = (store.storage().range(&all(0)).unwrap(), store.storage().applied());

    let mut entries =
        vec![store.entry(put("changed", "3")), store.entry(pair("x")), store.entry(put("a", "y"))];
    let whole = entries[2].data.clone();
    entries[2].data = Bytes::from_static(b"\xff\xff");
    let error = store.storage().apply(&entries).unwrap_err();
    assert!(matches!(error, StorageError::CorruptRecord { .. }), "{error}");
    assert_eq!(store.storage().range(&all(0)).unwrap(), before);
    assert_eq!(store.storage().applied(), applied);

    entries[2].data = whole;
    let outcomes = store.storage().apply(&entries).unwrap();
    assert_eq!(outcomes[0].revision, before.revision.as_i64() + 1, "no revision was lost");
    let found = store.storage().get(b"a").unwrap().unwrap();
    assert_eq!((&found.value[..], found.version), (&b"y"[..], 2));
    assert_eq!(store.storage().get(b"changed").unwrap().unwrap().version, 3);
    // All of it goes into the tree as any other writes.
    assert_ne!(store.storage().hash().unwrap(), hash);
}

#[test]
fn reads_see_whole_revisions_while_checkpoints_run() {
    let mut store = Store::new();
    store.run_all((0..FILL).map(|row| put(&format!("k{row:05}"), "v")));
    store.run_all([pair("0")]);
    let batches: Vec<_> = (1..1_000).map(|round| vec![store.entry(pair(&round.to_string()))]).collect();
    let done = AtomicBool::new(false);
    let storage = store.storage();
    let running = || !done.load(Ordering::Acquire);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while running() {
                storage.checkpoint().unwrap();
            }
        });
        scope.spawn(|| {
            let mut newest = 0;
            while running() {
                // Too long for the lock: at a view that stands still.
                let found = storage.range(&all(0)).unwrap();
                assert_eq!(found.outcome.kvs.len(), FILL + 2);
                let (first, last) = (&found.outcome.kvs[0], &found.outcome.kvs[FILL + 1]);
                assert_eq!((&first.value, first.mod_revision), (&last.value, found.revision.as_i64()));
                assert!(newest <= found.revision.0, "revisions go forward");
                newest = found.revision.0;
            }
        });
        scope.spawn(|| {
            let mut before = 0;
            while running() {
                let found = storage.get(b"a").unwrap().unwrap();
                assert!(before <= found.mod_revision, "revisions go forward");
                before = found.mod_revision;
                // As it was one write of the pair earlier, from memory or tree.
                let old = Range { key: "z".into(), revision: before - 1, ..Range::default() };
                let old = storage.range(&old).unwrap().outcome;
                assert!(old.kvs.first().is_none_or(|kv| kv.mod_revision == before - 1));
            }
        });
        for entries in &batches {
            storage.save(None, entries).unwrap();
            storage.apply(entries).unwrap();
        }
        done.store(true, Ordering::Release);
    });
    assert_eq!(&storage.get(b"z").unwrap().unwrap().value[..], b"999");
    storage.checkpoint().unwrap();
    assert_eq!(storage.durable_applied(), storage.applied().index);
    assert_eq!(&storage.get(b"z").unwrap().unwrap().value[..], b"999");
}

/// A store with a cold cache and so many keys that a look into the tree reads from the disk; `hot` is in memory.
fn cold() -> Store {
    let mut store = Store::new();
    store.run_all((0..FILL).map(|row| put(&format!("k{row:05}"), "v")));
    store.storage().checkpoint().unwrap();
    store.restart(false).unwrap();
    store.run(put("hot", "1"));
    store
}

#[test]
fn a_get_that_waits_for_the_disk_keeps_no_apply_waiting() {
    let mut store = cold();
    let entries = [store.entry(put("hot", "2"))];
    let hold = store.fs.hold([CallKind::Read]);
    let storage = store.storage();
    std::thread::scope(|scope| {
        let get = scope.spawn(|| storage.get(b"k01000").unwrap().unwrap());
        let range = scope.spawn(|| {
            let request = Range { key: "k02000".into(), ..Range::default() };
            storage.range(&request).unwrap().outcome.kvs.remove(0)
        });
        hold.wait_for(1);
        storage.apply(&entries).unwrap();
        assert_eq!(storage.get(b"hot").unwrap().unwrap().value, "2");
        drop(hold);
        assert_eq!(get.join().unwrap().value, "v");
        assert_eq!(range.join().unwrap().value, "v");
    });
}

#[test]
fn an_apply_that_waits_for_the_disk_keeps_no_get_waiting() {
    let mut store = cold();
    let entries = [store.entry(put("hot", "2")), store.entry(put("k01000", "2"))];
    let hold = store.fs.hold([CallKind::Read]);
    let storage = store.storage();
    std::thread::scope(|scope| {
        let apply = scope.spawn(|| storage.apply(&entries).unwrap());
        hold.wait_for(1);
        assert_eq!(storage.get(b"hot").unwrap().unwrap().value, "1");
        drop(hold);
        apply.join().unwrap();
        assert_eq!(storage.get(b"hot").unwrap().unwrap().value, "2");
        assert_eq!(storage.get(b"k01000").unwrap().unwrap().version, 2);
    });
}

/// Puts of 1,000 B, each in an apply of its own, of which two dozen fill a memory.
fn fill(store: &mut Store, puts: std::ops::Range<usize>) {
    for number in puts {
        store.run(put(&format!("f{number:03}"), &"v".repeat(1_000)));
    }
}

fn small() -> Store {
    let config = StorageConfig { checkpoint_bytes: 24_000, ..common::config() };
    Store::with(MemoryFileSystem::new(), config).unwrap()
}

#[test]
fn a_full_memory_is_left_to_the_next_checkpoint_and_a_second_one_is_not() {
    let mut store = small();
    let before = store.storage().durable_applied();
    fill(&mut store, 0..40);
    assert_eq!(store.storage().durable_applied(), before);
    fill(&mut store, 40..60);
    assert!(before < store.storage().durable_applied());

    let mut store = small();
    fill(&mut store, 0..40);
    assert_eq!(store.storage().checkpoint().unwrap(), store.storage().applied().index, "both of them");
    assert_eq!(store.storage().durable_applied(), store.storage().applied().index);
    store.restart(false).unwrap();
    assert_eq!(store.storage().get(b"f039").unwrap().unwrap().value.len(), 1_000);
}

#[test]
fn an_apply_that_waited_for_a_checkpoint_makes_none_of_its_own() {
    let mut store = small();
    fill(&mut store, 0..10);
    let applied = store.storage().applied().index;
    let batches: Vec<_> =
        (10..40).map(|number| vec![store.entry(put(&format!("f{number:03}"), &"v".repeat(1_000)))]).collect();
    for entries in &batches {
        store.storage().save(None, entries).unwrap();
    }
    let hold = store.fs.hold([CallKind::Sync]);
    let storage = store.storage();
    std::thread::scope(|scope| {
        let checkpoint = scope.spawn(|| storage.checkpoint().unwrap());
        hold.wait_for(1);
        // More than the memory beside the checkpoint takes.
        let apply = scope.spawn(|| {
            for entries in &batches {
                storage.apply(entries).unwrap();
            }
        });
        drop(hold);
        assert_eq!(checkpoint.join().unwrap(), applied);
        apply.join().unwrap();
    });
    assert_eq!(storage.durable_applied(), applied);
    assert_eq!(storage.get(b"f039").unwrap().unwrap().value.len(), 1_000);
}

#[test]
fn a_watch_that_reads_what_was_replaced_keeps_no_apply_waiting() {
    let mut store = Store::new();
    let old = "v".repeat(1_000);
    store.run_all((0..FILL).map(|row| put(&format!("k{row:05}"), &old)));
    store.storage().checkpoint().unwrap();
    store.restart(false).unwrap();
    store.run(put("hot", "1"));
    store.run(put("k00000", "2"));
    let first = store.storage().revision().into();
    // Other pages take the place of that one in the cache.
    for row in FILL / 3..FILL {
        store.storage().get(format!("k{row:05}").as_bytes()).unwrap().unwrap();
    }
    let entries = [store.entry(put("hot", "2"))];
    let hold = store.fs.hold([CallKind::Read]);
    let storage = store.storage();
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let request = EventsRequest { first, prev_kv: true, ..EventsRequest::default() };
            storage.events(&request).unwrap().events
        });
        hold.wait_for(1);
        storage.apply(&entries).unwrap();
        drop(hold);
        let events = watch.join().unwrap();
        assert_eq!(events[0].prev_kv.as_ref().unwrap().value, old);
        assert_eq!(events[0].kv.as_ref().unwrap().value, "2");
    });
}
