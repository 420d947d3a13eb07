//! A log long enough to be read by several threads at open: the same answers as of a short one.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use harmony_types::config::WalConfig;
use harmony_types::fake::fs::{CallKind, Crash, Fault, MemoryFileSystem};
use harmony_types::{Entry, EntryType, HardState, LogIndex, NodeId, RecordType, Term, WalOffset};
use harmony_wal::{DumpOptions, FileWal, Wal, WalError, dump};

const DIR: &str = "/wal";
const GROUP: u64 = 50;

fn config() -> WalConfig {
    WalConfig { segment_bytes: 8 << 20, cache_bytes: 0, ..WalConfig::default() }
}

fn open(disk: &MemoryFileSystem) -> Result<FileWal, WalError> {
    FileWal::open(Arc::new(disk.clone()), Path::new(DIR), config())
}

fn entry(index: u64) -> Entry {
    let size = if index.is_multiple_of(5) { 10_000 } else { 40 };
    let data = Bytes::from(vec![u8::try_from(index % 251).unwrap(); size]);
    Entry { term: Term(1 + index / 1_000), index: LogIndex(index), entry_type: EntryType::Normal, data }
}

/// Six segments, the last one begun.
fn long_log() -> (MemoryFileSystem, u64) {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk).unwrap();
    let mut last = 0;
    while segments(&disk).len() < 6 {
        let entries: Vec<Entry> = (last + 1..=last + GROUP).map(entry).collect();
        let term = entries[0].term;
        let state = HardState { term, vote: NodeId::new(3), commit: LogIndex(last) };
        wal.append_many(Some(&state), &entries).unwrap();
        wal.sync().unwrap();
        last += GROUP;
    }
    wal.close().unwrap();
    (disk, last)
}

fn segments(disk: &MemoryFileSystem) -> Vec<PathBuf> {
    disk.files().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "wal")).collect()
}

#[test]
fn a_long_log_reads_back_whole() {
    let (disk, last) = long_log();
    let wal = open(&disk).unwrap();
    assert_eq!((wal.bounds().last, wal.recovery().segments), (LogIndex(last), 6));
    assert_eq!(wal.hard_state().commit, LogIndex(last - GROUP));
    let mut next = 1;
    while next <= last {
        for found in wal.entries(LogIndex(next)..LogIndex(last + 1), 1 << 20).unwrap() {
            assert_eq!(found, entry(next));
            assert_eq!(wal.term(LogIndex(next)).unwrap(), found.term);
            next += 1;
        }
    }
    wal.release(LogIndex(last / 2)).unwrap();
    let bounds = wal.bounds();
    drop(wal);
    assert_eq!(open(&disk).unwrap().bounds(), bounds);
}

/// Threads that read ahead of a refusal end, and the refusal is that of the first damage, whichever was met first.
#[test]
fn the_first_damage_of_a_long_log_is_the_one_named() {
    let (disk, _) = long_log();
    let paths = segments(&disk);
    for damaged in 0..5 {
        let disk = disk.crash_image(Crash::KeepAll);
        for path in &paths[damaged..] {
            disk.flip(path, 4_000_000, 0x10).unwrap();
        }
        let error = open(&disk).unwrap_err();
        let (WalError::CrcMismatch { path, index, .. } | WalError::CorruptRecord { path, index, .. }) =
            &error
        else {
            panic!("{error}");
        };
        assert_eq!(path, &paths[damaged]);
        // A dump is read with payloads, chunk by chunk: it must come to the same end.
        let mut text = Vec::new();
        let other = dump(&disk, Path::new(DIR), &mut text, DumpOptions::default()).unwrap_err();
        assert_eq!(other.to_string(), error.to_string());
        assert!(LogIndex(0) < *index);
    }
}

type Shown = (WalOffset, RecordType, LogIndex, Term, Vec<u8>);

fn open_showing(disk: &MemoryFileSystem) -> (Result<FileWal, WalError>, Vec<Shown>) {
    let mut shown = Vec::new();
    let opened = FileWal::open_with(Arc::new(disk.clone()), Path::new(DIR), config(), &mut |at, record| {
        shown.push((at, record.record_type, record.index, record.term, record.data.to_vec()));
    });
    (opened, shown)
}

fn scanned(wal: &FileWal) -> Vec<Shown> {
    let mut seen = Vec::new();
    wal.scan(&mut |at, record| {
        seen.push((at, record.record_type, record.index, record.term, record.data.to_vec()));
        true
    })
    .unwrap();
    seen
}

/// Through several threads and through one alike: what a scan finds afterwards, replaced entries and all.
#[test]
fn an_opening_shows_every_record_once_and_in_order() {
    let (disk, last) = long_log();
    let wal = open(&disk).unwrap();
    let replacing = Entry { term: Term(99), ..entry(last - 3) };
    wal.append_many(None, &[replacing]).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let (wal, shown) = open_showing(&disk);
    let wal = wal.unwrap();
    assert!(shown == scanned(&wal) && last < shown.len() as u64, "{} records", shown.len());
    wal.release(LogIndex(last - 10)).unwrap();
    drop(wal);
    assert!(segments(&disk).len() < 3);
    let (wal, shown) = open_showing(&disk);
    assert!(shown == scanned(&wal.unwrap()));
}

/// The process ended between the note that releases segments and their removal.
#[test]
fn what_an_opening_shows_of_released_segments_is_below_the_boundary() {
    let (disk, last) = long_log();
    let wal = open(&disk).unwrap();
    disk.inject(Fault::on([CallKind::Rename, CallKind::Remove]).lasting());
    wal.release(LogIndex(last / 2)).unwrap_err();
    drop(wal);
    let (wal, mut shown) = open_showing(&disk.crash_image(Crash::LoseUnsynced));
    let wal = wal.unwrap();
    let boundary = wal.bounds().boundary;
    assert!(LogIndex(1) < boundary && shown.iter().any(|(_, _, index, ..)| *index == LogIndex(1)));
    shown.retain(|(_, kind, index, ..)| *kind == RecordType::Entry && boundary < *index);
    let mut held = scanned(&wal);
    held.retain(|(_, kind, index, ..)| *kind == RecordType::Entry && boundary < *index);
    assert!(shown == held);
}

#[test]
fn what_an_opening_shows_ends_before_a_torn_tail() {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk).unwrap();
    wal.append_many(None, &[entry(1), entry(2)]).unwrap();
    wal.sync().unwrap();
    disk.inject(Fault::on([CallKind::Write]).short_write(20_000));
    let entries: Vec<Entry> = (3..40).map(entry).collect();
    wal.append_many(None, &entries).unwrap();
    wal.sync().unwrap_err();
    drop(wal);
    let (wal, shown) = open_showing(&disk.crash_image(Crash::KeepAll));
    let wal = wal.unwrap();
    assert!(wal.recovery().torn.is_some());
    assert!(shown == scanned(&wal));
    assert_eq!(shown.last().unwrap().2, wal.bounds().last);
}

#[test]
fn a_damaged_log_is_refused_whatever_was_shown() {
    let (disk, _) = long_log();
    disk.flip(&segments(&disk)[2], 4_000_000, 0x10).unwrap();
    let (opened, shown) = open_showing(&disk);
    assert_eq!(opened.unwrap_err().to_string(), open(&disk).unwrap_err().to_string());
    assert!(shown.iter().all(|(at, ..)| *at < WalOffset::new(3, 4_000_000)));
}

#[test]
fn a_failed_read_of_a_long_log_is_an_error() {
    let (disk, last) = long_log();
    for n in [8, 20, 40] {
        disk.inject(Fault::on([CallKind::Read]).nth(n));
        assert!(matches!(open(&disk), Err(WalError::Io { .. })));
        disk.clear_faults();
    }
    assert_eq!(open(&disk).unwrap().bounds().last, LogIndex(last));
}
