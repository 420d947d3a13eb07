//! Opening: whose directory it is, which format, and whether log and tree fit together.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::{Store, WAL_DIR, put};
use harmony_storage::{StorageConfig, StorageError};
use harmony_types::command::PublishMember;
use harmony_types::config::Identity;
use harmony_types::fake::fs::{CallKind, Fault, MemoryFileSystem};
use harmony_types::txn::{Range, Txn, TxnOp, TxnOpKind};
use harmony_types::{
    ClusterId, CommandKind, Entry, EntryType, FileSystem, LogIndex, Member, Membership, NodeId, OpenMode,
    OutcomeKind, Role, Storage, Term,
};

fn member(number: u64) -> Member {
    Member {
        id: NodeId::new(number).unwrap(),
        name: String::new(),
        peer_urls: vec![format!("http://peer{number}")],
        client_urls: vec![],
        role: Role::Voter,
    }
}

fn config(cluster: u64, node: u64) -> StorageConfig {
    let mut config = common::config();
    config.wal.identity = Identity { cluster: ClusterId(cluster), node: NodeId::new(node) };
    config
}

#[test]
fn a_directory_of_another_member_is_refused() {
    let mut store = Store::with(MemoryFileSystem::new(), config(1, 2)).unwrap();
    store.run(put("a", "1"));
    for (cluster, node) in [(1, 3), (2, 2)] {
        store.config = config(cluster, node);
        let error = store.restart(true).unwrap_err();
        assert!(matches!(error, StorageError::Foreign { found_node: 2, .. }), "{error}");
    }
    store.config = config(1, 2);
    store.restart(true).unwrap();
    assert_eq!(store.storage().get(b"a").unwrap().unwrap().value, "1");
}

#[test]
fn a_directory_in_use_is_refused() {
    let store = Store::new();
    let second = Store::with(store.fs.clone(), store.config.clone());
    assert!(matches!(second.err().unwrap(), StorageError::Locked { .. }));
}

#[test]
fn a_wrong_configuration_is_refused() {
    let wrong = StorageConfig { tree_cache_bytes: 0, ..StorageConfig::default() };
    let error = Store::with(MemoryFileSystem::new(), wrong).err().unwrap();
    assert!(error.to_string().contains("tree cache of 0 bytes"), "{error}");
}

#[test]
fn a_log_that_lost_its_entries_is_refused() {
    let mut store = Store::new();
    store.run_all([put("a", "1"), put("a", "2")]);
    store.storage().checkpoint().unwrap();
    store.stop();
    for file in store.fs.list_dir(Path::new(WAL_DIR)).unwrap() {
        store.fs.remove_file(&Path::new(WAL_DIR).join(file)).unwrap();
    }
    let error = store.restart(false).unwrap_err();
    assert!(error.to_string().contains("the log ends at 0"), "{error}");
}

#[test]
fn leftovers_of_a_crash_are_removed() {
    let mut store = Store::new();
    store.run(put("a", "1"));
    let half = Path::new("/data/tree/tree.redb.new");
    store.fs.open(half, OpenMode::CreateNew).unwrap();
    store.restart(true).unwrap();
    assert_eq!(store.fs.read_file(half), None);
    assert_eq!(store.storage().get(b"a").unwrap().unwrap().value, "1");
}

#[test]
fn members_survive_and_are_published() {
    let mut store = Store::new();
    let mut members = Membership::from_members([member(1), member(2)]);
    store.storage().bootstrap(&members).unwrap();
    store.storage().bootstrap(&Membership::from_members([member(3)])).unwrap();
    assert_eq!(store.storage().membership(), members, "only the first bootstrap counts");
    let publish = |id: u64| {
        CommandKind::PublishMember(PublishMember {
            id,
            name: "n".into(),
            client_urls: vec!["http://client".into()],
            peer_urls: vec![],
        })
    };
    assert_eq!(store.run(publish(2)).kind, Some(OutcomeKind::PublishMember(true)));
    assert_eq!(store.run(publish(9)).kind, Some(OutcomeKind::PublishMember(false)));
    assert_eq!(store.run(publish(0)).kind, Some(OutcomeKind::PublishMember(false)));
    store.restart(false).unwrap();
    let published = members.members.get_mut(&NodeId::new(2).unwrap()).unwrap();
    published.name = "n".into();
    published.client_urls = vec!["http://client".into()];
    assert_eq!(store.storage().membership(), members);
}

#[test]
fn a_change_of_the_membership_ends_the_replay() {
    let mut store = Store::new();
    store.run(put("a", "1"));
    store.storage().checkpoint().unwrap();
    let change =
        Entry { term: Term(1), index: LogIndex(2), entry_type: EntryType::ConfChangeV2, data: "x".into() };
    store.save(std::slice::from_ref(&change));
    let after = store.entry(put("a", "2"));
    store.save(std::slice::from_ref(&after));
    let members = Membership { voters: BTreeSet::from([NodeId::new(7).unwrap()]), ..Membership::default() };
    store.restart(false).unwrap();
    assert_eq!(store.storage().applied().index, LogIndex(1), "the node applies the change");
    assert_eq!(store.storage().read_all().unwrap().entries, [change.clone(), after.clone()]);
    let error = store.storage().apply(std::slice::from_ref(&after)).unwrap_err();
    assert!(matches!(error, StorageError::InvalidIndex { index: LogIndex(3), .. }), "{error}");
    store.storage().apply_membership(&change, &members).unwrap();
    store.storage().apply(&[after]).unwrap();
    assert_eq!(store.storage().membership(), members);
    assert_eq!(store.storage().get(b"a").unwrap().unwrap().value, "2");
}

#[test]
fn a_command_that_nobody_can_read_stops_the_node() {
    let mut store = Store::new();
    store.run(put("a", "1"));
    // An unknown kind of command, and bytes that are no command; a good one before them must not be applied alone.
    for data in [&[0x98, 0x06, 0x01][..], &[0xff]] {
        let good = store.entry(put("a", "2"));
        let bad = Entry { index: good.index.next(), data: data.to_vec().into(), ..good.clone() };
        let error = store.storage().apply(&[good.clone(), bad]).unwrap_err();
        assert!(error.to_string().contains("log entry 3"), "{error}");
        assert_eq!(store.storage().get(b"a").unwrap().unwrap().value, "1");
        assert_eq!(store.storage().applied().index, LogIndex(1));
        store.next = good.index;
    }
}

#[test]
fn after_close_everything_is_refused() {
    let store = Store::new();
    store.storage().close().unwrap();
    store.storage().close().unwrap();
    assert!(matches!(store.storage().get(b"a"), Err(StorageError::Closed)));
    assert!(matches!(store.storage().apply(&[]), Err(StorageError::Closed)));
    assert!(matches!(store.storage().create_snapshot(), Err(StorageError::Closed)));
    assert!(matches!(store.storage().checkpoint(), Err(StorageError::Closed)));
}

#[test]
fn a_store_dropped_without_a_word_opens_again() {
    let mut store = Store::new();
    store.run(put("a", "1"));
    // Applied, but never synced: nothing of it was acknowledged.
    let entry = store.entry(put("a", "2"));
    store.storage().save(None, std::slice::from_ref(&entry)).unwrap();
    store.storage().apply(&[entry]).unwrap();
    store.restart(false).unwrap();
    assert_eq!(store.storage().get(b"a").unwrap().unwrap().value, "1");
}

#[test]
fn a_store_dropped_with_a_broken_log_opens_again() {
    let mut store = Store::new();
    store.run(put("a", "1"));
    let entry = store.entry(put("a", "2"));
    store.storage().save(None, std::slice::from_ref(&entry)).unwrap();
    store.fs.inject(Fault::on([CallKind::Write]).on_path(WAL_DIR));
    assert!(store.storage().sync().is_err());
    store.storage().apply(&[entry]).unwrap();
    store.restart(false).unwrap();
    assert_eq!(store.storage().get(b"a").unwrap().unwrap().value, "1");
}

#[test]
fn nothing_that_only_looks_waits_for_a_disk_that_hangs() {
    let mut store = Store::new();
    store.run(put("a", "1"));
    let later = [store.entry(put("later", "2"))];
    let all = || {
        let range = Range { key: "\0".into(), range_end: vec![0].into(), ..Range::default() };
        TxnOp { kind: Some(TxnOpKind::Range(range)) }
    };
    let hold = store.fs.hold([CallKind::Sync]);
    std::thread::scope(|scope| {
        scope.spawn(|| store.storage().checkpoint().unwrap());
        hold.wait_for(1);
        let storage = store.storage();
        assert!(storage.disk_bytes().unwrap() != 0 && storage.live_bytes() != 0);
        assert_eq!(storage.get(b"a").unwrap().unwrap().value, "1");
        // What was written since lies on top of what the checkpoint is at.
        storage.apply(&later).unwrap();
        let everything = Txn { success: vec![all()], ..Txn::default() };
        let outcome = storage.read_txn(&everything).unwrap();
        assert_eq!(outcome.revision, storage.revision().as_i64());
        let Some(OutcomeKind::Txn(found)) = outcome.kind else { panic!("{outcome:?}") };
        assert!(format!("{found:?}").contains("later"), "{found:?}");
        assert_eq!(storage.durable_applied(), LogIndex(0));
        drop(hold);
    });
    assert_eq!(store.storage().durable_applied(), LogIndex(1));
}
