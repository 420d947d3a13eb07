//! Random commands against a plain model of etcd's semantics: outcomes, reads at every revision, hashes; through restarts
//! and snapshots.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use common::generate::{Generate, switch_auth_on};
use common::model::Model;
use common::{Store, TREE_DIR};
use harmony_storage::{StorageConfig, StorageError};
use harmony_types::fake::fs::{Crash, MemoryFileSystem};
use harmony_types::fake::seed::{Seed, SeededRng, for_each_seed};
use harmony_types::txn::{Put, Range, RangeOutcome, Txn, TxnOp, TxnOpKind};
use harmony_types::{Command, CommandKind, LeaseId, Outcome, OutcomeKind, Refusal, Rng, Storage};

/// What storage's error means to a client.
fn refusal(error: StorageError) -> Refusal {
    match error {
        StorageError::Compacted { .. } => Refusal::Compacted,
        StorageError::FutureRevision { .. } => Refusal::FutureRevision,
        error => panic!("{error}"),
    }
}

fn read(store: &Store, request: &Range) -> Result<RangeOutcome, Refusal> {
    store.storage().range(request).map(|found| found.outcome).map_err(refusal)
}

/// Everything at every revision that can be read, and the hashes.
fn check_all(store: &Store, model: &Model) {
    let storage = store.storage();
    assert_eq!(storage.revision().as_i64(), model.revision);
    assert_eq!(storage.compact_revision().as_i64(), model.compact);
    for revision in 0..=model.revision + 1 {
        let request = Range { key: "\0".into(), range_end: vec![0].into(), revision, ..Range::default() };
        assert_eq!(read(store, &request), model.range(&request), "the state at {revision}");
    }
    for revision in model.compact.max(1)..=model.revision {
        let found = storage.hash_kv(revision).unwrap();
        assert_eq!(
            found.hash,
            model.hash_kv(revision),
            "HashKV at {revision}, compacted at {}",
            model.compact
        );
    }
    assert_eq!(storage.hash_kv(0).unwrap().hash_revision, model.revision);
    check_rest(store, model);
}

/// Every lease with its keys, every alarm, every user and role.
fn check_rest(store: &Store, model: &Model) {
    let storage = store.storage();
    let alarms = storage.alarms();
    let alarms = alarms.iter().map(|alarm| (alarm.alarm, alarm.member));
    assert_eq!(alarms.collect::<Vec<_>>(), model.alarms.iter().copied().collect::<Vec<_>>());
    model.auth.check(&storage.auth());
    assert_eq!(storage.leases().unwrap(), model.leases.values().copied().collect::<Vec<_>>());
    for id in 1..=5 {
        let expected = model.leases.get(&id).map(|lease| (*lease, model.leased(id)));
        assert_eq!(storage.lease_with_keys(LeaseId(id)).unwrap(), expected);
    }
}

/// The same state by way of a snapshot.
fn check_snapshot(store: &Store) {
    let snapshot = store.storage().create_snapshot().unwrap();
    let copy = Store::with(MemoryFileSystem::new(), store.config.clone()).unwrap();
    copy.storage().save_snapshot(snapshot).unwrap();
    assert_eq!(copy.storage().hash().unwrap(), store.storage().hash().unwrap());
    assert_eq!(copy.storage().hash_kv(0).unwrap(), store.storage().hash_kv(0).unwrap());
    assert_eq!(copy.storage().applied_hash(), store.storage().applied_hash());
    assert_eq!(copy.storage().applied(), store.storage().applied());
}

fn check_reads(store: &Store, model: &Model, rng: &mut SeededRng) {
    for _ in 0..8 {
        let request = Generate { rng, revision: model.revision, auth_revision: 1 }.range();
        assert_eq!(read(store, &request), model.range(&request), "{request:?}");
    }
    let request = Generate { rng, revision: model.revision, auth_revision: 1 }.read_txn();
    let mut copy = model.clone();
    // Alarms stop what goes through the log only.
    copy.alarms.clear();
    copy.auth.enabled = false;
    let expected = match copy.apply(&CommandKind::Txn(request.clone()).into()).kind {
        Some(OutcomeKind::Refused(number)) => Err(Refusal::try_from(number).unwrap()),
        kind => Ok(kind),
    };
    let found = store.storage().read_txn(&request).map(|outcome| outcome.kind).map_err(refusal);
    assert_eq!(found, expected, "{request:?}");
}

/// What a member may go through between two requests: its state is the same behind it.
fn disturb(store: &mut Store, rng: &mut SeededRng) {
    match rng.below(24) {
        0..=3 => store.restart(rng.chance(1, 2)).unwrap(),
        4 => store.lose_power(Crash::LoseUnsynced).unwrap(),
        5..=6 => store.lose_power(Crash::Seeded(Seed(rng.next_u64()))).unwrap(),
        7 if store.storage().applied().index.0 != 0 => store.move_by_snapshot(),
        8 => {
            store.storage().checkpoint().unwrap();
            store.storage().release(store.storage().applied().index).unwrap();
        }
        9 => {
            store.storage().drop_compacted().unwrap();
        }
        10 => {
            store.storage().rebuild().unwrap().unwrap();
        }
        _ => {}
    }
}

/// Outcomes by their number: 0 for what was done, else the refusal.
type Seen = RefCell<BTreeMap<i32, u64>>;

/// What the fixed seeds are bound to meet; the rest is rarer, and has tests of its own.
const COMMON: [Refusal; 13] = [
    Refusal::KeyNotFound,
    Refusal::LeaseNotFound,
    Refusal::Compacted,
    Refusal::NoSpace,
    Refusal::Invalid,
    Refusal::Corrupt,
    Refusal::RootUserMissing,
    Refusal::UserExists,
    Refusal::UserNotFound,
    Refusal::RoleNotFound,
    Refusal::UserNameEmpty,
    Refusal::PermissionDenied,
    Refusal::AuthRevisionOld,
];

fn count(seen: &Seen, outcome: &Outcome) {
    let number = match outcome.kind {
        Some(OutcomeKind::Refused(refusal)) => refusal,
        _ => 0,
    };
    *seen.borrow_mut().entry(number).or_default() += 1;
}

#[test]
fn random_commands_do_what_the_model_does() {
    // HARMONY_MODEL_SEEDS: how many, for a long run.
    let seeds = std::env::var("HARMONY_MODEL_SEEDS").map_or(20, |seeds| seeds.parse().unwrap());
    let seen = Seen::default();
    for_each_seed(0..seeds, 10, |_, rng| {
        // Small checkpoints, so that restarts find all mixtures of tree and log.
        let checkpoint_bytes = 1 + rng.below(2_000);
        let config = StorageConfig { checkpoint_bytes, ..common::config() };
        let mut store = Store::with(MemoryFileSystem::new(), config).unwrap();
        let mut model = Model::new();
        // The same entries, one by one, on a member that nothing happens to.
        let mut calm = Store::new();
        if rng.chance(1, 2) {
            for command in switch_auth_on() {
                assert_eq!(store.run(command.clone()), model.apply(&command));
                calm.run(command);
            }
        }
        for _ in 0..12 {
            let batch = 1 + rng.below(6);
            let (revision, auth_revision) = (model.revision, model.auth.revision);
            let commands: Vec<Command> =
                (0..batch).map(|_| Generate { rng, revision, auth_revision }.command()).collect();
            let outcomes = store.run_all(commands.clone());
            for (command, outcome) in commands.iter().zip(outcomes) {
                assert_eq!(outcome, model.apply(command), "{command:?}");
                count(&seen, &outcome);
                calm.run(command.clone());
            }
            assert_eq!(store.storage().applied_hash(), calm.storage().applied_hash());
            check_reads(&store, &model, rng);
            check_rest(&store, &model);
            disturb(&mut store, rng);
            assert_eq!(store.storage().applied_hash(), calm.storage().applied_hash());
        }
        check_all(&store, &model);
        let hash = store.storage().hash().unwrap();
        store.restart(false).unwrap();
        assert_eq!(store.storage().hash().unwrap(), hash, "after a restart");
        while store.storage().drop_compacted().unwrap() {}
        assert_eq!(store.storage().hash().unwrap(), hash, "after compaction's work is done");
        check_all(&store, &model);
        check_snapshot(&store);
        store.storage().close().unwrap();
        store.stop();
        harmony_storage::check(&store.fs, Path::new(TREE_DIR)).unwrap();
    });
    let seen = seen.into_inner();
    // A seed alone, replayed, cannot meet all of them.
    if std::env::var_os("HARMONY_SEED").is_none() && 20 <= seeds {
        for refusal in COMMON {
            assert!(seen.contains_key(&refusal.into()), "{refusal:?} never happened: {seen:?}");
        }
    }
}

#[test]
fn a_put_is_refused_for_its_lease_first_and_in_a_transaction_for_its_key() {
    let mut store = Store::new();
    let put = Put { key: "no such key".into(), lease: 1, ignore_value: true, ..Put::default() };
    let outcome = store.run(CommandKind::Put(put.clone()));
    assert_eq!(outcome, Outcome::refused(1, Refusal::LeaseNotFound));
    let op = TxnOp { kind: Some(TxnOpKind::Put(put)) };
    let outcome = store.run(CommandKind::Txn(Txn { success: vec![op], ..Txn::default() }));
    assert_eq!(outcome, Outcome::refused(1, Refusal::KeyNotFound));
}
