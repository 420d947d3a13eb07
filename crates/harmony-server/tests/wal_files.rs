//! `harmony wal` on a real log: healthy, damaged, not there. Nothing is ever changed.

mod program;

use std::fs;
use std::path::{Path, PathBuf};

use harmony_types::{Entry, EntryType, HardState, LogIndex, NodeId, Term, limits};
use harmony_wal::{FileWal, OsFileSystem, Wal, WalConfig};
use program::{HARMONY, Said, run};

fn wal(action: &str, dir: &Path) -> Said {
    run(HARMONY, ["wal".as_ref(), action.as_ref(), dir.as_os_str()], "")
}

/// Small segments: every look reads them whole.
fn config() -> WalConfig {
    WalConfig { segment_bytes: limits::SEGMENT_BYTES_MIN, ..WalConfig::default() }
}

/// A log of five entries and a hard state; closed when returned.
fn make_log(dir: &Path) {
    let log = FileWal::open(OsFileSystem::new(), dir, config()).expect("a new log");
    let entry = |index| Entry {
        term: Term(2),
        index: LogIndex(index),
        entry_type: EntryType::Normal,
        data: format!("payload of entry {index}").into(),
    };
    let entries: Vec<Entry> = (1..=5).map(entry).collect();
    let state = HardState { term: Term(2), vote: NodeId::new(0xab), commit: LogIndex(4) };
    log.append_many(Some(&state), &entries).expect("room for entries");
    log.close().expect("a sync");
}

/// The only segment.
fn segment(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir).expect("a directory").map(|file| file.expect("a file").path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
        .min()
        .expect("a segment")
}

/// All files with their content.
fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(dir).expect("a directory").map(|file| file.expect("a file").path());
    let mut content: Vec<_> = files.map(|path| (path.clone(), fs::read(path).expect("a file"))).collect();
    content.sort();
    content
}

#[test]
fn a_healthy_log_is_verified_and_dumped_from_either_directory() {
    let data = tempfile::tempdir().unwrap();
    let dir = data.path().join("member/wal");
    make_log(&dir);
    let before = content(&dir);
    for given in [data.path(), &dir] {
        let said = wal("verify", given);
        let text = said.succeeds();
        assert!(text.starts_with(&format!("{}: no damage\n  segments    1, with ", dir.display())), "{text}");
        assert!(text.contains("  entries     1 to 5, behind index 0 of term 0\n"), "{text}");
        assert!(text.contains("  hard state  term 2, vote ab, commit 4\n"), "{text}");
        assert!(!text.contains("torn"), "{text}");

        let said = wal("dump", given);
        let text = said.succeeds();
        for index in 1..=5 {
            assert!(text.contains(&format!(" entry {index} term 2 ")), "{text}");
        }
        assert!(text.contains(" state term 2 vote ab commit 4"), "{text}");
    }
    let args = ["wal", "dump", "--data-bytes", "7", dir.to_str().unwrap()];
    assert!(run(HARMONY, args, "").succeeds().contains("7061796c6f6164"), "the data in hexadecimal");
    assert_eq!(content(&dir), before, "looking changes nothing");
}

#[test]
fn a_flipped_byte_is_named_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    make_log(dir.path());
    let path = segment(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    let payload = b"payload of entry 3";
    let at = bytes.windows(payload.len()).position(|window| window == payload).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let before = content(dir.path());

    let said = wal("verify", dir.path());
    said.fails(1, &format!("error: {} at byte ", path.display()));
    assert!(said.err.contains("behind index 2"), "{}", said.err);
    let dumped = wal("dump", dir.path());
    assert_eq!(dumped.code, Some(1));
    assert_eq!(dumped.err, said.err);
    assert!(dumped.out.contains(" entry 2 term 2 ") && !dumped.out.contains(" entry 3 "), "{}", dumped.out);
    assert_eq!(content(dir.path()), before, "looking changes nothing");
}

#[test]
fn a_torn_tail_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    make_log(dir.path());
    let path = segment(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    let payload = b"payload of entry 5";
    let at = bytes.windows(payload.len()).position(|window| window == payload).unwrap();
    bytes.truncate(at + 4);
    fs::write(&path, bytes).unwrap();
    let before = content(dir.path());
    let said = wal("verify", dir.path());
    assert!(said.succeeds().contains("  torn tail   "), "{}", said.out);
    assert!(said.out.contains("  entries     1 to 4, "), "{}", said.out);
    assert_eq!(content(dir.path()), before, "looking changes nothing");
}

#[test]
fn a_directory_without_a_log_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for action in ["verify", "dump"] {
        let said = wal(action, dir.path());
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(
            said.err.starts_with("error: ") && said.err.contains(dir.path().to_str().unwrap()),
            "{}",
            said.err
        );
        let missing = dir.path().join("missing");
        wal(action, &missing).fails(1, &format!("error: {} is no directory\n", missing.display()));
    }
    let said = run(HARMONY, ["--json", "wal", "verify", "."], "");
    said.fails(2, "error: --json is an option of clients, not of wal\n");
    assert_eq!(content(dir.path()), [], "looking changes nothing");
}

#[test]
fn a_log_in_use_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let log = FileWal::open(OsFileSystem::new(), dir.path(), config()).unwrap();
    let said = wal("verify", dir.path());
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("another process uses this directory"), "{}", said.err);
    log.close().unwrap();
}
