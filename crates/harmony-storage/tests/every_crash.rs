//! The power goes at every call that changes the disk, all through a life of applies, checkpoints, compaction, rebuilds, snapshots out
//! and in, releases and restarts: what opens again is the state behind some entry, none that was said to be durable is
//! missing, and it is what a replay of the log into an empty tree gives.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use std::collections::BTreeSet;

use common::compare::check_all;
use common::life::{Contents, Life, config};
use common::{Store, WAL_DIR};
use harmony_types::fake::fs::{CallKind, Change, Crash, Fault, MemoryFileSystem};
use harmony_types::fake::seed::{Seed, SeededRng};
use harmony_types::{LogIndex, Storage};

/// What a power loss may leave: nothing that was not synced, all of it, each prefix of the changes up to some of the last
/// ones, the one behind it torn (anywhere in the log, between two sectors in the tree), and two drawn images.
fn crashes(disk: &MemoryFileSystem, rng: &mut SeededRng) -> Vec<Crash> {
    let mut crashes = vec![Crash::LoseUnsynced, Crash::KeepAll];
    crashes.extend((0..2).map(|_| Crash::Seeded(Seed(rng.below(u64::MAX)))));
    let unsynced = disk.unsynced();
    let first = unsynced.len().saturating_sub(4);
    for (whole, change) in unsynced.iter().enumerate().skip(first) {
        let torn_bytes = match change {
            Change::Write { path, bytes, .. } if path.starts_with(WAL_DIR) => rng.index(0..bytes.len()),
            // The tree counts on whole sectors, at which all its writes begin.
            Change::Write { bytes, .. } => rng.index(0..bytes.len().div_ceil(512)) * 512,
            _ => 0,
        };
        crashes.push(Crash::Prefix { whole, torn_bytes });
    }
    crashes
}

/// Opens what a crash left, and compares it. Returns the last entry applied.
fn check_image(life: &Life, image: MemoryFileSystem, acknowledged: LogIndex, what: &str) -> LogIndex {
    let store = Store::with(image, config()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let storage = store.storage();
    let applied = storage.applied().index;
    assert!(acknowledged <= applied, "{what}: {acknowledged} was durable, {applied} is there");
    let committed = storage.hard_state().commit.min(storage.bounds().last);
    assert!(committed <= applied, "{what}: {committed} is committed, {applied} applied");
    assert!(storage.durable_applied() <= applied, "{what}");
    let expected = life.state(applied);
    assert_eq!(storage.applied_hash(), expected.contents.applied_hash, "{what}");
    // Memory over tree first; what follows folds it.
    check_all(&store, &expected.model);
    assert!(Contents::of(&store).unwrap() == expected.contents, "{what}: another state at {applied}");
    applied
}

/// The power goes at the n-th call for all n; `each` gets what is left.
fn at_every_call(life: &Life, mut each: impl FnMut(u64, &MemoryFileSystem, LogIndex)) -> u64 {
    for n in 1.. {
        let disk = MemoryFileSystem::new();
        disk.inject(Fault::on(CallKind::CHANGING).nth(n).lasting());
        let lived = life.live(&disk);
        each(n, &disk, lived.acknowledged);
        // The last calls may come when it is dropped.
        if disk.faults_struck() == 0 {
            assert!(lived.failed.is_none());
            return n;
        }
    }
    unreachable!("a life ends")
}

fn check_life(seed: u64) {
    let seed = Seed::from_env().unwrap_or(Seed(seed));
    let _guard = seed.guard();
    let life = Life::new(seed, 45);
    let mut applied = BTreeSet::new();
    let calls = at_every_call(&life, |n, disk, acknowledged| {
        let rng = &mut Seed(seed.0 ^ n << 32).rng();
        for crash in crashes(disk, rng) {
            let what = format!("power lost at call {n}, {crash:?}");
            applied.insert(check_image(&life, disk.crash_image(crash), acknowledged, &what));
        }
    });
    // The test must not lose its subject.
    assert!(100 < calls && 15 < applied.len(), "{calls} calls, {} states", applied.len());
}

#[test]
fn a_crash_at_any_call_leaves_the_state_behind_some_entry_1() {
    check_life(1);
}

#[test]
fn a_crash_at_any_call_leaves_the_state_behind_some_entry_2() {
    check_life(2);
}

/// The power goes a second time, while what the first crash left is being opened.
fn check_life_opened_in_vain(seed: u64) {
    let seed = Seed::from_env().unwrap_or(Seed(seed));
    let _guard = seed.guard();
    let life = Life::new(seed, 30);
    let mut opened = 0;
    at_every_call(&life, |n, disk, acknowledged| {
        // Each call of opening, behind each fifth call of the life: that takes long enough.
        if n % 5 != 0 {
            return;
        }
        let rng = &mut Seed(seed.0 ^ n << 32).rng();
        let first = Crash::Seeded(Seed(rng.below(u64::MAX)));
        for m in 1.. {
            let again = disk.crash_image(first);
            again.inject(Fault::on(CallKind::CHANGING).nth(m).lasting());
            drop(Store::with(again.clone(), config()));
            for second in [Crash::LoseUnsynced, Crash::KeepAll, Crash::Seeded(Seed(rng.below(u64::MAX)))] {
                let what = format!("power lost at call {n}, {first:?}, and at {m} of opening, {second:?}");
                check_image(&life, again.crash_image(second), acknowledged, &what);
            }
            opened += 1;
            if again.faults_struck() == 0 {
                break;
            }
        }
    });
    assert!(100 < opened, "{opened} openings");
}

#[test]
fn a_crash_while_opening_what_a_crash_left_changes_nothing_1() {
    check_life_opened_in_vain(1);
}
