//! The power goes out at every call that changes the disk: after reopening, the state is that of the log's committed
//! entries, or of the snapshot, and nothing in between.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{Store, put};
use harmony_storage::{AppliedHash, StorageConfig, StorageError};
use harmony_types::alarm::AlarmChange;
use harmony_types::auth::{AuthChangeKind, User};
use harmony_types::command::Compact;
use harmony_types::fake::fs::{CallKind, Crash, Fault, MemoryFileSystem};
use harmony_types::fake::seed::Seed;
use harmony_types::lease::{LeaseGrant, LeaseRevoke};
use harmony_types::txn::Put;
use harmony_types::{Alarm, AlarmType, CommandKind, LogIndex, Snapshot, SnapshotData, SnapshotMeta, Storage};

fn config() -> StorageConfig {
    let mut config = StorageConfig { checkpoint_bytes: 3_000, ..common::config() };
    config.wal.segment_bytes = 8 << 10;
    config
}

/// Keys with a history, some of them leased, compactions and revokes, alarms and users.
fn commands() -> Vec<CommandKind> {
    let mut commands = Vec::new();
    for number in 0..12 {
        let lease = i64::try_from(number / 4).unwrap() + 1;
        match number % 4 {
            0 => commands.push(CommandKind::LeaseGrant(LeaseGrant { id: lease, ttl: 60 })),
            3 => commands.push(CommandKind::LeaseRevoke(LeaseRevoke { id: lease - 1 })),
            _ => {
                let key = Bytes::from(format!("leased{}", number % 3));
                commands.push(CommandKind::Put(Put { key, lease, ..Put::default() }));
            }
        }
        if number % 3 == 1 {
            let alarm = Alarm::new(AlarmType::NoSpace, 7);
            let name = format!("u{}", number % 2);
            let user = User { name: name.clone(), no_password: true, ..User::default() };
            commands.push(CommandKind::Alarm(AlarmChange::activate(alarm)));
            commands.push(CommandKind::Auth(AuthChangeKind::UserDelete(name).into()));
            commands.push(CommandKind::Auth(AuthChangeKind::UserAdd(user).into()));
            commands.push(CommandKind::Alarm(AlarmChange::deactivate(alarm)));
        }
        commands.push(put(&format!("k{}", number % 5), &"v".repeat(number * 100)));
        if number % 5 == 4 {
            commands.push(CommandKind::Compact(Compact { revision: i64::try_from(number).unwrap() }));
        }
    }
    commands
}

/// The state's hashes, whole and rolling, by applied index, on a disk that never fails.
fn expected() -> BTreeMap<LogIndex, (u32, AppliedHash)> {
    let mut store = Store::with(MemoryFileSystem::new(), config()).unwrap();
    let mut hashes = BTreeMap::from([(LogIndex(0), hashes_of(&store))]);
    for command in commands() {
        store.run(command);
        hashes.insert(store.storage().applied().index, hashes_of(&store));
    }
    hashes
}

fn hashes_of(store: &Store) -> (u32, AppliedHash) {
    (store.storage().hash().unwrap(), store.storage().applied_hash())
}

/// Applies the commands one by one until the disk fails; returns the last entry that was acknowledged as durable, and
/// whether the end was reached.
fn apply_all(disk: &MemoryFileSystem) -> (LogIndex, bool) {
    let mut acknowledged = LogIndex(0);
    let mut run = || -> Result<(), StorageError> {
        let mut store = Store::with(disk.clone(), config())?;
        for command in commands() {
            let entry = store.entry(command);
            store.try_save(std::slice::from_ref(&entry))?;
            acknowledged = entry.index;
            store.storage().apply(&[entry])?;
        }
        store.storage().checkpoint()?;
        Ok(())
    };
    let is_done = run().is_ok();
    (acknowledged, is_done)
}

fn crashes(n: u64) -> [Crash; 3] {
    [Crash::LoseUnsynced, Crash::KeepAll, Crash::Seeded(Seed(n))]
}

#[test]
fn the_state_after_a_crash_is_that_of_the_committed_entries() {
    let expected = expected();
    let mut calls = 0;
    for n in 1.. {
        let disk = MemoryFileSystem::new();
        disk.inject(Fault::on(CallKind::CHANGING).nth(n).lasting());
        let (acknowledged, is_done) = apply_all(&disk);
        for crash in crashes(n) {
            let image = disk.crash_image(crash);
            let store = Store::with(image, config())
                .unwrap_or_else(|error| panic!("power lost at call {n}, {crash:?}: {error}"));
            let storage = store.storage();
            assert!(acknowledged <= storage.applied().index, "call {n}, {crash:?}");
            assert_eq!(hashes_of(&store), expected[&storage.applied().index], "call {n}, {crash:?}");
        }
        if is_done {
            calls = n;
            break;
        }
    }
    assert!(50 < calls, "only {calls} calls changed the disk: the test lost its subject");
}

#[test]
fn a_crash_while_a_snapshot_comes_in_leaves_the_old_state_or_the_new() {
    let mut source = Store::with(MemoryFileSystem::new(), config()).unwrap();
    source.run_all(commands());
    let new = source.storage().hash().unwrap();
    let announced = source.storage().create_snapshot().unwrap().meta;
    let mut seen = [0; 2];
    for n in 1.. {
        let disk = MemoryFileSystem::new();
        let mut store = Store::with(disk.clone(), config()).unwrap();
        store.run(put("old", "1"));
        let old = store.storage().hash().unwrap();
        disk.inject(Fault::on(CallKind::CHANGING).nth(n).lasting());
        let is_done = install(&store, &source, &announced).is_ok();
        for crash in crashes(n) {
            let image = disk.crash_image(crash);
            let copy = Store::with(image, config())
                .unwrap_or_else(|error| panic!("power lost at call {n}, {crash:?}: {error}"));
            let hash = copy.storage().hash().unwrap();
            assert!(hash == old || hash == new, "power lost at call {n}, {crash:?}");
            assert!(!is_done || hash == new, "a finished install is durable");
            assert_eq!(copy.storage().bounds().last, copy.storage().applied().index);
            seen[usize::from(hash == new)] += 1;
        }
        if is_done {
            break;
        }
    }
    assert!(seen.iter().all(|count| 3 <= *count), "both outcomes must occur: {seen:?}");
}

fn install(store: &Store, source: &Store, announced: &SnapshotMeta) -> Result<(), StorageError> {
    let data = SnapshotData::Stream(source.storage().create_snapshot()?.data.into_reader());
    store.storage().save_snapshot(Snapshot { meta: announced.clone(), data })
}

/// A process ends at any call; the next one finds what the system still has in memory, finishes its work, releases the
/// log, and then the power goes: nothing may rest on what the first one did not sync.
#[test]
fn a_restart_and_then_a_power_loss_lose_nothing() {
    let expected = expected();
    for n in 1.. {
        let disk = MemoryFileSystem::new();
        disk.inject(Fault::on(CallKind::CHANGING).nth(n).lasting());
        let (mut acknowledged, is_done) = apply_all(&disk);
        disk.clear_faults();
        let mut store =
            Store::with(disk.clone(), config()).unwrap_or_else(|error| panic!("call {n}: {error}"));
        let applied = store.storage().applied().index;
        assert!(acknowledged <= applied, "call {n}");
        store.storage().release(store.storage().durable_applied()).unwrap();
        // Half of the time the next process goes on, and gives up the log behind it. An entry that lost its hard state, as
        // the process ended between the two, is not committed: another takes its place.
        store.next = applied.next();
        let applied_before = usize::try_from(applied.0).unwrap();
        for command in commands().into_iter().skip(if n % 2 == 0 { applied_before } else { usize::MAX }) {
            store.run(command);
            acknowledged = store.storage().applied().index;
            store.storage().release(store.storage().durable_applied()).unwrap();
        }
        for crash in crashes(n) {
            let image = disk.crash_image(crash);
            let copy = Store::with(image, config())
                .unwrap_or_else(|error| panic!("ended at call {n}, then {crash:?}: {error}"));
            let storage = copy.storage();
            assert!(acknowledged <= storage.applied().index, "call {n}, {crash:?}");
            assert_eq!(hashes_of(&store), expected[&storage.applied().index], "call {n}, {crash:?}");
        }
        if is_done {
            break;
        }
    }
}

#[test]
fn a_restart_and_then_a_power_loss_keep_the_snapshot_that_was_found() {
    let mut source = Store::with(MemoryFileSystem::new(), config()).unwrap();
    source.run_all(commands());
    let announced = source.storage().create_snapshot().unwrap().meta;
    for n in 1.. {
        let disk = MemoryFileSystem::new();
        let mut store = Store::with(disk.clone(), config()).unwrap();
        store.run(put("old", "1"));
        disk.inject(Fault::on(CallKind::CHANGING).nth(n).lasting());
        let is_done = install(&store, &source, &announced).is_ok();
        drop(store);
        disk.clear_faults();
        let mut store =
            Store::with(disk.clone(), config()).unwrap_or_else(|error| panic!("call {n}: {error}"));
        store.run(put("new", "1"));
        let (applied, hash) = (store.storage().applied(), store.storage().hash().unwrap());
        for crash in crashes(n) {
            let copy = Store::with(disk.crash_image(crash), config())
                .unwrap_or_else(|error| panic!("ended at call {n}, then {crash:?}: {error}"));
            assert_eq!(copy.storage().applied(), applied, "call {n}, {crash:?}");
            assert_eq!(copy.storage().hash().unwrap(), hash, "call {n}, {crash:?}");
        }
        if is_done {
            break;
        }
    }
}
