//! `harmony wal` on a real log: healthy, damaged, not there. Nothing is changed but by `repair --yes`.

mod program;

use std::fs;
use std::path::{Path, PathBuf};

use harmony_types::config::Identity;
use harmony_types::{ClusterId, Entry, EntryType, HardState, LogIndex, NodeId, Term, limits};
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
    segments(dir).remove(0)
}

/// All segments in order.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = content(dir).into_iter().map(|(path, _)| path).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    paths
}

/// All files with their content.
fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(dir).expect("a directory").map(|file| file.expect("a file").path());
    let files = files.filter(|path| path.is_file());
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
    for action in ["verify", "dump", "repair"] {
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

/// A log of three segments; closed when returned.
fn make_long_log(dir: &Path) {
    let log = FileWal::open(OsFileSystem::new(), dir, member_config()).expect("a new log");
    for index in 1..=20 {
        let data = format!("payload of entry {index} {}", "x".repeat(400)).into();
        let entry = Entry { term: Term(2), index: LogIndex(index), entry_type: EntryType::Normal, data };
        let state = HardState { term: Term(2), vote: NodeId::new(0xab), commit: LogIndex(index - 1) };
        log.append_many(Some(&state), &[entry]).expect("room for an entry");
        log.sync().expect("a sync");
    }
    log.close().expect("a sync");
    assert_eq!(segments(dir).len(), 3);
}

fn member_config() -> WalConfig {
    WalConfig { identity: Identity { cluster: ClusterId(0xc1), node: NodeId::new(0xab) }, ..config() }
}

fn flip(path: &Path, found: &[u8]) {
    let mut bytes = fs::read(path).expect("a segment");
    let at = bytes.windows(found.len()).position(|window| window == found).expect("what is to be damaged");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("room");
}

fn repair(dir: &Path, flags: &[&str]) -> Said {
    let args = ["wal".as_ref(), "repair".as_ref(), dir.as_os_str()];
    run(HARMONY, args.into_iter().chain(flags.iter().map(|flag| flag.as_ref())), "")
}

#[test]
fn a_repair_tells_what_it_costs_and_waits_for_yes() {
    let data = tempfile::tempdir().unwrap();
    let dir = data.path().join("member/wal");
    make_long_log(&dir);
    let damaged = segments(&dir).remove(1);
    flip(&damaged, b"payload of entry 12");
    let before = content(&dir);

    said_damaged(&wal("verify", data.path()), &dir);
    let said = repair(data.path(), &[]);
    assert_eq!(
        (said.code, said.err.as_str()),
        (Some(1), "error: nothing was changed; to repair the log as said, add --yes\n")
    );
    assert_eq!(content(&dir), before, "a plan changes nothing");
    for line in [
        format!("{}: damaged\n  damage      {} at byte ", dir.display(), damaged.display()),
        "  keeps       entries 1 to 11, behind index 0 of term 0\n              2 segments, with ".to_owned(),
        "              hard state term 2, vote ab, commit 10\n".to_owned(),
        format!("  cuts        {} from byte ", damaged.file_name().unwrap().display()),
        "  moves       0000000000000003-".to_owned(),
        "  loses       everything behind index 11: 17 whole records, entries 13 to 20, and what is damaged or missing itself\n"
            .to_owned(),
        "              some of it had certainly been synced, and so acknowledged\n".to_owned(),
        "              the newest hard state: term 2, vote ab, commit 19\n".to_owned(),
        "  member      ab of cluster c1: it may have acknowledged or voted for".to_owned(),
    ] {
        assert!(said.out.contains(&line), "{line:?} is not in\n{}", said.out);
    }

    let done = repair(data.path(), &["--yes"]);
    let kept_in = dir.join("repaired-1");
    let end = format!("repaired; what was cut and moved is kept, whole files, in {}\n", kept_in.display());
    assert_eq!(done.succeeds().strip_suffix(&end), Some(said.out.as_str()));
    for (path, bytes) in before.iter().filter(|(path, _)| segments(&dir).first() != Some(path)) {
        if path.extension().is_some_and(|extension| extension == "wal") {
            assert_eq!(fs::read(kept_in.join(path.file_name().unwrap())).unwrap(), *bytes);
        }
    }
    assert!(wal("verify", data.path()).succeeds().contains("  entries     1 to 11, "));
    assert_eq!(
        repair(data.path(), &["--yes"]).succeeds(),
        format!("{}: no damage, nothing to repair\n", dir.display())
    );
    let log = FileWal::open(OsFileSystem::new(), &dir, member_config()).unwrap();
    assert_eq!(log.bounds().last, LogIndex(11));
    assert_eq!(log.entries(LogIndex(11)..LogIndex(12), u64::MAX).unwrap()[0].term, Term(2));
}

/// A refusal that leads to the repair.
fn said_damaged(said: &Said, dir: &Path) {
    assert_eq!(said.code, Some(1), "{said:?}");
    let hint = format!("; `harmony wal repair {}` shows what a repair would keep and lose\n", dir.display());
    assert!(said.err.ends_with(&hint), "{}", said.err);
}

#[test]
fn a_lost_beginning_is_repaired_only_when_that_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    make_long_log(dir.path());
    flip(&segments(dir.path())[0], b"HARMWAL");
    let before = content(dir.path());
    for (flags, missing) in
        [(&[][..], "--yes --accept-lost-beginning"), (&["--yes"], "--accept-lost-beginning")]
    {
        let said = repair(dir.path(), flags);
        let hint = format!("error: nothing was changed; to repair the log as said, add {missing}\n");
        assert_eq!((said.code, said.err), (Some(1), hint));
        assert!(said.out.contains("  beginning   lost: "), "{}", said.out);
        assert_eq!(content(dir.path()), before);
    }
    repair(dir.path(), &["--yes", "--accept-lost-beginning"]).succeeds();
    let first =
        before.iter().find(|(path, _)| path.extension().is_some_and(|ending| ending == "wal")).unwrap();
    assert_eq!(fs::read(dir.path().join("repaired-1").join(first.0.file_name().unwrap())).unwrap(), first.1);
    assert!(wal("verify", dir.path()).succeeds().contains(" to 20, behind index "));
}

#[test]
fn a_log_in_use_or_of_a_newer_release_is_not_repaired() {
    let dir = tempfile::tempdir().unwrap();
    make_long_log(dir.path());
    let log = FileWal::open(OsFileSystem::new(), dir.path(), member_config()).unwrap();
    let said = repair(dir.path(), &["--yes"]);
    said.fails(1, "error: ");
    assert!(said.err.contains("another process uses this directory"), "{}", said.err);
    log.close().unwrap();
    drop(log);

    let path = &segments(dir.path())[1];
    let mut bytes = fs::read(path).unwrap();
    bytes[8] = 2;
    bytes[68] ^= 1;
    fs::write(path, bytes).unwrap();
    let before = content(dir.path());
    let said = repair(dir.path(), &["--yes"]);
    said.fails(1, &format!("error: {} has format version 2; ", path.display()));
    assert_eq!(content(dir.path()), before);
}
