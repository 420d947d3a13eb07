//! Random commands against a plain model of etcd's semantics: outcomes, reads at every revision, hashes; through restarts
//! and snapshots.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use common::compare::{check_all, check_rest, read, refusal};
use common::generate::{Generate, grant_leases, switch_auth_on};
use common::model::Model;
use common::{Store, TREE_DIR};
use harmony_storage::StorageConfig;
use harmony_types::fake::fs::{Crash, MemoryFileSystem};
use harmony_types::fake::seed::{Seed, SeededRng, for_each_seed};
use harmony_types::txn::{Put, Txn, TxnOp, TxnOpKind};
use harmony_types::{Command, CommandKind, Outcome, OutcomeKind, Refusal, Rng, Storage};

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

/// Sequences of each part; the parts run side by side.
const SEQUENCES: u64 = 2_500;

fn check_part(part: u64) {
    // HARMONY_MODEL_SEEDS: how many instead, for a long run.
    let seeds = std::env::var("HARMONY_MODEL_SEEDS").map_or(SEQUENCES, |seeds| seeds.parse().unwrap());
    let seen = Seen::default();
    for_each_seed(part * seeds..(part + 1) * seeds, 10, |_, rng| check_sequence(rng, &seen));
    let seen = seen.into_inner();
    // A seed alone, replayed, cannot meet all of them.
    if std::env::var_os("HARMONY_SEED").is_none() && 20 <= seeds {
        for refusal in COMMON {
            assert!(seen.contains_key(&refusal.into()), "{refusal:?} never happened: {seen:?}");
        }
    }
}

/// Twelve batches of one to six commands, each outcome compared; behind each batch some reads, all that is no key, and often
/// a restart, a power loss, a move by snapshot, a checkpoint or a compaction. At the end everything at every revision. What
/// needs a second store is drawn: in one of four sequences the same entries go to a member that nothing happens to, in
/// another one of four the state goes to a new member as a snapshot.
fn check_sequence(rng: &mut SeededRng, seen: &Seen) {
    // Small checkpoints, so that restarts find all mixtures of tree and log.
    let checkpoint_bytes = 1 + rng.below(2_000);
    let mut config = StorageConfig { checkpoint_bytes, ..common::config() };
    config.wal.segment_bytes = 8 << 10;
    let mut store = Store::with(MemoryFileSystem::new(), config).unwrap();
    let mut model = Model::new();
    let mut calm = rng.chance(1, 4).then(Store::new);
    let is_as_calm = |store: &Store, calm: &Option<Store>| {
        let Some(calm) = calm else { return };
        assert_eq!(store.storage().applied_hash(), calm.storage().applied_hash());
    };
    for first in [grant_leases(), switch_auth_on()] {
        let commands = if rng.chance(1, 2) { first } else { continue };
        let outcomes = store.run_all(commands.clone());
        assert!(commands.iter().map(|command| model.apply(command)).eq(outcomes));
        calm.iter_mut().for_each(|calm| drop(calm.run_all(commands.clone())));
    }
    for _ in 0..12 {
        let batch = 1 + rng.below(6);
        let (revision, auth_revision) = (model.revision, model.auth.revision);
        let commands: Vec<Command> =
            (0..batch).map(|_| Generate { rng, revision, auth_revision }.command()).collect();
        let outcomes = store.run_all(commands.clone());
        for (command, outcome) in commands.into_iter().zip(outcomes) {
            assert_eq!(outcome, model.apply(&command), "{command:?}");
            count(seen, &outcome);
            calm.iter_mut().for_each(|calm| drop(calm.run(command.clone())));
        }
        is_as_calm(&store, &calm);
        check_reads(&store, &model, rng);
        check_rest(&store, &model);
        disturb(&mut store, rng);
        is_as_calm(&store, &calm);
    }
    if rng.chance(1, 2) {
        // While some of it is in memory.
        check_all(&store, &model);
    }
    let hash = store.storage().hash().unwrap();
    if let Some(calm) = calm {
        assert_eq!(calm.storage().hash().unwrap(), hash, "all that members have in common");
    }
    check_end(store, &model, hash, rng);
}

fn check_end(mut store: Store, model: &Model, hash: u32, rng: &mut SeededRng) {
    store.restart(false).unwrap();
    assert_eq!(store.storage().hash().unwrap(), hash, "after a restart");
    while store.storage().drop_compacted().unwrap() {}
    assert_eq!(store.storage().hash().unwrap(), hash, "after compaction's work is done");
    check_all(&store, model);
    if rng.chance(1, 4) {
        check_snapshot(&store);
    }
    store.storage().close().unwrap();
    store.stop();
    harmony_storage::check(&store.fs, Path::new(TREE_DIR)).unwrap();
}

#[test]
fn random_commands_do_what_the_model_does_1() {
    check_part(0);
}

#[test]
fn random_commands_do_what_the_model_does_2() {
    check_part(1);
}

#[test]
fn random_commands_do_what_the_model_does_3() {
    check_part(2);
}

#[test]
fn random_commands_do_what_the_model_does_4() {
    check_part(3);
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
