//! A disk that changes bytes behind our back: what comes out is the right answer or an error, never wrong data.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use std::path::Path;

use common::{Store, put};
use harmony_storage::StorageError;
use harmony_types::Storage;
use harmony_types::txn::Range;

const TREE: &str = "/data/tree/tree.redb";
const VALUE: &str = "a value that stands nowhere else";

/// A closed store with a value, its history, and neighbours.
fn store() -> Store {
    let mut store = Store::new();
    for number in 0..20 {
        store.run(put(&format!("k{number}"), "neighbour"));
    }
    store.run_all([put("key", VALUE), put("other", "1")]);
    store.storage().close().unwrap();
    store.stop();
    store
}

fn places(file: &[u8], what: &[u8]) -> Vec<usize> {
    (0..file.len() - what.len()).filter(|at| file[*at..].starts_with(what)).collect()
}

/// Everything that a client can ask for.
fn read_all(store: &Store) -> Result<(), StorageError> {
    let storage = store.storage();
    let all = Range { key: "\0".into(), range_end: "\0".into(), ..Range::default() };
    let found = storage.range(&all)?.outcome;
    assert_eq!((found.count, found.kvs.len()), (22, 22));
    assert_eq!(storage.get(b"key")?.expect("the key is there").value, VALUE);
    for number in 0..20 {
        assert_eq!(
            storage.get(format!("k{number}").as_bytes())?.expect("the key is there").value,
            "neighbour"
        );
    }
    for revision in 2..=23 {
        let old = Range { revision, ..all.clone() };
        assert_eq!(storage.range(&old)?.outcome.count, revision - 1);
    }
    storage.hash().map(drop)
}

#[test]
fn a_flipped_byte_is_never_handed_out() {
    let mut store = store();
    let file = store.fs.read_file(TREE).unwrap();
    store.restart(false).unwrap();
    read_all(&store).unwrap();
    let (mut found, mut harmless) = (0, 0);
    let mut places = places(&file, VALUE.as_bytes());
    assert!(2 <= places.len(), "the value stands in latest and in log");
    // Bytes of the value, of keys and structure beside it, and some of every page.
    places = places.iter().flat_map(|at| at - 40..at + VALUE.len()).collect();
    places.extend((0..file.len()).step_by(509));
    for place in places {
        store.stop();
        store.fs.overwrite(TREE, 0, &file).unwrap();
        store.fs.flip(TREE, place as u64, 0x04).unwrap();
        match store.restart(false).and_then(|()| read_all(&store)) {
            Ok(()) => harmless += 1,
            Err(StorageError::CrcMismatch { place, .. }) => {
                assert!(place.starts_with("/data/tree/tree.redb: page "), "{place}");
                found += 1;
            }
            Err(StorageError::CorruptRecord { place: found_at, reason }) if place == 0 => {
                assert!(found_at == TREE && reason.contains("magic number"), "{found_at}: {reason}");
                found += 1;
            }
            Err(error) => panic!("byte {place}: {error}"),
        }
    }
    // What is harmless is in pages that are not used.
    assert!(160 < found && 0 < harmless, "{found} found, {harmless} harmless");
}

#[test]
fn damage_does_not_travel() {
    let mut store = store();
    store.restart(false).unwrap();
    let file = store.fs.read_file(TREE).unwrap();
    for place in places(&file, VALUE.as_bytes()) {
        store.fs.flip(TREE, place as u64, 0x80).unwrap();
    }
    // What the tree has read before is right, and may be served.
    let Ok(snapshot) = store.storage().create_snapshot() else { return };
    let copy = Store::new();
    if copy.storage().save_snapshot(snapshot).is_err() {
        assert_eq!(copy.fs.read_file(Path::new("/data/tree/tree.redb.new")), None);
        return;
    }
    assert_eq!(copy.storage().get(b"key").unwrap().unwrap().value, VALUE);
}

#[test]
fn a_damaged_member_serves_again_with_its_file_back() {
    let mut store = store();
    let file = store.fs.read_file(TREE).unwrap();
    let mut refused = 0;
    for place in places(&file, VALUE.as_bytes()) {
        store.fs.flip(TREE, place as u64, 0x80).unwrap();
        if let Err(error) = store.restart(false).and_then(|()| read_all(&store)) {
            assert!(matches!(error, StorageError::CrcMismatch { .. }), "{error}");
            refused += 1;
        }
        store.stop();
        store.fs.overwrite(TREE, 0, &file).unwrap();
    }
    assert!(2 <= refused, "the value stands in latest and in log");
    store.restart(false).unwrap();
    read_all(&store).unwrap();
}

#[test]
fn a_tree_without_page_checksums_is_refused_with_what_to_do() {
    let mut store = store();
    store.fs.overwrite(TREE, 0, b"redb\x1a\x0a\xa9\x0d\x0a").unwrap();
    let before = store.fs.read_file(TREE);
    let error = store.restart(false).unwrap_err().to_string();
    assert!(error.starts_with("/data/tree/tree.redb: a tree of format 2 or older, "), "{error}");
    assert!(error.contains("start the member on an empty directory"), "{error}");
    assert_eq!(store.fs.read_file(TREE), before, "it was left as it is");
}
