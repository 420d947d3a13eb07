//! `harmony db` on a real tree: healthy, damaged, in use, not there. Nothing is changed.

mod program;

use std::fs;
use std::path::{Path, PathBuf};

use harmony_storage::{StorageConfig, UnifiedStorage};
use harmony_types::txn::Put;
use harmony_types::{Command, CommandKind, Entry, EntryType, HardState, LogIndex, Storage, Term, limits};
use harmony_wal::OsFileSystem;
use program::{HARMONY, Said, run};

const TREE: &str = "member/tree/tree.redb";

fn db(action: &str, dir: &Path, flags: &[&str]) -> Said {
    let args = ["db".as_ref(), action.as_ref(), dir.as_os_str()];
    run(HARMONY, args.into_iter().chain(flags.iter().map(|flag| flag.as_ref())), "")
}

fn open(data: &Path) -> UnifiedStorage {
    let mut config = StorageConfig::default();
    config.wal.segment_bytes = limits::SEGMENT_BYTES_MIN;
    let (wal, tree) = (data.join("member/wal"), data.join("member/tree"));
    UnifiedStorage::open(OsFileSystem::new(), &wal, &tree, config).expect("a good directory")
}

/// Five keys, one of them written twice.
fn make_tree(data: &Path) {
    let storage = open(data);
    let entry = |index: u64| {
        let put = Put { key: format!("key {}", index % 5).into(), value: "value".into(), ..Put::default() };
        let data = Command::from(CommandKind::Put(put)).encode_to_bytes();
        Entry { term: Term(2), index: LogIndex(index), entry_type: EntryType::Normal, data }
    };
    let entries: Vec<Entry> = (1..=6).map(entry).collect();
    let state = HardState { term: Term(2), vote: None, commit: LogIndex(6) };
    storage.save(Some(&state), &entries).expect("room for entries");
    storage.apply(&entries).expect("a good tree");
    storage.close().expect("a sync");
}

/// All files of the tree with their content.
fn content(data: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(data.join("member/tree")).expect("a directory");
    files
        .map(|file| file.expect("a file").path())
        .map(|path| (path.clone(), fs::read(path).expect("a file")))
        .collect()
}

#[test]
fn a_healthy_tree_is_checked_counted_and_dumped_from_either_directory() {
    let data = tempfile::tempdir().unwrap();
    make_tree(data.path());
    let before = content(data.path());
    let dir = data.path().join("member/tree");
    for given in [data.path(), &dir] {
        let said = db("check", given, &[]);
        let text = said.succeeds();
        assert!(text.starts_with(&format!("{}: no damage\n  cluster     ", dir.display())), "{text}");
        let said = db("stats", given, &[]);
        let counts = said.succeeds();
        for text in [text, counts] {
            assert!(text.contains("\n  applied     index 6 of term 2\n"), "{text}");
            assert!(text.contains("\n  revision    7, never compacted\n"), "{text}");
            assert!(text.contains("\n  keys        5, and 0 deleted ones in the history\n"), "{text}");
            assert!(text.contains("\n  history     6 events\n"), "{text}");
        }
        assert!(text.contains(" pages in use\n") && !counts.contains("in use"), "{text}{counts}");
        let said = db("dump", given, &["--value-bytes", "3"]);
        let text = said.succeeds();
        assert!(
            text.contains("\nlatest \"key 1\" revision 7 sub 0 version 2 created 2 (5 bytes) \"val\"...\n"),
            "{text}"
        );
        let said = db("dump", given, &["--table", "log", "--rows", "1"]);
        assert_eq!(
            said.succeeds(),
            "log revision 2 sub 0 version 1 created 2 (5 bytes) of \"key 1\", replaced nothing\nlog: more rows follow\n"
        );
    }
    assert_eq!(content(data.path()), before, "looking changes nothing");
}

#[test]
fn a_flipped_byte_is_named_and_left_as_it_is() {
    let data = tempfile::tempdir().unwrap();
    make_tree(data.path());
    let path = data.path().join(TREE);
    let mut bytes = fs::read(&path).unwrap();
    let found = b"key 3";
    let at = bytes.windows(found.len()).position(|window| window == found).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let before = content(data.path());
    for action in ["check", "stats", "dump"] {
        let said = db(action, data.path(), &[]);
        assert_eq!(said.code, Some(1), "{action}: {said:?}");
        let place = format!("error: {}: page ", path.display());
        assert!(said.err.starts_with(&place) && said.err.contains(": checksum 0x"), "{}", said.err);
    }
    assert_eq!(content(data.path()), before, "looking changes nothing");
}

#[test]
fn a_directory_without_a_tree_and_one_in_use_are_named() {
    let data = tempfile::tempdir().unwrap();
    for action in ["check", "stats", "dump"] {
        let said = db(action, data.path(), &[]);
        said.fails(1, &format!("error: open {}/tree.redb: ", data.path().display()));
        let missing = data.path().join("missing");
        db(action, &missing, &[]).fails(1, &format!("error: {} is no directory\n", missing.display()));
    }
    let said = run(HARMONY, ["--json", "db", "check", "."], "");
    said.fails(2, "error: --json is an option of clients, not of db\n");
    let storage = open(data.path());
    let said = db("check", data.path(), &[]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("another process uses this directory"), "{}", said.err);
    storage.close().unwrap();
}
