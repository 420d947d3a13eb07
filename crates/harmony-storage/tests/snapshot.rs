//! Snapshots out and in, and every way in which a stream can be wrong.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use std::io::Read as _;
use std::path::Path;

use common::{Store, WAL_DIR, put};
use harmony_storage::StorageError;
use harmony_types::command::Compact;
use harmony_types::fake::fs::{CallKind, Crash, Fault};
use harmony_types::{CommandKind, LogIndex, Snapshot, SnapshotData, SnapshotMeta, Storage, Term};

/// A store with history, its snapshot's head, and the stream's bytes.
fn source() -> (Store, SnapshotMeta, Vec<u8>) {
    let mut store = Store::new();
    let big = "v".repeat(40_000);
    for number in 0..30 {
        store.run_all([put(&format!("k{number}"), &big), put("hot", &number.to_string())]);
    }
    store.run(CommandKind::Compact(Compact { revision: 20 }));
    let snapshot = store.storage().create_snapshot().unwrap();
    // What comes later is not in it.
    store.run(put("later", "1"));
    let mut bytes = Vec::new();
    snapshot.data.into_reader().read_to_end(&mut bytes).unwrap();
    (store, snapshot.meta, bytes)
}

fn install(store: &Store, meta: &SnapshotMeta, bytes: Vec<u8>) -> Result<(), StorageError> {
    let data = SnapshotData::Bytes(bytes.into());
    store.storage().save_snapshot(Snapshot { meta: meta.clone(), data })
}

#[test]
fn a_snapshot_moves_the_whole_state() {
    let (source, meta, bytes) = source();
    let mut store = Store::new();
    store.run(put("gone", "1"));
    let old_view = store.storage().create_snapshot().unwrap();
    install(&store, &meta, bytes).unwrap();
    assert_eq!(store.storage().applied().index, meta.index);
    assert_eq!(store.storage().durable_applied(), meta.index);
    assert_eq!(store.storage().bounds().boundary, meta.index);
    assert_eq!(store.storage().term(meta.index).unwrap(), meta.term);
    assert_eq!(store.storage().get(b"gone").unwrap(), None);
    assert_eq!(store.storage().get(b"later").unwrap(), None);
    assert_eq!(store.storage().get(b"hot").unwrap(), source.storage().get(b"hot").unwrap());
    // A view taken before still reads the old file.
    let copy = Store::new();
    copy.storage().save_snapshot(old_view).unwrap();
    assert_eq!(copy.storage().get(b"gone").unwrap().unwrap().value, "1");
    let revision = store.storage().revision().as_i64();
    let expected = source.storage().hash_kv(revision).unwrap();
    assert_eq!(store.storage().hash_kv(0).unwrap(), expected);
    store.next = meta.index.next();
    store.run(put("later", "1"));
    assert_eq!(store.storage().hash().unwrap(), source.storage().hash().unwrap());
    store.restart(false).unwrap();
    assert_eq!(store.storage().hash().unwrap(), source.storage().hash().unwrap());
}

#[test]
fn a_crash_before_the_log_knows_is_finished_on_open() {
    let (source, meta, bytes) = source();
    let mut store = Store::new();
    store.run(put("gone", "1"));
    store.fs.inject(Fault::on([CallKind::Write, CallKind::Sync]).on_path(WAL_DIR).lasting());
    assert!(matches!(install(&store, &meta, bytes), Err(StorageError::Wal(_))));
    let image = store.fs.crash_image(Crash::LoseUnsynced);
    let store = Store::with(image, store.config.clone()).unwrap();
    assert_eq!(store.storage().bounds().boundary, meta.index);
    assert_eq!(store.storage().get(b"hot").unwrap(), source.storage().get(b"hot").unwrap());
}

#[test]
fn every_flipped_byte_of_a_stream_is_found() {
    let mut small = Store::new();
    small.run_all([put("a", "1"), put("a", "2"), put("b", "3")]);
    let snapshot = small.storage().create_snapshot().unwrap();
    let mut bytes = Vec::new();
    snapshot.data.into_reader().read_to_end(&mut bytes).unwrap();
    let mut store = Store::new();
    store.run(put("kept", "1"));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let error = install(&store, &snapshot.meta, damaged).unwrap_err();
        let known = matches!(
            error,
            StorageError::CrcMismatch { .. }
                | StorageError::CorruptRecord { .. }
                | StorageError::UnsupportedVersion { .. }
        );
        assert!(known, "byte {at}: {error}");
    }
    for length in 0..bytes.len() {
        let error = install(&store, &snapshot.meta, bytes[..length].to_vec()).unwrap_err();
        assert!(matches!(error, StorageError::CorruptRecord { .. }), "cut at {length}: {error}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(install(&store, &snapshot.meta, longer).is_err());
    assert_eq!(store.fs.read_file(Path::new("/data/tree/tree.redb.new")), None);
    assert_eq!(store.storage().get(b"kept").unwrap().unwrap().value, "1", "the old state stays");
    assert_eq!(store.run(put("kept", "2")).revision, 3);
}

#[test]
fn a_snapshot_that_is_not_the_one_announced_is_refused() {
    let (_, meta, bytes) = source();
    let store = Store::new();
    for wrong in [
        SnapshotMeta { index: meta.index.next(), ..meta.clone() },
        SnapshotMeta { term: Term(9), ..meta.clone() },
    ] {
        let error = install(&store, &wrong, bytes.clone()).unwrap_err();
        assert!(error.to_string().contains("index and term announced"), "{error}");
    }
    let mut ahead = Store::new();
    // One at the applied index may replace a state that is not what it should be, an older one nothing.
    for _ in 0..=meta.index.0 {
        ahead.run(put("a", "1"));
    }
    let error = install(&ahead, &meta, bytes).unwrap_err();
    assert!(matches!(error, StorageError::InvalidIndex { index: LogIndex(_), .. }), "{error}");
    let empty = Snapshot { meta, data: SnapshotData::Empty };
    assert!(store.storage().save_snapshot(empty).is_err());
}
