//! The background verification: it finds damage that no read would meet for a long time, and never takes anything else for
//! damage.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use std::path::Path;

use common::generate::Generate;
use common::{Store, TREE_DIR, put};
use harmony_storage::{StorageConfig, StorageError, Verification, check};
use harmony_types::Storage;
use harmony_types::fake::fs::{CallKind, Crash, MemoryFileSystem};
use harmony_types::fake::seed::{Seed, for_each_seed};

const TREE: &str = "/data/tree/tree.redb";
const PAGE: u64 = 4096;

/// Steps to the end of the pass that is under way.
fn end_pass(store: &Store) -> Verification {
    let passes = store.storage().verification().passes;
    for _ in 0..10_000 {
        let seen = store.storage().verify_step(3).unwrap();
        if seen.passes != passes {
            assert_eq!(seen.passes, passes + 1);
            assert_eq!(store.storage().verification(), seen);
            return seen;
        }
    }
    panic!("a pass does not end");
}

/// Everything in the tree, and all of it in memory as well.
fn store() -> Store {
    let mut store = Store::new();
    store.run_all((0..100).map(|number| put(&format!("key {number}"), &format!("the value {number}"))));
    store.storage().checkpoint().unwrap();
    store.storage().hash().unwrap();
    store
}

#[test]
fn a_pass_reads_the_whole_tree_in_steps_and_changes_nothing() {
    let store = store();
    let before = store.fs.read_file(TREE).unwrap();
    let reads = store.fs.calls(CallKind::Read);
    assert_eq!(store.storage().verification(), Verification::default());
    let mut steps = Vec::new();
    loop {
        let seen = store.storage().verify_step(4).unwrap();
        if seen.passes != 0 {
            break;
        }
        steps.push(seen.pages);
    }
    assert!(2 <= steps.len() && steps.is_sorted(), "{steps:?}");
    assert!(10 < store.fs.calls(CallKind::Read) - reads, "the disk is read, not the cache");
    assert_eq!(end_pass(&store), Verification { passes: 2, pages: 0, damage: None });
    assert_eq!(store.fs.read_file(TREE).unwrap(), before, "looking changes nothing");
}

#[test]
fn damage_on_the_disk_is_found_while_memory_still_serves() {
    let store = store();
    let file = store.fs.read_file(TREE).unwrap();
    let value = b"the value 42";
    let places: Vec<usize> =
        (0..file.len() - value.len()).filter(|at| file[*at..].starts_with(value)).collect();
    assert!(2 <= places.len(), "the value stands in latest and in log");
    for place in places {
        store.fs.flip(TREE, place as u64, 0x10).unwrap();
        let damage = end_pass(&store).damage.unwrap();
        let page = format!("at byte {}: ", place as u64 / PAGE * PAGE);
        assert!(damage.starts_with("/data/tree/tree.redb: page ") && damage.contains(&page), "{damage}");
        assert_eq!(store.storage().get(b"key 42").unwrap().unwrap().value, "the value 42");
        store.fs.flip(TREE, place as u64, 0x10).unwrap();
        assert_eq!(end_pass(&store).damage, None, "it is good again");
    }
}

#[test]
fn every_page_of_the_tables_is_read() {
    let mut store = store();
    let file = store.fs.read_file(TREE).unwrap();
    let mut found = 0;
    for offset in (0..file.len() as u64).step_by(4096) {
        store.fs.flip(TREE, offset + 9, 1).unwrap();
        found += u64::from(end_pass(&store).damage.is_some());
        store.fs.flip(TREE, offset + 9, 1).unwrap();
    }
    store.stop();
    let used = check(&store.fs, Path::new(TREE_DIR)).unwrap().used_pages;
    // redb's own tables, as that of free pages, are read when it opens.
    assert!(6 < found && used - 6 <= found && found <= used, "{found} of {used}");
}

#[test]
fn nothing_else_is_taken_for_damage() {
    for_each_seed(0..12, 10, |_, rng| {
        let config = StorageConfig { checkpoint_bytes: 1 + rng.below(2_000), ..common::config() };
        let mut store = Store::with(MemoryFileSystem::new(), config).unwrap();
        for _ in 0..40 {
            let revision = store.storage().revision().as_i64();
            let auth_revision = store.storage().auth().revision;
            let command = Generate { rng, revision, auth_revision }.command();
            store.run(command);
            match rng.below(12) {
                0 => store.restart(rng.chance(1, 2)).unwrap(),
                1 => store.lose_power(Crash::Seeded(Seed(rng.below(u64::MAX)))).unwrap(),
                2 if store.storage().applied().index.0 != 0 => store.move_by_snapshot(),
                3 => drop(store.storage().checkpoint().unwrap()),
                _ => {}
            }
            let seen = store.storage().verify_step(1 + rng.below(8)).unwrap();
            assert_eq!(seen.damage, None);
        }
        assert_eq!(end_pass(&store).damage, None);
    });
}

#[test]
fn after_close_it_is_refused() {
    let store = store();
    store.storage().close().unwrap();
    assert!(matches!(store.storage().verify_step(1), Err(StorageError::Closed)));
}
