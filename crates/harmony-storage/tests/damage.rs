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

#[test]
fn a_flipped_byte_in_a_value_is_never_handed_out() {
    let mut store = store();
    let file = store.fs.read_file(TREE).unwrap();
    let places = places(&file, VALUE.as_bytes());
    assert!(2 <= places.len(), "the value stands in latest and in log");
    let (mut found_by_get, mut found_by_hash) = (0, 0);
    for place in places {
        for byte in 0..VALUE.len() {
            store.fs.flip(TREE, (place + byte) as u64, 0x01).unwrap();
            store.restart(false).unwrap();
            match store.storage().get(b"key") {
                Ok(found) => assert_eq!(found.unwrap().value, VALUE),
                Err(StorageError::CrcMismatch { place, .. }) => {
                    assert_eq!(place, "table latest, key \"key\"");
                    found_by_get += 1;
                }
                Err(error) => panic!("{error}"),
            }
            match store.storage().hash() {
                Ok(_) => {}
                Err(StorageError::CrcMismatch { .. }) => found_by_hash += 1,
                Err(error) => panic!("{error}"),
            }
            store.stop();
            store.fs.overwrite(TREE, 0, &file).unwrap();
        }
    }
    assert_eq!(found_by_get, VALUE.len(), "each byte of the row in latest");
    assert_eq!(found_by_hash, 2 * VALUE.len(), "each byte in latest and in log");
}

#[test]
fn a_list_over_a_damaged_row_fails_and_its_neighbours_are_served() {
    let mut store = store();
    let file = store.fs.read_file(TREE).unwrap();
    for place in places(&file, VALUE.as_bytes()) {
        store.fs.flip(TREE, place as u64, 0x80).unwrap();
    }
    store.restart(false).unwrap();
    let all = Range { key: "k".into(), range_end: "l".into(), ..Range::default() };
    assert!(matches!(store.storage().range(&all), Err(StorageError::CrcMismatch { .. })));
    let count = Range { count_only: true, ..all.clone() };
    assert!(matches!(store.storage().range(&count), Err(StorageError::CrcMismatch { .. })));
    let before = Range { key: "k".into(), range_end: "key".into(), ..Range::default() };
    assert_eq!(store.storage().range(&before).unwrap().outcome.count, 20);
    let snapshot = store.storage().create_snapshot().unwrap();
    let copy = Store::new();
    assert!(copy.storage().save_snapshot(snapshot).is_err(), "damage does not travel");
    assert_eq!(copy.fs.read_file(Path::new("/data/tree/tree.redb.new")), None);
}
