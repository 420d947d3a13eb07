//! Rows that do not agree with each other, well-formed as each of them is.

use harmony_types::fake::fs::MemoryFileSystem;
use harmony_types::lease::LeaseGrant;
use harmony_types::txn::{DeleteRange, Put};
use harmony_types::{Command, CommandKind, Entry, EntryType, HardState, LogIndex, OpenMode, Storage, Term};

use super::*;
use crate::tree::record::{EventRef, Replaced, VersionBuf, WrittenAt, put_crc};
use crate::tree::redb::RedbTree;
use crate::tree::{Durability, KvWriter, Table, meta};
use crate::{StorageConfig, UnifiedStorage};

const DIR: &str = "/tree";

/// Revisions 2 to 7: a put twice, b with lease 7, c put and deleted, d.
fn store() -> MemoryFileSystem {
    let fs = MemoryFileSystem::new();
    let config = StorageConfig { tree_cache_bytes: 1 << 20, ..StorageConfig::default() };
    let storage =
        UnifiedStorage::open(std::sync::Arc::new(fs.clone()), Path::new("/wal"), Path::new(DIR), config)
            .unwrap();
    let put = |key: &'static str, lease| {
        CommandKind::Put(Put { key: key.into(), value: "value".into(), lease, ..Put::default() })
    };
    let commands = [
        CommandKind::LeaseGrant(LeaseGrant { id: 7, ttl: 60 }),
        put("a", 0),
        put("a", 0),
        put("b", 7),
        put("c", 0),
        CommandKind::DeleteRange(DeleteRange { key: "c".into(), ..DeleteRange::default() }),
        put("d", 0),
    ];
    let entries: Vec<Entry> = (1..)
        .zip(commands)
        .map(|(index, kind)| Entry {
            term: Term(1),
            index: LogIndex(index),
            entry_type: EntryType::Normal,
            data: Command::from(kind).encode_to_bytes(),
        })
        .collect();
    let hard_state = HardState { term: Term(1), vote: None, commit: LogIndex(7) };
    storage.save(Some(&hard_state), &entries).unwrap();
    storage.apply(&entries).unwrap();
    storage.close().unwrap();
    fs
}

/// What the check says of a tree to which `change` was done, the counts of bytes brought up to date.
fn checked(
    change: &dyn Fn(&mut dyn KvWriter) -> Result<(), StorageError>,
) -> Result<CheckReport, StorageError> {
    let fs = store();
    let tree = RedbTree::open(&fs, &Path::new(DIR).join(TREE_FILE), OpenMode::ReadWrite, 1 << 20)?;
    tree.commit(Durability::Durable, &mut |writer| change(writer))?;
    let view = View::open(tree.view()?)?;
    let found = rows::count(&view)?;
    let progress = meta::Progress {
        latest_bytes: found.latest_bytes,
        log_bytes: found.log_bytes,
        state_bytes: found.state_bytes,
        ..view.progress
    };
    tree.commit(Durability::Durable, &mut |writer| progress.write(writer))?;
    drop((view, tree));
    check(&fs, Path::new(DIR))
}

fn refused(change: &dyn Fn(&mut dyn KvWriter) -> Result<(), StorageError>) -> String {
    checked(change).expect_err("the rows do not agree").to_string()
}

const fn at(revision: u64) -> WrittenAt {
    WrittenAt { revision: Revision(revision), sub: 0 }
}

fn version(revision: u64, create: u64, version: u64) -> VersionBuf {
    VersionBuf {
        live: true,
        create: Revision(create),
        version,
        value: "value".into(),
        ..VersionBuf::tombstone(at(revision))
    }
}

fn put_latest(writer: &mut dyn KvWriter, key: &[u8], version: &VersionBuf) -> Result<(), StorageError> {
    let mut row = Vec::new();
    version.encode_latest(key, &mut row);
    writer.put(Table::Latest, key, &row).map(drop)
}

fn put_event(
    writer: &mut dyn KvWriter,
    key: &[u8],
    version: &VersionBuf,
    replaced: Replaced<&VersionBuf>,
) -> Result<(), StorageError> {
    let replaced = match replaced {
        Replaced::None => Replaced::None,
        Replaced::Here(version) => Replaced::Here(version.borrowed()),
        Replaced::InLog(at) => Replaced::InLog(at),
    };
    let mut row = Vec::new();
    EventRef { key, version: version.borrowed(), replaced }.encode(&mut row);
    writer.put(Table::Log, &version.written.log_key(), &row).map(drop)
}

fn put_state(writer: &mut dyn KvWriter, name: &[u8], row: &[u8]) -> Result<(), StorageError> {
    let mut row = row.to_vec();
    put_crc(name, &mut row);
    writer.put(Table::State, name, &row).map(drop)
}

#[test]
fn nothing_changed_is_good() {
    let report = checked(&|_| Ok(())).unwrap();
    assert_eq!((report.stats.keys, report.stats.tombstones, report.stats.events), (3, 1, 6));
}

#[test]
fn counts_that_are_wrong_are_found() {
    let fs = store();
    let tree = RedbTree::open(&fs, &Path::new(DIR).join(TREE_FILE), OpenMode::ReadWrite, 1 << 20).unwrap();
    let mut progress = View::open(tree.view().unwrap()).unwrap().progress;
    progress.log_bytes += 1;
    tree.commit(Durability::Durable, &mut |writer| progress.write(writer)).unwrap();
    drop(tree);
    let error = check(&fs, Path::new(DIR)).unwrap_err().to_string();
    assert!(
        error.contains("table state, row \"progress\": ") && error.contains(" bytes in log, "),
        "{error}"
    );
}

#[test]
fn a_key_that_does_not_agree_with_its_event_is_found() {
    let latest = "table latest, key \"a\": ";
    let error = refused(&|writer| put_latest(writer, b"a", &version(9, 2, 2)));
    assert_eq!(error, format!("{latest}newer than the newest revision"));
    let error = refused(&|writer| put_latest(writer, b"a", &version(3, 2, 0)));
    assert_eq!(error, format!("{latest}its version and create revision make no sense"));
    let error = refused(&|writer| put_latest(writer, b"a", &version(3, 2, 3)));
    assert_eq!(error, format!("{latest}its event is another one"));
    let error = refused(&|writer| put_latest(writer, b"a", &version(4, 2, 2)));
    assert_eq!(error, format!("{latest}its event is another one"));
    let error = refused(&|writer| writer.remove(Table::Log, &at(3).log_key()).map(drop));
    assert_eq!(error, format!("{latest}its event is missing"));
    let error = refused(&|writer| writer.remove(Table::Log, &at(6).log_key()).map(drop));
    assert_eq!(error, "table latest, key \"c\": its event is missing");
}

#[test]
fn a_key_that_is_missing_or_old_is_found_by_its_event() {
    let error = refused(&|writer| writer.remove(Table::Latest, b"d").map(drop));
    assert_eq!(error, "table log, revision 7 sub 0: its key has no version as new as it");
    let error = refused(&|writer| put_latest(writer, b"a", &version(2, 2, 1)));
    assert_eq!(error, "table log, revision 3 sub 0: its key has no version as new as it");
    let error = refused(&|writer| writer.remove(Table::Latest, b"c").map(drop));
    assert_eq!(error, "table log, revision 5 sub 0: its key has no version as new as it");
}

#[test]
fn a_hole_in_the_history_is_found() {
    let error = refused(&|writer| writer.remove(Table::Log, &at(2).log_key()).map(drop));
    assert_eq!(error, "table log, revision 3 sub 0: events before it are missing");
    let error = refused(&|writer| {
        writer.remove(Table::Log, &at(7).log_key())?;
        writer.remove(Table::Latest, b"d").map(drop)
    });
    assert_eq!(error, "table state, row \"progress\": the newest revision is 7, its events end at 6");
}

#[test]
fn an_event_that_does_not_continue_what_it_replaced_is_found() {
    let first = version(2, 2, 1);
    let log = "table log, revision 3 sub 0: ";
    let error = refused(&|writer| put_event(writer, b"a", &version(3, 2, 2), Replaced::None));
    assert_eq!(error, format!("{log}it replaced nothing, and goes on all the same"));
    let later = version(4, 2, 1);
    let error = refused(&|writer| put_event(writer, b"a", &version(3, 2, 2), Replaced::Here(&later)));
    assert_eq!(error, format!("{log}what it replaced is newer"));
    let error = refused(&|writer| {
        put_latest(writer, b"a", &version(3, 2, 5))?;
        put_event(writer, b"a", &version(3, 2, 5), Replaced::Here(&first))
    });
    assert_eq!(error, format!("{log}it does not continue what it replaced"));
    let other = VersionBuf { value: "other".into(), ..first };
    let error = refused(&|writer| put_event(writer, b"a", &version(3, 2, 2), Replaced::Here(&other)));
    assert_eq!(error, format!("{log}the event of what it replaced is another one, or missing"));
}

#[test]
fn leases_that_do_not_agree_with_their_keys_are_found() {
    use crate::tree::rows as names;
    use harmony_types::LeaseId;
    let error = refused(&|writer| writer.remove(Table::State, &names::lease(LeaseId(7))).map(drop));
    assert_eq!(error, "table latest, key \"b\": its lease is missing");
    let error = refused(&|writer| writer.remove(Table::State, &names::leased(LeaseId(7), b"b")).map(drop));
    assert_eq!(error, "table latest, key \"b\": its lease does not know it");
    for key in [&b"a"[..], b"c", b"e"] {
        let error = refused(&|writer| put_state(writer, &names::leased(LeaseId(7), key), b""));
        assert!(error.ends_with(": its key is not attached to the lease"), "{error}");
    }
    let error = checked(&|writer| put_state(writer, b"other/1", b"")).unwrap_err().to_string();
    assert_eq!(error, "table state, row \"other/1\": no row of this release");
}
