//! The log's everyday behaviour, through its public API.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use harmony_types::config::{Identity, WalConfig};
use harmony_types::fake::fs::MemoryFileSystem;
use harmony_types::{
    ClusterId, Entry, EntryType, FileSystem, HardState, LogIndex, NodeId, RecordType, Term, WalRecord, limits,
};
use harmony_wal::{FileWal, OsFileSystem, Wal, WalError, WalOffset};

const DIR: &str = "/data/wal";

fn entry(index: u64, term: u64, data: &[u8]) -> Entry {
    let entry_type = EntryType::Normal;
    Entry { term: Term(term), index: LogIndex(index), entry_type, data: Bytes::copy_from_slice(data) }
}

fn entries(indexes: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    indexes.map(|index| entry(index, term, format!("entry {index} of term {term}").as_bytes())).collect()
}

fn config() -> WalConfig {
    WalConfig { segment_bytes: limits::SEGMENT_BYTES_MIN, cache_bytes: 100, ..WalConfig::default() }
}

fn open(disk: &MemoryFileSystem) -> FileWal {
    try_open(disk, config()).unwrap()
}

fn try_open(disk: &MemoryFileSystem, config: WalConfig) -> Result<FileWal, WalError> {
    FileWal::open(Arc::new(disk.clone()), Path::new(DIR), config)
}

fn all(wal: &FileWal) -> Vec<Entry> {
    let bounds = wal.bounds();
    wal.entries(bounds.first()..bounds.last.next(), u64::MAX).unwrap()
}

#[test]
fn entries_and_hard_state_survive_a_restart_across_segments() {
    let disk = MemoryFileSystem::new();
    let state = HardState { term: Term(3), vote: NodeId::new(2), commit: LogIndex(150) };
    let wal = open(&disk);
    assert_eq!(wal.bounds().last, LogIndex(0));
    let mut written = entries(1..=100, 1);
    wal.append_many(None, &written).unwrap();
    assert_eq!(all(&wal), written, "readable at once");
    written.extend(entries(101..=200, 3));
    wal.append_many(Some(&state), &written[100..]).unwrap();
    wal.sync().unwrap();
    assert_eq!(all(&wal), written);
    wal.close().unwrap();
    assert!(matches!(wal.sync(), Err(WalError::Closed)));
    assert!(matches!(wal.term(LogIndex(1)), Err(WalError::Closed)));

    let wal = open(&disk);
    assert!(2 < wal.recovery().segments, "{:?}", wal.recovery());
    assert_eq!(wal.recovery().torn, None);
    assert_eq!((wal.hard_state(), all(&wal)), (state, written.clone()));
    assert_eq!((wal.term(LogIndex(100)).unwrap(), wal.term(LogIndex(101)).unwrap()), (Term(1), Term(3)));
    assert_eq!(wal.entries(LogIndex(5)..LogIndex(50), 0).unwrap(), written[4..5], "at least one");
    assert_eq!(wal.entries(LogIndex(5)..LogIndex(50), 40).unwrap().len(), 2);
    for range in [0..5, 200..202, 201..202] {
        let error = wal.entries(LogIndex(range.start)..LogIndex(range.end), 10).unwrap_err();
        assert!(matches!(error, WalError::InvalidIndex { .. }), "{error}");
    }
    assert!(wal.entries(LogIndex(900)..LogIndex(900), 10).unwrap().is_empty());
}

#[test]
fn every_record_reads_back_at_its_offset() {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk);
    let mut appended = Vec::new();
    for index in 1..=120u64 {
        let data = Bytes::from(vec![0; 1 + usize::try_from(index).unwrap()]);
        let record_type = RecordType::Entry;
        let record = WalRecord { record_type, index: LogIndex(index), term: Term(1), data, crc: 0 };
        appended.push((wal.append(record.clone()).unwrap(), record));
    }
    let state = WalRecord {
        record_type: RecordType::State,
        index: LogIndex(7),
        term: Term(2),
        data: Bytes::copy_from_slice(&9u64.to_le_bytes()),
        crc: 0,
    };
    appended.push((wal.append(state.clone()).unwrap(), state));
    assert_eq!(wal.hard_state().vote, NodeId::new(9));
    let plain = |record: WalRecord| WalRecord { crc: 0, ..record };
    for reopened in [false, true] {
        let wal = if reopened {
            wal.close().unwrap();
            &open(&disk)
        } else {
            &wal
        };
        for (offset, record) in &appended {
            assert_eq!(plain(wal.read(*offset).unwrap()), *record);
            let inside = WalOffset(offset.0 + 8);
            assert!(matches!(wal.read(inside), Err(WalError::NotFound { .. })), "{inside}");
        }
        let own = [RecordType::Crc, RecordType::State];
        let kept: Vec<WalRecord> = wal.read_all().unwrap().into_iter().map(plain).collect();
        let of_caller: Vec<_> = kept.iter().filter(|record| !own.contains(&record.record_type)).collect();
        assert_eq!(of_caller, appended[..120].iter().map(|(_, record)| record).collect::<Vec<_>>());
        assert_eq!(kept.last(), Some(&appended[120].1));
        let mut visited = 0;
        wal.scan(&mut |_, _| {
            visited += 1;
            visited < 5
        })
        .unwrap();
        assert_eq!(visited, 5);
    }
    for offset in [WalOffset(0), WalOffset::new(1, 0), WalOffset::new(99, 160), WalOffset::new(1, 161)] {
        assert!(matches!(open_after(&wal, &disk).read(offset), Err(WalError::NotFound { .. })), "{offset}");
    }
}

fn open_after(_closed: &FileWal, disk: &MemoryFileSystem) -> FileWal {
    open(disk)
}

#[test]
fn a_replaced_or_truncated_suffix_never_comes_back() {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk);
    wal.append_many(None, &entries(1..=100, 1)).unwrap();
    wal.append_many(None, &entries(60..=62, 2)).unwrap();
    assert_eq!(wal.bounds().last, LogIndex(62));
    wal.sync().unwrap();
    wal.truncate(LogIndex(62)).unwrap();
    wal.truncate(LogIndex(500)).unwrap();
    assert!(matches!(wal.truncate(LogIndex(0)), Err(WalError::InvalidIndex { .. })));
    let mut expected = entries(1..=59, 1);
    expected.extend(entries(60..=61, 2));
    assert_eq!(all(&wal), expected);
    wal.close().unwrap();
    let wal = open(&disk);
    assert_eq!(all(&wal), expected);
    assert_eq!(wal.term(LogIndex(61)).unwrap(), Term(2));
    wal.append_many(None, &entries(62..=62, 5)).unwrap();
    expected.extend(entries(62..=62, 5));
    drop(wal);
    assert_eq!(all(&open(&disk)), expected[..61], "not synced, and dropped");
}

/// The place behind the last entry needs a number, too.
#[test]
fn the_largest_index_is_no_place_for_an_entry() {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk);
    let snapshot = |index| {
        let (index, data) = (LogIndex(index), Bytes::new());
        wal.append(WalRecord { record_type: RecordType::Snapshot, index, term: Term(1), data, crc: 0 })
    };
    assert!(matches!(snapshot(u64::MAX), Err(WalError::InvalidIndex { .. })));
    snapshot(u64::MAX - 2).unwrap();
    let (last, beyond) = (entry(u64::MAX - 1, 1, b"last"), entry(u64::MAX, 1, b"beyond"));
    for group in [vec![beyond.clone()], vec![last.clone(), beyond.clone()]] {
        assert!(matches!(wal.append_many(None, &group), Err(WalError::InvalidIndex { .. })), "{group:?}");
    }
    wal.append_many(None, std::slice::from_ref(&last)).unwrap();
    assert!(matches!(wal.append_many(None, &[beyond]), Err(WalError::InvalidIndex { .. })));
    wal.close().unwrap();
    assert_eq!(all(&open(&disk)), [last]);
}

#[test]
fn entries_out_of_place_leave_the_log_as_it_was() {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk);
    wal.append_many(None, &entries(1..=3, 5)).unwrap();
    let end = wal.append_many(None, &[]).unwrap();
    let refused = [
        vec![entry(5, 5, b"gap")],
        vec![entry(4, 4, b"step back in term")],
        vec![entry(4, 5, b""), entry(6, 5, b"gap inside")],
        vec![entry(4, 5, b""), entry(5, 4, b"step back inside")],
        vec![entry(0, 5, b"below the first")],
    ];
    for group in refused {
        assert!(matches!(wal.append_many(None, &group), Err(WalError::InvalidIndex { .. })), "{group:?}");
    }
    let record = |record_type, data: &'static [u8]| WalRecord {
        record_type,
        index: LogIndex(4),
        term: Term(5),
        data: Bytes::from_static(data),
        crc: 0,
    };
    for bad in [
        record(RecordType::Entry, b""),
        record(RecordType::Entry, b"\x09x"),
        record(RecordType::State, b"x"),
        record(RecordType::Crc, b""),
    ] {
        assert!(matches!(wal.append(bad), Err(WalError::InvalidIndex { .. })));
    }
    let huge = Entry { data: Bytes::from(vec![0; limits::RECORD_BYTES_MAX]), ..entry(4, 5, b"") };
    assert!(matches!(wal.append_many(None, &[huge]), Err(WalError::TooLarge { .. })));
    assert_eq!(wal.append_many(None, &[]).unwrap(), end);
}

#[test]
fn released_segments_go_and_the_hard_state_stays() {
    let disk = MemoryFileSystem::new();
    let state = HardState { term: Term(1), vote: NodeId::new(3), commit: LogIndex(1) };
    let wal = open(&disk);
    wal.append_many(Some(&state), &entries(1..=600, 1)).unwrap();
    let error = wal.release(LogIndex(500)).unwrap_err();
    assert!(matches!(error, WalError::InvalidIndex { .. }), "not durable: {error}");
    wal.sync().unwrap();
    let (files, bytes) = (disk.files().len(), wal.disk_bytes());
    wal.release(LogIndex(500)).unwrap();
    assert!(disk.files().len() < files && wal.disk_bytes() < bytes);
    let bounds = wal.bounds();
    assert!((400..=500).contains(&bounds.boundary.0), "{bounds:?}");
    assert_eq!((bounds.boundary_term, bounds.last), (Term(1), LogIndex(600)));
    assert_eq!(all(&wal), entries(bounds.first().0..=600, 1));
    wal.release(LogIndex(500)).unwrap();
    wal.close().unwrap();
    let wal = open(&disk);
    assert_eq!((wal.bounds(), wal.hard_state()), (bounds, state));
    assert_eq!(all(&wal), entries(bounds.first().0..=600, 1));
}

#[test]
fn a_truncation_below_a_released_segment_keeps_the_boundary_right() {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk);
    wal.append_many(None, &entries(1..=60, 1)).unwrap();
    // Make the last entries of the first segment invalid from within a later one.
    wal.append_many(None, &entries(20..=200, 2)).unwrap();
    wal.sync().unwrap();
    wal.release(LogIndex(150)).unwrap();
    let bounds = wal.bounds();
    wal.close().unwrap();
    assert_eq!(open(&disk).bounds(), bounds);
}

#[test]
fn snapshots_move_the_boundary() {
    let disk = MemoryFileSystem::new();
    let snapshot = |index, term| WalRecord {
        record_type: RecordType::Snapshot,
        index: LogIndex(index),
        term: Term(term),
        data: Bytes::new(),
        crc: 0,
    };
    let wal = open(&disk);
    wal.append_many(None, &entries(1..=10, 1)).unwrap();
    wal.append(snapshot(4, 1)).unwrap();
    assert_eq!(all(&wal), entries(5..=10, 1));
    assert!(matches!(wal.append(snapshot(3, 1)), Err(WalError::InvalidIndex { .. })));
    assert!(matches!(wal.append_many(None, &entries(4..=4, 1)), Err(WalError::InvalidIndex { .. })));
    wal.append(snapshot(8, 7)).unwrap();
    let bounds = wal.bounds();
    assert_eq!((bounds.boundary, bounds.boundary_term, bounds.last), (LogIndex(8), Term(7), LogIndex(8)));
    wal.append(snapshot(500, 9)).unwrap();
    wal.append_many(None, &entries(501..=700, 9)).unwrap();
    wal.sync().unwrap();
    wal.release(LogIndex(500)).unwrap();
    let bounds = wal.bounds();
    wal.close().unwrap();
    let wal = open(&disk);
    assert_eq!((wal.bounds(), bounds.boundary), (bounds, LogIndex(500)));
    assert_eq!(all(&wal), entries(501..=700, 9));
}

#[test]
fn the_quota_refuses_before_anything_is_appended_and_release_frees() {
    let disk = MemoryFileSystem::new();
    let quota = 4 * limits::SEGMENT_BYTES_MIN;
    let wal = try_open(&disk, WalConfig { quota_bytes: Some(quota), ..config() }).unwrap();
    let mut last = 0;
    let error = loop {
        match wal.append_many(None, &entries(last + 1..=last + 1, 1)) {
            Ok(_) => last += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, WalError::Full { .. }), "{error}");
    assert_eq!((wal.bounds().last, wal.disk_bytes()), (LogIndex(last), quota));
    wal.sync().unwrap();
    wal.release(LogIndex(last - 1)).unwrap();
    wal.append_many(None, &entries(last + 1..=last + 1, 1)).unwrap();
    wal.close().unwrap();
}

#[test]
fn a_record_larger_than_a_segment_gets_one_of_its_size() {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk);
    let large = vec![entry(1, 1, &[7; 50_000]), entry(2, 1, &[0; 6 << 20]), entry(3, 1, b"small")];
    wal.append_many(None, &large).unwrap();
    wal.sync().unwrap();
    assert_eq!(all(&wal), large);
    wal.close().unwrap();
    assert_eq!(all(&open(&disk)), large);
}

#[test]
fn another_cluster_or_member_and_a_bad_configuration_are_refused() {
    let disk = MemoryFileSystem::new();
    let of = |cluster, node| WalConfig {
        identity: Identity { cluster: ClusterId(cluster), node: NodeId::new(node) },
        ..config()
    };
    try_open(&disk, of(1, 2)).unwrap().close().unwrap();
    for (cluster, node) in [(2, 2), (1, 3), (1, 0)] {
        assert!(matches!(try_open(&disk, of(cluster, node)), Err(WalError::Foreign { found_node: 2, .. })));
    }
    try_open(&disk, of(1, 2)).unwrap();
    let error = try_open(&disk, WalConfig { segment_bytes: 1, ..of(1, 2) }).err().unwrap();
    assert!(error.to_string().contains("segment size 1"), "{error}");
}

#[test]
fn a_second_open_is_refused_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er");
    let open = || FileWal::open(OsFileSystem::new(), &path, config());
    let wal = open().unwrap();
    assert!(matches!(open(), Err(WalError::Locked { .. })));
    wal.close().unwrap();
    let second = open().unwrap();
    assert!(matches!(open(), Err(WalError::Locked { .. })));
    drop(second);
    open().unwrap();
}

#[test]
fn threads_share_syncs_and_all_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let wal = FileWal::open(OsFileSystem::new(), dir.path(), config()).unwrap();
    let next = std::sync::Mutex::new(1);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    {
                        let mut next = next.lock().unwrap();
                        wal.append_many(None, &entries(*next..=*next, 1)).unwrap();
                        *next += 1;
                    }
                    wal.sync().unwrap();
                }
            });
        }
    });
    // No close: what was synced must be there without it.
    drop(wal);
    let wal = FileWal::open(OsFileSystem::new(), dir.path(), config()).unwrap();
    assert_eq!(all(&wal), entries(1..=400, 1));
}

#[test]
fn memory_stays_bounded_without_any_sync() {
    let disk = MemoryFileSystem::new();
    let wal = try_open(&disk, WalConfig { segment_bytes: 64 << 20, ..config() }).unwrap();
    let data = vec![3; 1 << 20];
    for index in 1..=12 {
        wal.append_many(None, &[entry(index, 1, &data)]).unwrap();
    }
    let segment = disk.files().into_iter().find(|path| path.extension().is_some_and(|e| e == "wal")).unwrap();
    let bytes = disk.read_file(segment).unwrap();
    assert!(8 << 20 < bytes.iter().filter(|byte| **byte == 3).count());
    let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
    assert!(fs.exists(Path::new(DIR)).unwrap());
}
