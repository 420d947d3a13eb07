//! What opening makes of every damage: all that was synced is there, or the open is refused and changes nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use harmony_types::config::WalConfig;

use harmony_types::fake::fs::{CallKind, Change, Crash, Fate, Fault, MemoryFileSystem};
use harmony_types::{Entry, EntryType, HardState, LogIndex, NodeId, Term, limits};
use harmony_wal::{DumpOptions, FileWal, Wal, WalError, dump, verify};

const DIR: &str = "/wal";

fn entry(index: u64, data: Vec<u8>) -> Entry {
    let entry_type = EntryType::Normal;
    Entry { term: Term(1), index: LogIndex(index), entry_type, data: Bytes::from(data) }
}

fn config() -> WalConfig {
    WalConfig { segment_bytes: limits::SEGMENT_BYTES_MIN, cache_bytes: 0, ..WalConfig::default() }
}

fn open(disk: &MemoryFileSystem) -> Result<FileWal, WalError> {
    FileWal::open(Arc::new(disk.clone()), Path::new(DIR), config())
}

fn all(wal: &FileWal) -> Vec<Entry> {
    let bounds = wal.bounds();
    wal.entries(bounds.first()..bounds.last.next(), u64::MAX).unwrap()
}

/// A disk with three segments of synced entries, each group of another form; the last group is the caller's.
fn three_segments(last_group: &[Vec<u8>]) -> (MemoryFileSystem, Vec<Entry>) {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk).unwrap();
    let mut entries = Vec::new();
    let mut append = |group: &[Vec<u8>]| {
        let first = entries.len();
        for data in group {
            entries.push(entry(entries.len() as u64 + 1, data.clone()));
        }
        let state = HardState { term: Term(1), vote: NodeId::new(7), commit: LogIndex(first as u64) };
        wal.append_many(Some(&state), &entries[first..]).unwrap();
        wal.sync().unwrap();
    };
    for round in 0..4u8 {
        append(&[vec![round; 1100], vec![], vec![round + 1; 33]]);
        append(&[vec![0; 700]]);
    }
    append(last_group);
    wal.close().unwrap();
    assert_eq!(segments(&disk).len(), 3);
    (disk.crash_image(Crash::KeepAll), entries)
}

fn segments(disk: &MemoryFileSystem) -> Vec<PathBuf> {
    disk.files().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "wal")).collect()
}

/// All files but the lock, which opening may create.
fn content(disk: &MemoryFileSystem) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = disk.files().into_iter().filter(|path| !path.ends_with("LOCK"));
    files.map(|path| (path.clone(), disk.read_file(&path).unwrap())).collect()
}

/// A disk on which the last write, of three entries and a hard state, was written and not synced.
fn unsynced_write() -> (MemoryFileSystem, Vec<Entry>, usize) {
    let (disk, mut entries) = three_segments(&[vec![1; 8]]);
    let wal = open(&disk).unwrap();
    let synced = entries.len();
    for data in [vec![7; 10], vec![8; 1100], vec![]] {
        entries.push(entry(entries.len() as u64 + 1, data));
    }
    let state = HardState { term: Term(1), vote: None, commit: LogIndex(1) };
    wal.append_many(Some(&state), &entries[synced..]).unwrap();
    // A scan has to see it, so it is written; nobody asked for a sync.
    wal.read_all().unwrap();
    assert!(matches!(&disk.unsynced()[..], [Change::Write { .. }]), "{:?}", disk.unsynced());
    (disk, entries, synced)
}

fn check_cut(after: &MemoryFileSystem, entries: &[Entry], synced: usize, what: &str) -> usize {
    let looked = verify(after, Path::new(DIR)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let before = content(after);
    let wal = open(after).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = all(&wal);
    assert!(synced <= found.len() && entries.starts_with(&found), "{what}: {} entries", found.len());
    let torn = wal.recovery().torn.clone();
    assert_eq!(looked.torn, torn, "{what}");
    if let Some(torn) = &torn {
        let kept = after.read_file(&torn.kept).unwrap();
        let start = torn.offset.byte() as usize;
        assert_eq!(before[&torn.path][start..start + kept.len()], kept, "{what}");
        assert!(before[&torn.path][start + kept.len()..].iter().all(|byte| *byte == 0), "{what}");
    }
    // What was cut is gone for good, and the log goes on.
    let next = Entry { term: Term(2), ..entry(found.len() as u64 + 1, vec![3; 50]) };
    wal.append_many(None, std::slice::from_ref(&next)).unwrap();
    wal.sync().unwrap();
    let wal = open(&after.crash_image(Crash::LoseUnsynced)).unwrap();
    assert_eq!((wal.recovery().torn.clone(), all(&wal).last()), (None, Some(&next)), "{what}");
    found.len()
}

#[test]
fn a_write_cut_at_any_byte_is_recovered() {
    let (disk, entries, synced) = unsynced_write();
    let Change::Write { bytes, .. } = disk.unsynced()[0].clone() else { panic!("a write") };
    let mut lengths = Vec::new();
    for torn_bytes in 0..=bytes.len() {
        let after = disk.crash_image(Crash::Prefix { whole: 0, torn_bytes });
        lengths.push(check_cut(&after, &entries, synced, &format!("cut at {torn_bytes} of {}", bytes.len())));
    }
    assert!(lengths.is_sorted());
    assert_eq!((lengths[0], *lengths.last().unwrap()), (synced, entries.len()));
}

#[test]
fn a_write_of_which_any_sectors_are_missing_is_recovered() {
    let (disk, entries, synced) = unsynced_write();
    for subset in 0..16u32 {
        let marks: Vec<bool> = (0..4).map(|sector| subset >> sector & 1 == 1).collect();
        let after = disk.crash_image_with(|_, _| Fate::KeepSectors(marks.clone()));
        check_cut(&after, &entries, synced, &format!("sectors {marks:?}"));
    }
}

#[test]
fn what_a_killed_process_wrote_is_durable_once_it_was_recovered() {
    let (disk, entries, _) = unsynced_write();
    assert!(!disk.unsynced().is_empty());
    let wal = open(&disk).unwrap();
    assert_eq!(all(&wal), entries);
    assert_eq!(all(&open(&disk.crash_image(Crash::LoseUnsynced)).unwrap()), entries);
}

#[test]
fn a_sector_lost_before_a_later_sync_is_corruption_and_not_a_torn_tail() {
    let (disk, _) = three_segments(&[vec![4; 1500], vec![1; 8]]);
    let wal = open(&disk).unwrap();
    wal.append_many(None, &[entry(wal.bounds().last.0 + 1, vec![2; 8])]).unwrap();
    wal.sync().unwrap();
    wal.close().unwrap();
    let last = segments(&disk).pop().unwrap();
    let bytes = disk.read_file(&last).unwrap();
    let lost = bytes.chunks(512).position(|sector| sector.iter().all(|byte| *byte == 4)).unwrap();
    disk.overwrite(&last, lost as u64 * 512, &[0; 512]).unwrap();
    let before = content(&disk);
    assert!(matches!(open(&disk), Err(WalError::CrcMismatch { .. })));
    assert_eq!(content(&disk), before);
}

#[test]
fn a_failed_sync_poisons_and_is_not_retried() {
    let (disk, entries) = three_segments(&[vec![1]]);
    for call in [CallKind::Write, CallKind::Sync] {
        let disk = disk.crash_image(Crash::KeepAll);
        let wal = open(&disk).unwrap();
        let next = entry(entries.len() as u64 + 1, vec![1]);
        wal.append_many(None, std::slice::from_ref(&next)).unwrap();
        disk.inject(Fault::on([call]));
        assert!(matches!(wal.sync(), Err(WalError::Io { .. })), "{call:?}");
        let syncs = disk.calls(CallKind::Sync);
        for refused in [
            wal.sync(),
            wal.append_many(None, &[entry(next.index.0 + 1, vec![])]).map(drop),
            wal.truncate(LogIndex(5)),
            wal.release(LogIndex(5)),
        ] {
            assert!(matches!(refused, Err(WalError::Poisoned { .. })), "{refused:?}");
        }
        assert_eq!(wal.entries(LogIndex(1)..next.index, u64::MAX).unwrap(), entries, "reads go on");
        assert_eq!(wal.entries(next.index..next.index.next(), 9).unwrap(), [next]);
        assert!(!wal.read_all().unwrap().is_empty());
        assert!(matches!(wal.close(), Err(WalError::Poisoned { .. })));
        assert!(matches!(wal.close(), Err(WalError::Closed)));
        assert_eq!(disk.calls(CallKind::Sync), syncs, "no sync after one failed");
        assert!(entries.len() <= all(&open(&disk).unwrap()).len());
    }
}

#[test]
fn a_dump_shows_every_record_and_changes_nothing() {
    let (disk, entries, synced) = unsynced_write();
    let after = disk.crash_image(Crash::Prefix { whole: 0, torn_bytes: 90 });
    let before = content(&after);
    let mut text = Vec::new();
    let options = DumpOptions { data_bytes_max: 2 };
    let report = dump(&after, Path::new(DIR), &mut text, options).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(content(&after), before);
    assert_eq!(report.bounds.last, LogIndex(synced as u64 + 1));
    assert_eq!(text.matches(" entry ").count(), synced + 1);
    assert_eq!(text.matches(" seal, goes on").count(), 2);
    assert!(text.contains(&format!("entry {} term 1 type 0 10 bytes 0707…", synced + 1)), "{text}");
    assert!(text.contains("state term 1 vote 7 commit 0"), "{text}");
    assert!(text.ends_with("torn tail of 42 bytes, never acknowledged\n"), "{text}");
    assert!(synced + 1 < entries.len());

    let path = segments(&after)[1].clone();
    after.flip(&path, 300, 1).unwrap();
    let mut text = Vec::new();
    dump(&after, Path::new(DIR), &mut text, options).unwrap_err();
    assert!(String::from_utf8(text).unwrap().lines().last().unwrap().starts_with("refused: /wal/"));
    let empty = MemoryFileSystem::with_dir(DIR);
    assert!(matches!(verify(&empty, Path::new(DIR)), Err(WalError::Io { .. })));
    assert!(empty.files().is_empty());
}

#[test]
fn a_log_in_use_is_not_verified() {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk).unwrap();
    assert!(matches!(verify(&disk, Path::new(DIR)), Err(WalError::Locked { .. })));
    wal.close().unwrap();
    assert_eq!(verify(&disk, Path::new(DIR)).unwrap().records, 2);
}
