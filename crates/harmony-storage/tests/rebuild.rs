//! A tree that is written anew while everything goes on: the same state in a dense file, and the old file whenever it fails.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use common::generate::{Generate, switch_auth_on};
use common::{Store, TREE_DIR, put};
use harmony_storage::{AppliedHash, RebuildStep, StorageConfig, StorageError, UnifiedStorage};
use harmony_types::alarm::AlarmChange;
use harmony_types::auth::{AuthChangeKind, User};
use harmony_types::command::Compact;
use harmony_types::fake::fs::{CallKind, Crash, EIO, ENOSPC, Fault, MemoryFileSystem};
use harmony_types::fake::seed::{Seed, SeededRng, for_each_seed};
use harmony_types::lease::{LeaseGrant, LeaseRevoke};
use harmony_types::txn::{DeleteRange, Put, Range};
use harmony_types::{
    Alarm, AlarmType, Command, CommandKind, Entry, EntryType, HardState, LogIndex, Membership, NodeId,
    Storage, Term,
};

const TREE: &str = "/data/tree/tree.redb";
const TREE_NEW: &str = "/data/tree/tree.redb.new";

/// Steps of a few rows.
const STEP_BYTES: usize = 1_500;

fn config() -> StorageConfig {
    StorageConfig { checkpoint_bytes: 20_000, ..common::config() }
}

fn compact(revision: i64) -> CommandKind {
    CommandKind::Compact(Compact { revision })
}

/// All that a client can see, at every revision, and the hashes.
fn assert_same(found: &UnifiedStorage, expected: &UnifiedStorage) {
    assert_eq!(found.applied_hash(), expected.applied_hash());
    assert_eq!(found.applied(), expected.applied());
    assert_eq!(found.membership(), expected.membership());
    assert_eq!(found.alarms(), expected.alarms());
    assert_eq!(found.auth(), expected.auth());
    assert_eq!(found.leases().unwrap(), expected.leases().unwrap());
    for lease in expected.leases().unwrap() {
        let keys = |storage: &UnifiedStorage| storage.lease_with_keys(lease.id).unwrap();
        assert_eq!(keys(found), keys(expected));
    }
    assert_eq!(found.revision(), expected.revision());
    assert_eq!(found.compact_revision(), expected.compact_revision());
    let first = found.compact_revision().as_i64().max(1);
    for revision in first..=found.revision().as_i64() {
        let all = Range { key: "\0".into(), range_end: vec![0].into(), revision, ..Range::default() };
        assert_eq!(
            found.range(&all).unwrap().outcome,
            expected.range(&all).unwrap().outcome,
            "at {revision}"
        );
        assert_eq!(found.hash_kv(revision).unwrap(), expected.hash_kv(revision).unwrap(), "at {revision}");
    }
    assert_eq!(found.hash().unwrap(), expected.hash().unwrap());
}

/// The tables agree with each other and with the counts in them.
fn check_file(store: &mut Store) {
    store.storage().close().unwrap();
    store.stop();
    harmony_storage::check(&store.fs, Path::new(TREE_DIR)).unwrap();
    store.restart(false).unwrap();
}

/// What goes on between two steps.
fn disturb(store: &Store, rng: &mut SeededRng) {
    match rng.below(8) {
        0 => drop(store.storage().checkpoint().unwrap()),
        1 => drop(store.storage().drop_compacted().unwrap()),
        // A reader that freezes what is in memory.
        2 => drop(store.storage().read_txn(&harmony_types::txn::Txn::default()).unwrap()),
        3 => drop(store.storage().hash().unwrap()),
        _ => {}
    }
}

/// Runs random commands on both.
fn run_random(storages: [&UnifiedStorage; 2], rng: &mut SeededRng) {
    let [storage, _] = storages;
    let (revision, auth_revision) = (storage.revision().as_i64(), storage.auth().revision);
    let mut next = storage.applied().index;
    let mut entry = || {
        next = next.next();
        let command = Generate { rng: &mut *rng, revision, auth_revision }.command();
        let data = command.encode_to_bytes();
        Entry { term: Term(1), index: next, entry_type: EntryType::Normal, data }
    };
    let entries = vec![entry(), entry()];
    for storage in storages {
        let hard_state = HardState { term: Term(1), vote: None, commit: entries[1].index };
        storage.save(Some(&hard_state), &entries).unwrap();
        storage.sync().unwrap();
        storage.apply(&entries).unwrap();
    }
}

#[test]
fn a_tree_rebuilt_under_random_commands_says_the_same() {
    let most_steps = Cell::new(0);
    for_each_seed(0..40, 10, |_, rng| {
        let config = StorageConfig { checkpoint_bytes: 1 + rng.below(3_000), ..common::config() };
        let mut store = Store::with(MemoryFileSystem::new(), config.clone()).unwrap();
        let mut calm = Store::with(MemoryFileSystem::new(), config).unwrap();
        if rng.chance(1, 2) {
            store.run_all(switch_auth_on());
            calm.run_all(switch_auth_on());
        }
        let both = [store.storage(), calm.storage()];
        for _ in 0..30 {
            run_random(both, rng);
            disturb(&store, rng);
        }
        let step_bytes = *rng.pick(&[1, 60, 300, 2_000]);
        let mut rebuild = store.storage().start_rebuild().unwrap();
        let mut steps = 0;
        while rebuild.step(step_bytes).unwrap() == RebuildStep::More {
            steps += 1;
            if rng.chance(1, 3) && steps < 500 {
                run_random(both, rng);
            }
            disturb(&store, rng);
            assert_eq!(store.storage().applied_hash(), calm.storage().applied_hash());
        }
        drop(rebuild);
        most_steps.set(steps.max(most_steps.get()));
        assert_same(store.storage(), calm.storage());
        run_random(both, rng);
        assert_same(store.storage(), calm.storage());
        store.restart(rng.chance(1, 2)).unwrap();
        assert_same(store.storage(), calm.storage());
        while store.storage().drop_compacted().unwrap() {}
        assert_same(store.storage(), calm.storage());
        check_file(&mut store);
    });
    if std::env::var_os("HARMONY_SEED").is_none() {
        assert!(100 < most_steps.get(), "no rebuild had many rounds: {} steps", most_steps.get());
    }
}

/// Members, leases with keys, users, alarms, a history, and compactions.
fn commands() -> Vec<CommandKind> {
    let mut commands = Vec::new();
    for number in 0..24 {
        let lease = number / 4 + 1;
        match number % 4 {
            0 => commands.push(CommandKind::LeaseGrant(LeaseGrant { id: lease, ttl: 60 })),
            3 => commands.push(CommandKind::LeaseRevoke(LeaseRevoke { id: lease - 1 })),
            _ => {
                let key = Bytes::from(format!("leased{number}"));
                commands.push(CommandKind::Put(Put { key, lease, value: "v".into(), ..Put::default() }));
            }
        }
        if number % 5 == 1 {
            let user = User { name: format!("u{number}"), no_password: true, ..User::default() };
            commands.push(CommandKind::Auth(AuthChangeKind::UserAdd(user).into()));
            let alarm = Alarm::new(AlarmType::NoSpace, 7);
            commands.push(CommandKind::Alarm(AlarmChange::activate(alarm)));
            commands.push(CommandKind::Alarm(AlarmChange::deactivate(alarm)));
        }
        commands.push(put(&format!("k{}", number % 5), &"v".repeat(usize::try_from(number).unwrap() * 40)));
        if number % 6 == 5 {
            let key = Bytes::from(format!("k{}", number % 5));
            commands.push(CommandKind::DeleteRange(DeleteRange { key, ..DeleteRange::default() }));
            commands.push(compact(number));
        }
    }
    commands
}

fn members() -> Membership {
    let voters = BTreeSet::from([NodeId::new(7).unwrap()]);
    Membership { voters, ..Membership::default() }
}

/// Runs one command, durably.
fn write(storage: &UnifiedStorage, command: CommandKind) -> Result<(), StorageError> {
    let index = storage.applied().index.next();
    let data = Command::from(command).encode_to_bytes();
    let entry = Entry { term: Term(1), index, entry_type: EntryType::Normal, data };
    let hard_state = HardState { term: Term(1), vote: None, commit: index };
    storage.save(Some(&hard_state), std::slice::from_ref(&entry))?;
    storage.sync()?;
    storage.apply(&[entry]).map(drop)
}

const OLD_KEYS: i64 = 30;

/// A disk with a store whose file has gaps.
fn disk() -> MemoryFileSystem {
    let mut store = Store::with(MemoryFileSystem::new(), config()).unwrap();
    store.storage().bootstrap(&members()).unwrap();
    for round in 0..4 {
        store.run_all((0..OLD_KEYS).map(|key| put(&format!("old{key}"), &round.to_string().repeat(300))));
        store.storage().checkpoint().unwrap();
    }
    store.run(compact(3 * OLD_KEYS));
    while store.storage().drop_compacted().unwrap() {}
    store.storage().checkpoint().unwrap();
    store.fs.crash_image(Crash::KeepAll)
}

/// Rebuilds the tree while the commands run; the last entry that was acknowledged as durable is left in `acknowledged`.
fn rebuild_and_write(storage: &UnifiedStorage, acknowledged: &mut LogIndex) -> Result<(), StorageError> {
    let mut commands = commands().into_iter();
    let mut rebuild = storage.start_rebuild()?;
    // Half of them meanwhile.
    let mut meanwhile = commands.by_ref().take(20);
    while rebuild.step(STEP_BYTES)? == RebuildStep::More {
        if let Some(command) = meanwhile.next() {
            write(storage, command)?;
            *acknowledged = storage.applied().index;
        }
    }
    for command in commands {
        write(storage, command)?;
        *acknowledged = storage.applied().index;
    }
    storage.checkpoint().map(drop)
}

/// The state's hashes by applied index, on a disk that never fails.
fn expected(disk: &MemoryFileSystem) -> BTreeMap<LogIndex, (u32, AppliedHash)> {
    let store = Store::with(disk.crash_image(Crash::KeepAll), config()).unwrap();
    let storage = store.storage();
    let mut hashes = BTreeMap::from([(storage.applied().index, hashes_of(storage))]);
    for command in commands() {
        write(storage, command).unwrap();
        hashes.insert(storage.applied().index, hashes_of(storage));
    }
    hashes
}

fn hashes_of(storage: &UnifiedStorage) -> (u32, AppliedHash) {
    (storage.hash().unwrap(), storage.applied_hash())
}

#[test]
fn a_crash_at_any_call_leaves_the_old_file_or_the_new_one() {
    let disk = disk();
    let expected = expected(&disk);
    let bytes_before = disk.read_file(TREE).unwrap().len();
    let mut seen = [0; 2];
    for n in 1.. {
        let disk = disk.crash_image(Crash::KeepAll);
        let store = Store::with(disk.clone(), config()).unwrap();
        let mut acknowledged = store.storage().applied().index;
        disk.inject(Fault::on(CallKind::CHANGING).nth(n).lasting());
        let is_done = rebuild_and_write(store.storage(), &mut acknowledged).is_ok();
        for crash in [Crash::LoseUnsynced, Crash::KeepAll, Crash::Seeded(Seed(n))] {
            let image = disk.crash_image(crash);
            let bytes = image.read_file(TREE).unwrap().len();
            seen[usize::from(bytes < bytes_before)] += 1;
            let mut store = Store::with(image, config())
                .unwrap_or_else(|error| panic!("power lost at call {n}, {crash:?}: {error}"));
            let storage = store.storage();
            assert!(acknowledged <= storage.applied().index, "call {n}, {crash:?}");
            assert_eq!(hashes_of(storage), expected[&storage.applied().index], "call {n}, {crash:?}");
            assert_eq!(storage.membership(), members());
            assert_eq!(store.fs.read_file(TREE_NEW), None, "call {n}, {crash:?}");
            if crash == Crash::LoseUnsynced {
                check_file(&mut store);
            }
        }
        if is_done {
            assert!(100 < n, "only {n} calls changed the disk: the test lost its subject");
            break;
        }
    }
    assert!(seen.iter().all(|count| 20 <= *count), "both files must occur: {seen:?}");
}

#[test]
fn any_call_on_the_new_file_that_fails_leaves_the_old_one_in_use() {
    let disk = disk();
    let expected = expected(&disk);
    for n in 1.. {
        let disk = disk.crash_image(Crash::KeepAll);
        let mut store = Store::with(disk.clone(), config()).unwrap();
        let storage = store.storage();
        let errno = if n % 2 == 0 { EIO } else { ENOSPC };
        disk.inject(Fault::on(CallKind::ALL).nth(n).errno(errno).on_path(TREE_NEW));
        let mut acknowledged = LogIndex(0);
        let error = rebuild_and_write(storage, &mut acknowledged).err();
        if disk.faults_struck() == 0 {
            assert!(30 < n && error.is_none(), "only {n} calls, {error:?}");
            break;
        }
        disk.clear_faults();
        match &error {
            Some(StorageError::Io { .. } | StorageError::Tree { .. }) => {
                let told = format!("{error:?}");
                assert!(told.contains("tree.redb"), "call {n}: {told}");
                assert_eq!(store.fs.read_file(TREE_NEW), None, "call {n}: {error:?}");
            }
            // A best-effort write of redb's, which it repeats.
            None => {}
            error => panic!("call {n}: {error:?}"),
        }
        assert_eq!(hashes_of(storage), expected[&storage.applied().index], "call {n}");
        // Everything goes on, and the next one succeeds.
        write(storage, put("later", "1")).unwrap();
        storage.checkpoint().unwrap();
        storage.rebuild().unwrap().unwrap();
        let hash = storage.hash().unwrap();
        store.restart(false).unwrap();
        assert_eq!(store.storage().hash().unwrap(), hash, "call {n}");
        check_file(&mut store);
    }
}

#[test]
fn any_single_call_that_fails_loses_nothing() {
    let disk = disk();
    let expected = expected(&disk);
    for n in 1.. {
        let disk = disk.crash_image(Crash::KeepAll);
        let mut store = Store::with(disk.clone(), config()).unwrap();
        disk.inject(Fault::on(CallKind::ALL).nth(n));
        let mut acknowledged = store.storage().applied().index;
        let is_done = rebuild_and_write(store.storage(), &mut acknowledged).is_ok();
        let is_over = disk.faults_struck() == 0;
        disk.clear_faults();
        // Reads go on, or say what they met.
        if let Ok(hash) = store.storage().hash() {
            assert_eq!(hash, expected[&store.storage().applied().index].0, "call {n}");
        }
        if n % 2 == 0 {
            store.lose_power(Crash::Seeded(Seed(n))).unwrap_or_else(|error| panic!("call {n}: {error}"));
        } else {
            store.restart(false).unwrap_or_else(|error| panic!("call {n}: {error}"));
        }
        let applied = store.storage().applied().index;
        assert!(acknowledged <= applied, "call {n}");
        assert_eq!(hashes_of(store.storage()), expected[&applied], "call {n}");
        check_file(&mut store);
        if is_over {
            assert!(is_done, "no call failed");
            break;
        }
    }
}

#[test]
fn nothing_is_written_to_a_file_that_may_have_lost_its_name() {
    let store = Store::with(disk(), config()).unwrap();
    let storage = store.storage();
    let hash = storage.hash().unwrap();
    store.fs.inject(Fault::on([CallKind::SyncDir]).on_path(TREE_DIR));
    let error = storage.rebuild().unwrap_err().to_string();
    assert!(error.starts_with("sync /data/tree: "), "{error}");
    // Reads and the log go on; a checkpoint must not acknowledge anything.
    write(storage, put("later", "1")).unwrap();
    assert_eq!(storage.get(b"later").unwrap().unwrap().value, "1");
    let durable = storage.durable_applied();
    let error = storage.checkpoint().unwrap_err();
    assert!(format!("{error:?}").contains("given up"), "{error:?}");
    assert_eq!(storage.durable_applied(), durable);
    for crash in [Crash::LoseUnsynced, Crash::KeepAll] {
        let copy = Store::with(store.fs.crash_image(crash), config()).unwrap();
        assert_eq!(copy.storage().get(b"later").unwrap().unwrap().value, "1");
        write(
            copy.storage(),
            CommandKind::DeleteRange(DeleteRange { key: "later".into(), ..DeleteRange::default() }),
        )
        .unwrap();
        assert_ne!(copy.storage().hash().unwrap(), hash, "the history has grown");
    }
}

#[test]
fn the_file_is_as_long_as_what_it_holds() {
    let mut store = Store::new();
    for _ in 0..4 {
        store.run_all((0..2_000).map(|key| put(&format!("key{key}"), &"v".repeat(300))));
        store.storage().checkpoint().unwrap();
    }
    store.run(compact(8_000));
    while store.storage().drop_compacted().unwrap() {}
    let storage = store.storage();
    let hash = storage.hash().unwrap();
    let live = storage.live_bytes();
    let rebuilt = storage.rebuild().unwrap().unwrap();
    assert!(2 * live < rebuilt.bytes_before, "{rebuilt:?} for {live} bytes: the test lost its subject");
    assert_eq!(rebuilt.bytes_after, storage.disk_bytes().unwrap());
    // 12 rows of 12.5 fit into a page; tables and checksums of redb's and ours.
    assert!(rebuilt.bytes_after < live * 5 / 4, "{rebuilt:?} for {live} bytes");
    assert_eq!(storage.hash().unwrap(), hash);
    check_file(&mut store);
    assert_eq!(store.storage().hash().unwrap(), hash);
}

#[test]
fn readers_of_the_old_file_go_on() {
    let store = Store::with(disk(), config()).unwrap();
    let storage = store.storage();
    let hash = storage.hash().unwrap();
    let snapshot = storage.create_snapshot().unwrap();
    write(storage, put("later", "1")).unwrap();
    storage.rebuild().unwrap().unwrap();
    write(storage, put("later", "2")).unwrap();
    storage.checkpoint().unwrap();
    let copy = Store::new();
    copy.storage().save_snapshot(snapshot).unwrap();
    assert_eq!(copy.storage().hash().unwrap(), hash);
    assert_eq!(storage.get(b"later").unwrap().unwrap().value, "2");
}

#[test]
fn a_damaged_page_ends_the_rebuild_and_nothing_else() {
    let mut found = 0;
    let disk = disk();
    let file = disk.read_file(TREE).unwrap();
    for page in (3..file.len() / 4_096).step_by(2) {
        let store = Store::with(disk.crash_image(Crash::KeepAll), config()).unwrap();
        let storage = store.storage();
        // What is needed from here on is in the cache.
        let hash = storage.hash().unwrap();
        write(storage, put("later", "1")).unwrap();
        storage.checkpoint().unwrap();
        store.fs.flip(TREE, page as u64 * 4_096 + 2_000, 0x10).unwrap();
        match storage.rebuild() {
            Ok(rebuilt) => assert!(rebuilt.is_some()),
            Err(StorageError::CrcMismatch { place, .. }) => {
                assert!(place.starts_with("/data/tree/tree.redb: page "), "{place}");
                assert_eq!(store.fs.read_file(TREE_NEW), None);
                found += 1;
            }
            Err(error) => panic!("page {page}: {error}"),
        }
        write(storage, put("later", "2")).unwrap();
        storage.checkpoint().unwrap();
        assert_eq!(storage.get(b"later").unwrap().unwrap().value, "2");
        assert_ne!(storage.hash().unwrap(), hash);
    }
    assert!(3 < found, "{found} damaged pages were met");
}

#[test]
fn one_rebuild_at_a_time_and_none_behind_a_close() {
    let mut store = Store::with(disk(), config()).unwrap();
    let storage = store.storage();
    let hash = storage.hash().unwrap();
    let mut rebuild = storage.start_rebuild().unwrap();
    assert_eq!(rebuild.step(STEP_BYTES).unwrap(), RebuildStep::More);
    let refused = storage.rebuild().unwrap_err();
    let StorageError::Io { source, .. } = &refused else { panic!("{refused}") };
    assert_eq!(source.kind(), ErrorKind::ResourceBusy, "{refused}");
    // Dropped half way, it leaves nothing behind.
    drop(rebuild);
    assert_eq!(store.fs.read_file(TREE_NEW), None);
    let mut rebuild = storage.start_rebuild().unwrap();
    assert_eq!(rebuild.step(STEP_BYTES).unwrap(), RebuildStep::More);
    assert!(store.fs.read_file(TREE_NEW).is_some());
    storage.close().unwrap();
    assert_eq!(store.fs.read_file(TREE_NEW), None);
    assert!(matches!(rebuild.step(STEP_BYTES), Err(StorageError::Closed)));
    assert!(matches!(storage.rebuild(), Err(StorageError::Closed)));
    drop(rebuild);
    store.restart(false).unwrap();
    assert_eq!(store.storage().hash().unwrap(), hash);
}

#[test]
fn a_snapshot_that_comes_in_takes_the_place_of_a_rebuild() {
    let mut source = Store::with(disk(), config()).unwrap();
    source.run_all(commands());
    let hash = source.storage().hash().unwrap();
    let mut store = Store::new();
    store.run_all((0..50).map(|key| put(&format!("gone{key}"), "1")));
    let storage = store.storage();
    let mut rebuild = storage.start_rebuild().unwrap();
    assert_eq!(rebuild.step(STEP_BYTES).unwrap(), RebuildStep::More);
    // One that is refused leaves it alone.
    let mut old = source.storage().create_snapshot().unwrap();
    old.meta.index = LogIndex(1);
    storage.save_snapshot(old).unwrap_err();
    assert_eq!(rebuild.step(STEP_BYTES).unwrap(), RebuildStep::More);
    let snapshot = source.storage().create_snapshot().unwrap();
    storage.save_snapshot(snapshot).unwrap();
    assert_eq!(rebuild.step(STEP_BYTES).unwrap(), RebuildStep::Superseded);
    drop(rebuild);
    assert_eq!(store.fs.read_file(TREE_NEW), None);
    assert_eq!(storage.hash().unwrap(), hash);
    storage.rebuild().unwrap().unwrap();
    assert_eq!(storage.hash().unwrap(), hash);
    check_file(&mut store);
    assert_eq!(store.storage().hash().unwrap(), hash);
}

#[test]
fn compaction_waits_for_what_the_next_round_reads() {
    let mut store = Store::with(disk(), config()).unwrap();
    let storage = store.storage();
    let mut rebuild = storage.start_rebuild().unwrap();
    for number in 0..50 {
        write(storage, put(&format!("k{}", number % 7), "new")).unwrap();
    }
    write(storage, CommandKind::DeleteRange(DeleteRange { key: "k3".into(), ..DeleteRange::default() }))
        .unwrap();
    write(storage, put("last", "1")).unwrap();
    write(storage, compact(storage.revision().as_i64())).unwrap();
    while storage.drop_compacted().unwrap() {}
    while rebuild.step(STEP_BYTES).unwrap() == RebuildStep::More {}
    drop(rebuild);
    assert_eq!(storage.get(b"k3").unwrap(), None);
    assert_eq!(storage.get(b"k4").unwrap().unwrap().version, 7);
    // Dropped, it drops the rest.
    let (hash, before) = (storage.hash().unwrap(), storage.live_bytes());
    while storage.drop_compacted().unwrap() {}
    assert!(storage.live_bytes() <= before);
    assert_eq!(storage.hash().unwrap(), hash);
    check_file(&mut store);
    assert_eq!(store.storage().hash().unwrap(), hash);
}

#[test]
fn apply_and_reads_do_not_wait_for_a_rebuild_whose_disk_hangs() {
    let store = Store::with(disk(), common::config()).unwrap();
    let storage = store.storage();
    let next = storage.applied().index.next();
    let data = Command::from(put("later", "1")).encode_to_bytes();
    let entry = Entry { term: Term(1), index: next, entry_type: EntryType::Normal, data };
    // Saved and synced before the disk hangs.
    storage.save(None, std::slice::from_ref(&entry)).unwrap();
    storage.sync().unwrap();
    let hold = store.fs.hold([CallKind::Rename]);
    std::thread::scope(|scope| {
        scope.spawn(|| storage.rebuild().unwrap().unwrap());
        hold.wait_for(1);
        // The last step: it has the right to commit.
        storage.apply(&[entry]).unwrap();
        assert_eq!(storage.get(b"later").unwrap().unwrap().value, "1");
        let all = Range { key: "\0".into(), range_end: vec![0].into(), ..Range::default() };
        assert_eq!(storage.range(&all).unwrap().outcome.count, OLD_KEYS + 1);
        drop(hold);
    });
    assert_eq!(storage.get(b"later").unwrap().unwrap().value, "1");
    storage.checkpoint().unwrap();
}

#[test]
fn everything_goes_on_in_other_threads() {
    let mut store = Store::with(disk(), config()).unwrap();
    let storage = store.storage();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                storage.checkpoint().unwrap();
            }
        });
        scope.spawn(|| {
            let mut before = 0;
            while !done.load(Ordering::Acquire) {
                let all = Range { key: "\0".into(), range_end: vec![0].into(), ..Range::default() };
                let found = storage.range(&all).unwrap();
                let newest = found.outcome.kvs.iter().map(|kv| kv.mod_revision).max().unwrap();
                assert_eq!(newest, found.revision.as_i64(), "every revision leaves its key");
                assert!(before <= newest);
                before = newest;
            }
        });
        scope.spawn(|| {
            for _ in 0..20 {
                storage.rebuild().unwrap().unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let mut number = 0;
        while !done.load(Ordering::Acquire) {
            number += 1;
            write(storage, put(&format!("k{}", number % 17), &number.to_string())).unwrap();
        }
    });
    let hash = storage.hash().unwrap();
    store.restart(false).unwrap();
    assert_eq!(store.storage().hash().unwrap(), hash);
    check_file(&mut store);
}
