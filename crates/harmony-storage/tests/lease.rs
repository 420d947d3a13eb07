//! Leases: what keys hang on them, how they end, and that they survive what the store survives.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use bytes::Bytes;
use common::{Store, put};
use harmony_types::fake::fs::Crash;
use harmony_types::lease::{LeaseCheckpoint, LeaseGrant, LeaseRemaining, LeaseRevoke};
use harmony_types::txn::{DeleteRange, Put, Range, Txn, TxnOp, TxnOpKind};
use harmony_types::{CommandKind, Lease, LeaseId, Outcome, OutcomeKind, Refusal, Storage, StorageError};

fn grant(id: i64) -> CommandKind {
    CommandKind::LeaseGrant(LeaseGrant { id, ttl: 60 })
}

fn revoke(id: i64) -> CommandKind {
    CommandKind::LeaseRevoke(LeaseRevoke { id })
}

fn leased(key: &str, lease: i64) -> CommandKind {
    let key = Bytes::copy_from_slice(key.as_bytes());
    CommandKind::Put(Put { key, value: "v".into(), lease, ..Put::default() })
}

fn delete(key: &'static str, range_end: &'static str) -> CommandKind {
    let (key, range_end) = (key.into(), range_end.into());
    CommandKind::DeleteRange(DeleteRange { key, range_end, ..DeleteRange::default() })
}

#[track_caller]
fn check_keys(store: &Store, lease: i64, expected: &[&str]) {
    let (_, keys) = store.storage().lease_with_keys(LeaseId(lease)).unwrap().unwrap();
    assert_eq!(keys, expected, "the keys of lease {lease}");
}

#[track_caller]
fn check_refused(store: &mut Store, kind: CommandKind, refusal: Refusal) {
    let revision = store.storage().revision().as_i64();
    let leases = store.storage().leases().unwrap();
    assert_eq!(store.run(kind), Outcome::refused(revision, refusal));
    assert_eq!(store.storage().leases().unwrap(), leases);
}

#[test]
fn a_key_hangs_on_the_lease_of_its_last_put() {
    let mut store = Store::new();
    store.run_all([grant(1), grant(2), leased("b", 1), leased("a", 1), leased("c", 2), put("free", "v")]);
    check_keys(&store, 1, &["a", "b"]);
    check_keys(&store, 2, &["c"]);

    store.run(leased("b", 2));
    check_keys(&store, 1, &["a"]);
    check_keys(&store, 2, &["b", "c"]);

    store.run(leased("c", 0));
    check_keys(&store, 2, &["b"]);

    let keep = Put { key: "b".into(), value: "w".into(), ignore_lease: true, ..Put::default() };
    store.run(CommandKind::Put(keep));
    check_keys(&store, 2, &["b"]);
    assert_eq!(store.storage().get(b"b").unwrap().unwrap().lease, 2);

    store.run(delete("a", "c"));
    check_keys(&store, 1, &[]);
    check_keys(&store, 2, &[]);
}

#[test]
fn a_transaction_moves_keys_between_leases() {
    let mut store = Store::new();
    store.run_all([grant(1), grant(2), leased("a", 1), leased("b", 1)]);
    let op = |kind| match kind {
        CommandKind::Put(put) => TxnOp { kind: Some(TxnOpKind::Put(put)) },
        CommandKind::DeleteRange(delete) => TxnOp { kind: Some(TxnOpKind::DeleteRange(delete)) },
        _ => unreachable!("only writes of keys"),
    };
    let success = vec![op(leased("a", 2)), op(delete("b", "")), op(leased("c", 1))];
    store.run(CommandKind::Txn(Txn { success, ..Txn::default() }));
    check_keys(&store, 1, &["c"]);
    check_keys(&store, 2, &["a"]);

    let success = vec![op(leased("d", 1)), op(leased("e", 3))];
    check_refused(&mut store, CommandKind::Txn(Txn { success, ..Txn::default() }), Refusal::LeaseNotFound);
    check_keys(&store, 1, &["c"]);
}

#[test]
fn a_revoke_deletes_the_keys_in_order_at_one_revision() {
    let mut store = Store::new();
    store.run_all([grant(1), grant(2)]);
    store.run_all(["c", "a", "b"].map(|key| leased(key, 1)));
    store.run_all([leased("other", 2), put("free", "v")]);
    let before = store.storage().revision();
    let outcome = store.run(revoke(1));
    assert_eq!(outcome.revision, before.as_i64() + 1);
    let Some(OutcomeKind::LeaseRevoke(revoked)) = outcome.kind else { panic!("{outcome:?}") };
    assert_eq!(revoked.deleted, 3);
    assert_eq!(store.storage().lease(LeaseId(1)).unwrap(), None);
    check_keys(&store, 2, &["other"]);

    let all = Range { key: "\0".into(), range_end: vec![0].into(), ..Range::default() };
    let left = store.storage().range(&all).unwrap().outcome.kvs;
    assert_eq!(left.iter().map(|kv| &kv.key[..]).collect::<Vec<_>>(), [&b"free"[..], b"other"]);
    let old = Range { revision: before.as_i64(), ..all };
    assert_eq!(store.storage().range(&old).unwrap().outcome.kvs.len(), 5, "the history keeps them");
}

#[test]
fn a_revoke_without_keys_makes_no_revision() {
    let mut store = Store::new();
    store.run_all([grant(1), leased("a", 1), delete("a", "")]);
    let revision = store.storage().revision().as_i64();
    assert_eq!(store.run(revoke(1)).revision, revision);
    assert_eq!(store.storage().leases().unwrap(), []);
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut store = Store::new();
    store.run_all([grant(1), put("a", "v")]);
    check_refused(&mut store, grant(1), Refusal::LeaseExists);
    check_refused(&mut store, grant(0), Refusal::Invalid);
    let forever = CommandKind::LeaseGrant(LeaseGrant { id: 2, ttl: 9_000_000_001 });
    check_refused(&mut store, forever, Refusal::LeaseTtlTooLarge);
    check_refused(&mut store, revoke(2), Refusal::LeaseNotFound);
    check_refused(&mut store, leased("a", 2), Refusal::LeaseNotFound);
    store.run(revoke(1));
    check_refused(&mut store, leased("a", 1), Refusal::LeaseNotFound);
    check_refused(&mut store, revoke(1), Refusal::LeaseNotFound);
    let negative = LeaseCheckpoint { leases: vec![LeaseRemaining { id: 1, remaining_ttl: -1 }] };
    check_refused(&mut store, CommandKind::LeaseCheckpoint(negative), Refusal::Invalid);
}

#[test]
fn what_is_left_of_a_lease_is_kept_and_never_more_than_its_ttl() {
    let mut store = Store::new();
    store.run_all([grant(1), grant(2)]);
    let remaining = |id, remaining_ttl| LeaseRemaining { id, remaining_ttl };
    let leases = vec![remaining(1, 7), remaining(2, 61), remaining(3, 5)];
    let outcome = store.run(CommandKind::LeaseCheckpoint(LeaseCheckpoint { leases }));
    let Some(OutcomeKind::LeaseCheckpoint(checkpointed)) = outcome.kind else { panic!("{outcome:?}") };
    assert_eq!((outcome.revision, checkpointed.known), (1, 2));
    store.restart(true).unwrap();
    let lease = |id, remaining_ttl_s| Lease { id: LeaseId(id), ttl_s: 60, remaining_ttl_s };
    assert_eq!(store.storage().leases().unwrap(), [lease(1, 7), lease(2, 60)]);
}

#[test]
fn leases_and_their_keys_survive_checkpoint_crash_and_snapshot() {
    let mut store = Store::new();
    store.run_all([grant(1), grant(2), leased("a", 1), leased("b", 1), leased("c", 2)]);
    store.storage().checkpoint().unwrap();
    // Half in the tree, half in memory: a row there that is removed here, and the other way round.
    store.run_all([leased("a", 2), leased("d", 1), grant(3), revoke(2), leased("e", 3)]);
    check_keys(&store, 1, &["b", "d"]);
    let hash = store.storage().hash().unwrap();
    store.lose_power(Crash::LoseUnsynced).unwrap();
    check_keys(&store, 1, &["b", "d"]);
    assert_eq!(store.storage().hash().unwrap(), hash);
    store.move_by_snapshot();
    check_keys(&store, 1, &["b", "d"]);
    check_keys(&store, 3, &["e"]);
    assert_eq!(store.storage().hash().unwrap(), hash);
    assert_eq!(store.storage().lease(LeaseId(2)).unwrap(), None);
    store.restart(true).unwrap();
    store.run(revoke(1));
    assert_eq!(store.storage().get(b"b").unwrap(), None);
}

#[test]
fn a_failed_apply_takes_leases_back() {
    let mut store = Store::new();
    store.run_all([grant(1), grant(2), leased("a", 1)]);
    let mut entries = vec![
        store.entry(leased("a", 2)),
        store.entry(grant(3)),
        store.entry(revoke(1)),
        store.entry(grant(4)),
    ];
    let whole = std::mem::replace(&mut entries[3].data, Bytes::from_static(b"\xff\xff"));
    let error = store.storage().apply(&entries).unwrap_err();
    assert!(matches!(error, StorageError::CorruptRecord { .. }), "{error}");
    check_keys(&store, 1, &["a"]);
    check_keys(&store, 2, &[]);
    assert_eq!(store.storage().leases().unwrap().len(), 2);
    entries[3].data = whole;
    store.storage().apply(&entries).unwrap();
    check_keys(&store, 2, &["a"]);
    assert_eq!(store.storage().leases().unwrap().len(), 3);
}

#[test]
fn a_lease_of_many_keys_is_listed_and_revoked_whole() {
    let mut store = Store::new();
    store.run(grant(1));
    // More rows than are read under the lock.
    store.run_all((0..3_000).map(|row| leased(&format!("k{row:04}"), 1)));
    let (_, keys) = store.storage().lease_with_keys(LeaseId(1)).unwrap().unwrap();
    assert_eq!((keys.len(), &keys[2_999][..]), (3_000, &b"k2999"[..]));
    let outcome = store.run(revoke(1));
    let Some(OutcomeKind::LeaseRevoke(revoked)) = outcome.kind else { panic!("{outcome:?}") };
    assert_eq!(revoked.deleted, 3_000);
    store.storage().checkpoint().unwrap();
    store.restart(true).unwrap();
    assert_eq!(
        store
            .storage()
            .range(&Range { key: "k".into(), range_end: "l".into(), ..Range::default() })
            .unwrap()
            .outcome
            .count,
        0
    );
}

#[test]
fn live_bytes_count_leases() {
    let mut store = Store::new();
    store.storage().checkpoint().unwrap();
    let before = store.storage().live_bytes();
    store.run_all([grant(1), grant(2), leased("a", 1)]);
    store.storage().checkpoint().unwrap();
    let full = store.storage().live_bytes();
    assert!(before < full);
    store.run_all([leased("a", 0), revoke(1), revoke(2)]);
    store.storage().checkpoint().unwrap();
    store.run(CommandKind::Compact(harmony_types::command::Compact { revision: 3 }));
    store.storage().checkpoint().unwrap();
    store.restart(true).unwrap();
    // What the rows took is given back to the last byte.
    let mut without = Store::new();
    without.run_all([put("a", "v"), leased("a", 0)]);
    without.run(CommandKind::Compact(harmony_types::command::Compact { revision: 3 }));
    without.storage().checkpoint().unwrap();
    without.storage().checkpoint().unwrap();
    assert_eq!(store.storage().live_bytes(), without.storage().live_bytes());
}
