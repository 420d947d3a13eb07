//! HashKV against the hashes that etcd 3.5.30 gave for the same commands.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use bytes::Bytes;
use common::{Store, put};
use harmony_storage::HashKv;
use harmony_types::CommandKind;
use harmony_types::command::Compact;
use harmony_types::txn::{Compare, CompareTarget, DeleteRange, Put, Txn, TxnOp, TxnOpKind};

fn delete(key: &'static str, end: &'static [u8]) -> CommandKind {
    CommandKind::DeleteRange(delete_op(key, end))
}

fn delete_op(key: &'static str, end: &'static [u8]) -> DeleteRange {
    DeleteRange { key: key.into(), range_end: end.into(), ..DeleteRange::default() }
}

fn put_op(key: &'static str, value: &'static str) -> TxnOp {
    let put = Put { key: key.into(), value: value.into(), ..Put::default() };
    TxnOp { kind: Some(TxnOpKind::Put(put)) }
}

#[track_caller]
fn check(store: &Store, revision: i64, hash: u32, compact_revision: i64, hash_revision: i64) {
    let expected = HashKv { hash, compact_revision, hash_revision };
    assert_eq!(store.storage().hash_kv(revision).unwrap(), expected);
}

#[test]
fn the_hash_is_etcds() {
    let mut store = Store::new();
    check(&store, 0, 1_084_519_789, -1, 1);
    store.run_all([put("a", "1"), put("a", "2"), put("b", "x")]);
    check(&store, 0, 1_523_780_942, -1, 4);
    store.run(delete("a", b""));
    check(&store, 0, 3_909_293_975, -1, 5);
    store.run_all([put("c", "y"), put("a", "3")]);
    check(&store, 0, 1_598_070_445, -1, 7);
    check(&store, 4, 1_523_780_942, -1, 4);
    check(&store, 3, 535_221_974, -1, 3);
    let compare = Compare {
        key: "a".into(),
        range_end: Bytes::new(),
        result: 1,
        target: Some(CompareTarget::ModRevision(0)),
    };
    let delete_b = TxnOp { kind: Some(TxnOpKind::DeleteRange(delete_op("b", b""))) };
    let success = vec![put_op("d", "1"), put_op("e", "2"), delete_b];
    store.run(CommandKind::Txn(Txn { compare: vec![compare], success, failure: vec![] }));
    check(&store, 0, 1_641_335_506, -1, 8);
    store.run(CommandKind::Compact(Compact { revision: 5 }));
    check(&store, 0, 1_001_434_856, 5, 8);
    check(&store, 6, 2_618_167_811, 5, 6);
    check(&store, 7, 3_721_109_742, 5, 7);
    store.run(delete("\0", b"\0"));
    check(&store, 0, 4_249_507_054, 5, 9);
    store.run(CommandKind::Compact(Compact { revision: 9 }));
    check(&store, 0, 1_084_519_789, 9, 9);
    store.run(put("z", "9"));
    check(&store, 0, 1_255_372_435, 9, 10);
    store.run(CommandKind::Compact(Compact { revision: 10 }));
    check(&store, 0, 1_255_372_435, 10, 10);
}
