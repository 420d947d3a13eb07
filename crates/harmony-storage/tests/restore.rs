//! A new cluster out of a backup: what was in it, under other members, at a revision that nobody has seen.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use common::compare::check_all;
use common::generate::Generate;
use common::model::Model;
use common::{Store, TREE_DIR, WAL_DIR, put};
use harmony_storage::{
    EventsRequest, Restore, StorageConfig, StorageError, UnifiedStorage, inspect_snapshot, restore_snapshot,
};
use harmony_types::alarm::{Alarm, AlarmChange};
use harmony_types::config::Identity;
use harmony_types::fake::fs::MemoryFileSystem;
use harmony_types::fake::seed::for_each_seed;
use harmony_types::{
    AlarmType, ClusterId, Command, CommandKind, Member, Membership, NodeId, Revision, Role, Storage,
};

fn backup(store: &Store) -> Vec<u8> {
    let mut stream = Vec::new();
    store.storage().create_snapshot().unwrap().data.into_reader().read_to_end(&mut stream).unwrap();
    stream
}

fn members() -> Membership {
    Membership::from_members([11, 12, 13].map(|id| Member {
        id: NodeId::new(id).unwrap(),
        name: String::new(),
        peer_urls: vec![format!("http://h{id}:2380")],
        client_urls: Vec::new(),
        role: Role::Voter,
    }))
}

fn config() -> StorageConfig {
    let mut config = common::config();
    config.wal.identity = Identity { cluster: ClusterId(99), node: NodeId::new(11) };
    config
}

fn restored(disk: &MemoryFileSystem, restore: Restore, stream: &[u8]) -> Result<Revision, StorageError> {
    let stream = Box::new(std::io::Cursor::new(stream.to_vec()));
    restore_snapshot(
        Arc::new(disk.clone()),
        Path::new(WAL_DIR),
        Path::new(TREE_DIR),
        config(),
        restore,
        stream,
    )
}

fn as_it_was() -> Restore {
    Restore { membership: members(), bump_revision: 0, mark_compacted: false }
}

fn open(disk: &MemoryFileSystem) -> UnifiedStorage {
    UnifiedStorage::open(Arc::new(disk.clone()), Path::new(WAL_DIR), Path::new(TREE_DIR), config()).unwrap()
}

#[test]
fn everything_comes_back_under_other_members() {
    for_each_seed(0..40, 4, |_, rng| {
        let mut store = Store::new();
        let mut model = Model::new();
        for _ in 0..80 {
            let (revision, auth_revision) = (model.revision, model.auth.revision);
            let command = Generate { rng, revision, auth_revision }.command();
            store.run(command.clone());
            model.apply(&command);
        }
        let stream = backup(&store);
        let disk = MemoryFileSystem::new();
        let revision = restored(&disk, as_it_was(), &stream).unwrap();
        assert_eq!(revision, store.storage().revision());
        let again = Store::with(disk, config()).unwrap();
        assert_eq!(again.storage().membership(), members());
        assert_eq!(again.storage().applied().index.0, 1);
        assert_eq!(again.storage().applied_hash().hash, store.storage().applied_hash().hash);
        assert_eq!(again.storage().hash_kv(0).unwrap(), store.storage().hash_kv(0).unwrap());
        model.alarms.clear();
        check_all(&again, &model);
    });
}

#[test]
fn a_summary_tells_what_is_in_it() {
    let mut store = Store::new();
    store.run_all([put("a", "1"), put("a", "2"), put("b", "1")]);
    store.run(CommandKind::DeleteRange(harmony_types::txn::DeleteRange {
        key: "b".into(),
        ..Default::default()
    }));
    let stream = backup(&store);
    let mut file = std::io::Cursor::new([&stream[..], b"behind"].concat());
    let summary = inspect_snapshot(&mut file).unwrap();
    assert_eq!((summary.revision, summary.compact_revision), (Revision(5), Revision(0)));
    assert_eq!((summary.keys, summary.events, summary.index.0), (1, 4, 4));
    assert_eq!(file.position(), stream.len() as u64);
    for cut in 0..stream.len() {
        inspect_snapshot(&stream[..cut]).unwrap_err();
    }
    for byte in 0..stream.len() {
        let mut damaged = stream.clone();
        damaged[byte] ^= 0x10;
        inspect_snapshot(&damaged[..]).unwrap_err();
    }
}

#[test]
fn a_bumped_revision_leaves_no_history() {
    let mut store = Store::new();
    store.run_all([put("a", "1"), put("a", "2"), put("b", "1")]);
    store.run(CommandKind::DeleteRange(harmony_types::txn::DeleteRange {
        key: "b".into(),
        ..Default::default()
    }));
    let disk = MemoryFileSystem::new();
    let restore = Restore { bump_revision: 1_000, mark_compacted: true, ..as_it_was() };
    assert_eq!(restored(&disk, restore, &backup(&store)).unwrap(), Revision(1_005));
    let storage = open(&disk);
    assert_eq!((storage.revision(), storage.compact_revision()), (Revision(1_005), Revision(1_005)));
    assert_eq!(&storage.query(b"a").unwrap().unwrap()[..], b"2");
    assert_eq!(storage.query(b"b").unwrap(), None);
    let from =
        |first: u64| storage.events(&EventsRequest { first: Revision(first).into(), ..Default::default() });
    assert!(matches!(from(3), Err(StorageError::Compacted { .. })));
    assert_eq!(from(1_005).unwrap().events, []);
    storage.close().unwrap();
    drop(storage);
    harmony_storage::check(&disk, Path::new(TREE_DIR)).unwrap();
    let mut store = Store::with(disk, config()).unwrap();
    store.run(put("a", "3"));
    assert_eq!(store.storage().get(b"a").unwrap().unwrap().mod_revision, 1_006);
    assert_eq!(store.storage().get(b"a").unwrap().unwrap().version, 3);
}

#[test]
fn alarms_of_members_that_are_gone_are_not_restored() {
    let mut store = Store::new();
    store.run(put("a", "1"));
    store.run(Command::from(CommandKind::Alarm(AlarmChange::activate(Alarm::new(AlarmType::NoSpace, 1)))));
    assert!(store.storage().alarms().any(AlarmType::NoSpace));
    let disk = MemoryFileSystem::new();
    restored(&disk, as_it_was(), &backup(&store)).unwrap();
    assert!(!open(&disk).alarms().any(AlarmType::NoSpace));
}

#[test]
fn what_is_there_is_not_overwritten_and_what_is_damaged_not_restored() {
    let mut store = Store::new();
    store.run_all([put("a", "1"), put("b", "2")]);
    let stream = backup(&store);
    let disk = MemoryFileSystem::new();
    restored(&disk, as_it_was(), &stream).unwrap();
    let twice = restored(&disk, as_it_was(), &stream).unwrap_err();
    assert!(matches!(twice, StorageError::InvalidIndex { .. }), "{twice}");
    for byte in (0..stream.len()).step_by(7) {
        let mut damaged = stream.clone();
        damaged[byte] ^= 1;
        let error = restored(&MemoryFileSystem::new(), as_it_was(), &damaged).unwrap_err();
        let known = matches!(
            error,
            StorageError::CrcMismatch { .. }
                | StorageError::CorruptRecord { .. }
                | StorageError::UnsupportedVersion { .. }
        );
        assert!(known, "{byte}: {error:?}");
    }
    let large = Restore { bump_revision: u64::MAX, mark_compacted: true, ..as_it_was() };
    restored(&MemoryFileSystem::new(), large, &stream).unwrap_err();
}
