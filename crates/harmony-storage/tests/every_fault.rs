//! Every call of a life fails once: with `EIO`, with `ENOSPC`, with a write cut short. The storage says so with an error and
//! does not panic; whoever goes on all the same is told more errors or the truth; and what opens again, at once or behind a
//! power loss, has all that was said to be durable.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use std::collections::BTreeMap;

use common::compare::check_all;
use common::life::{Contents, Life, config};
use common::{Store, WAL_DIR};
use harmony_storage::StorageError;
use harmony_types::fake::fs::{CallKind, Crash, EIO, ENOSPC, Fault, MemoryFileSystem};
use harmony_types::fake::seed::Seed;
use harmony_types::{LogIndex, Storage};

/// An error that a caller can act on; never one that takes a failed call for damage of what is on the disk.
fn check_error(error: &StorageError, what: &str) {
    let known = matches!(
        error,
        StorageError::Io { .. }
            | StorageError::Wal(_)
            | StorageError::Tree { .. }
            | StorageError::DiskFull { .. }
            | StorageError::Closed
    );
    assert!(known, "{what}: {error:?}");
}

fn check_reopened(life: &Life, disk: &MemoryFileSystem, acknowledged: LogIndex, what: &str) {
    let store = Store::with(disk.clone(), config()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let applied = store.storage().applied().index;
    assert!(acknowledged <= applied, "{what}: {acknowledged} was durable, {applied} is there");
    let expected = life.state(applied);
    check_all(&store, &expected.model);
    assert!(Contents::of(&store).unwrap() == expected.contents, "{what}: another state at {applied}");
}

/// Lives on `disk`, and takes the steps behind a failed one, too. Returns what was said to be durable, and how many steps
/// failed.
fn live_on(life: &Life, disk: &MemoryFileSystem, what: &str) -> (LogIndex, u64) {
    let mut acknowledged = LogIndex(0);
    let mut failed = 0;
    let mut store = loop {
        match Store::with(disk.clone(), config()) {
            Ok(store) => break store,
            Err(error) => {
                check_error(&error, what);
                failed += 1;
                if failed == 2 {
                    // The fault lasts.
                    return (acknowledged, failed);
                }
            }
        }
    };
    for step in &life.steps {
        let Err(error) = life.step(&mut store, *step, &mut acknowledged) else { continue };
        check_error(&error, what);
        failed += 1;
        if !store.is_open() {
            // Only opening failed: nothing is to be had from it.
            break;
        }
        // What it answers is what it has applied, whatever it could not write.
        let applied = store.storage().applied().index;
        let expected = life.state(applied);
        assert_eq!(store.storage().applied_hash(), expected.contents.applied_hash, "{what}");
        match Contents::of(&store) {
            Ok(contents) => assert!(contents == expected.contents, "{what}: another state at {applied}"),
            Err(error) => check_error(&error, what),
        }
        // An entry that may not be in the log must not be followed by the next one.
        break;
    }
    // As somebody does who does not look at errors.
    for _ in 0..2 {
        if store.is_open() {
            let _ = store.storage().checkpoint();
            let _ = store.storage().drop_compacted();
            let _ = store.storage().release(store.storage().durable_applied());
        }
    }
    (acknowledged, failed)
}

fn check_life(seed: u64, faults: &[(&str, &dyn Fn(u64) -> Fault)]) {
    let seed = Seed::from_env().unwrap_or(Seed(seed));
    let _guard = seed.guard();
    let life = Life::new(seed, 40);
    let mut outcomes = BTreeMap::new();
    for (name, fault) in faults {
        for n in 1.. {
            let disk = MemoryFileSystem::new();
            disk.inject(fault(n));
            let what = format!("call {n} fails, {name}");
            let (acknowledged, failed) = live_on(&life, &disk, &what);
            let struck = disk.faults_struck();
            for crash in [Crash::LoseUnsynced, Crash::KeepAll, Crash::Seeded(Seed(seed.0 ^ n << 32))] {
                let what = format!("{what}, then {crash:?}");
                check_reopened(&life, &disk.crash_image(crash), acknowledged, &what);
            }
            if struck == 0 {
                assert_eq!(failed, 0, "{what}");
                break;
            }
            *outcomes.entry((*name, failed != 0)).or_insert(0) += 1;
        }
    }
    let told = outcomes.iter().filter(|((_, told), _)| *told).map(|(_, count)| *count).sum::<u64>();
    assert!(100 < told, "{outcomes:?}: the test lost its subject");
}

#[test]
fn a_call_that_fails_once_with_an_io_error_loses_nothing() {
    check_life(1, &[("EIO", &|n| Fault::on(CallKind::ALL).nth(n))]);
}

#[test]
fn a_full_disk_at_any_call_loses_nothing() {
    let grows = [CallKind::Open, CallKind::Write, CallKind::SetLen, CallKind::Allocate, CallKind::CreateDir];
    check_life(
        2,
        &[
            ("ENOSPC once", &|n| Fault::on(grows).nth(n).errno(ENOSPC)),
            ("ENOSPC from then on", &|n| Fault::on(grows).nth(n).errno(ENOSPC).lasting()),
        ],
    );
}

#[test]
fn a_write_cut_short_loses_nothing() {
    check_life(
        3,
        &[
            // The tree counts on whole sectors.
            ("within a sector", &|n| Fault::on([CallKind::Write]).on_path(WAL_DIR).nth(n).short_write(100)),
            ("a sector", &|n| Fault::on([CallKind::Write]).nth(n).short_write(512).errno(ENOSPC)),
            ("all but a byte", &|n| Fault::on([CallKind::Write]).nth(n).short_write(4_095).errno(EIO)),
        ],
    );
}

#[test]
fn a_failed_sync_loses_nothing() {
    check_life(
        4,
        &[
            ("once", &|n| Fault::on([CallKind::Sync, CallKind::SyncDir]).nth(n)),
            ("from then on", &|n| Fault::on([CallKind::Sync, CallKind::SyncDir]).nth(n).lasting()),
        ],
    );
}
