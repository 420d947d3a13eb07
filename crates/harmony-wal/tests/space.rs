//! What the log takes on disk: released segments are used again, and a full disk neither loses nor stops anything for
//! good.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use harmony_types::config::WalConfig;
use harmony_types::fake::fs::{CallKind, Crash, ENOSPC, Fate, Fault, MemoryFileSystem};
use harmony_types::{DiskSpace, Entry, EntryType, FileSystem, LogIndex, Term, limits};
use harmony_wal::{FileWal, OsFileSystem, Wal, WalError};

const DIR: &str = "/wal";
const SEGMENT: u64 = limits::SEGMENT_BYTES_MIN;

fn config() -> WalConfig {
    WalConfig { segment_bytes: SEGMENT, cache_bytes: 0, ..WalConfig::default() }
}

fn open(disk: &MemoryFileSystem) -> FileWal {
    FileWal::open(Arc::new(disk.clone()), Path::new(DIR), config()).unwrap()
}

fn entry(index: u64) -> Entry {
    let data = Bytes::from(vec![u8::try_from(index % 250 + 1).unwrap(); 300]);
    Entry { term: Term(1), index: LogIndex(index), entry_type: EntryType::Normal, data }
}

/// Appends and syncs the next `count` entries.
fn append(wal: &FileWal, count: u64) {
    let first = wal.bounds().last.0 + 1;
    let entries: Vec<Entry> = (first..first + count).map(entry).collect();
    wal.append_many(None, &entries).unwrap();
    wal.sync().unwrap();
}

/// Appends and syncs until the log refuses, and returns why.
fn fill(wal: &FileWal) -> WalError {
    loop {
        match wal.append_many(None, &[entry(wal.bounds().last.0 + 1)]) {
            Ok(_) => wal.sync().unwrap(),
            Err(error) => return error,
        }
    }
}

/// All entries held are the right ones.
fn check(wal: &FileWal) {
    let bounds = wal.bounds();
    let held = wal.entries(bounds.first()..bounds.last.next(), u64::MAX).unwrap();
    assert_eq!(held, (bounds.first().0..=bounds.last.0).map(entry).collect::<Vec<_>>());
}

fn files(disk: &MemoryFileSystem, extension: &str) -> Vec<PathBuf> {
    disk.files().into_iter().filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

#[test]
fn released_segments_become_the_next_ones() {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk);
    append(&wal, 60);
    let segments = files(&disk, "wal").len();
    wal.release(wal.bounds().last).unwrap();
    assert_eq!((files(&disk, "wal").len(), files(&disk, "free").len()), (1, 2), "of {segments}");
    assert_eq!(wal.disk_bytes(), 3 * SEGMENT);
    for spare in files(&disk, "free") {
        assert_eq!(disk.read_file(&spare).unwrap(), vec![0; 4096], "{}", spare.display());
    }
    let allocated = disk.calls(CallKind::Allocate);
    append(&wal, 20);
    assert_eq!(disk.calls(CallKind::Allocate), allocated, "no new space");
    assert_eq!((files(&disk, "wal").len(), files(&disk, "free").len()), (3, 0));
    check(&wal);
    wal.close().unwrap();
    check(&open(&disk));
}

#[test]
fn spares_outlive_the_process_and_what_they_hold_is_never_trusted() {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk);
    append(&wal, 60);
    wal.release(wal.bounds().last).unwrap();
    drop(wal);
    for spare in files(&disk, "free") {
        disk.overwrite(&spare, 100, &[0xee; 3000]).unwrap();
    }
    disk.resize(&files(&disk, "free")[0], SEGMENT - 1).unwrap();
    let wal = open(&disk);
    assert_eq!((wal.disk_bytes(), files(&disk, "free").len()), (2 * SEGMENT, 1), "one has the wrong length");
    append(&wal, 25);
    let wal = open(&disk.crash_image(Crash::KeepAll));
    assert_eq!(wal.recovery().torn, None);
    check(&wal);
}

/// Between the old name's end and the moment when the content is gone, a crash finds any of the two in any mix.
#[test]
fn a_crash_at_any_call_of_a_release_leaves_a_log_that_goes_on() {
    for n in 1.. {
        let disk = MemoryFileSystem::new();
        let wal = open(&disk);
        append(&wal, 60);
        let (first, last) = (wal.bounds().first(), wal.bounds().last);
        disk.inject(Fault::on(CallKind::CHANGING).nth(n).lasting());
        let released = wal.release(last);
        let struck = disk.faults_struck();
        assert!(released.is_ok() || struck != 0);
        disk.clear_faults();
        for kept in [Fate::Keep, Fate::Lose] {
            for alone in 0..=disk.unsynced().len() {
                let other = if matches!(kept, Fate::Keep) { Fate::Lose } else { Fate::Keep };
                let after =
                    disk.crash_image_with(|at, _| if at == alone { other.clone() } else { kept.clone() });
                let wal = open(&after);
                assert_eq!(wal.bounds().last, last);
                assert!(first <= wal.bounds().first());
                check(&wal);
                append(&wal, 30);
                check(&open(&after.crash_image(Crash::LoseUnsynced)));
            }
        }
        if struck == 0 {
            break;
        }
    }
}

#[test]
fn a_reader_of_a_released_segment_still_reads_what_was_there() {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk);
    append(&wal, 60);
    let mut seen = 0;
    let mut end = 0;
    wal.scan(&mut |_, record| {
        if seen == 0 {
            end = wal.bounds().last.0;
            wal.release(LogIndex(end)).unwrap();
            append(&wal, 30);
        }
        seen += 1;
        assert!(record.data.len() <= 301);
        true
    })
    .unwrap();
    assert!(60 <= seen, "{seen}");
    check(&wal);
}

#[test]
fn a_segment_of_another_size_gives_the_spares_up() {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk);
    append(&wal, 60);
    wal.release(wal.bounds().last).unwrap();
    let large = Entry { data: Bytes::from(vec![3; 20_000]), ..entry(61) };
    wal.append_many(None, &[large]).unwrap();
    wal.sync().unwrap();
    assert!(files(&disk, "free").is_empty());
    wal.release(LogIndex(61)).unwrap();
    append(&wal, 40);
    wal.release(wal.bounds().last).unwrap();
    assert!(files(&disk, "free").iter().all(|path| disk.read_file(path).unwrap().len() as u64 == SEGMENT));
}

#[test]
fn spares_stay_within_the_quota() {
    let disk = MemoryFileSystem::new();
    let quota = 2 * SEGMENT;
    let config = WalConfig { quota_bytes: Some(quota), ..config() };
    let wal = FileWal::open(Arc::new(disk.clone()), Path::new(DIR), config).unwrap();
    for _ in 0..10 {
        assert!(matches!(fill(&wal), WalError::Full { .. }));
        wal.release(wal.bounds().last).unwrap();
        assert!(wal.disk_bytes() <= quota);
        let used: u64 = disk.used_bytes();
        assert!(used <= quota + SEGMENT, "{used}: segments, spares, and the reserve of one segment");
    }
}

#[test]
fn a_full_disk_refuses_what_needs_a_segment_and_goes_on_after_a_release() {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk);
    disk.set_capacity(Some(disk.used_bytes() + 3 * SEGMENT + 100));
    let error = fill(&wal);
    assert!(matches!(&error, WalError::DiskFull { needed: SEGMENT, free: 100, .. }), "{error}");
    assert!(
        error.to_string().contains("needs 4096 bytes for its next segments and the disk has 100"),
        "{error}"
    );
    wal.sync().unwrap();
    check(&wal);
    let last = wal.bounds().last;
    for _ in 0..5 {
        wal.release(wal.bounds().last).unwrap();
        assert!(matches!(fill(&wal), WalError::DiskFull { .. }));
        check(&wal);
    }
    assert!(last < wal.bounds().last, "a release makes room");
    disk.set_capacity(None);
    append(&wal, 50);
    check(&wal);
}

/// Each segment has room for a note of a release. When that is used, and what releases freed is somebody else's by now, the
/// next is refused.
#[test]
fn a_release_without_room_for_its_note_leaves_the_log_as_it_was() {
    let disk = MemoryFileSystem::new();
    // Segments of another size are not kept for the next ones.
    let other_size = WalConfig { segment_bytes: 2 * SEGMENT, ..config() };
    let wal = FileWal::open(Arc::new(disk.clone()), Path::new(DIR), other_size).unwrap();
    append(&wal, 400);
    drop(wal);
    let wal = open(&disk);
    disk.set_capacity(Some(disk.used_bytes() + 3 * SEGMENT));
    assert!(matches!(fill(&wal), WalError::DiskFull { .. }));
    let mut upto = (1..).map(|step| LogIndex(step * 30));
    let (bounds, refused) = loop {
        disk.set_capacity(Some(disk.used_bytes()));
        let bounds = wal.bounds();
        match wal.release(upto.next().unwrap()) {
            Ok(()) => assert!(bounds.boundary < wal.bounds().boundary),
            Err(error) => break (bounds, error),
        }
    };
    assert!(matches!(refused, WalError::DiskFull { needed: SEGMENT, free: 0, .. }), "{refused}");
    assert_ne!(bounds.boundary, LogIndex(0), "the first had room");
    assert_eq!(wal.bounds(), bounds);
    disk.set_capacity(None);
    wal.release(wal.bounds().last).unwrap();
    assert!(bounds.boundary < wal.bounds().boundary);
    append(&wal, 1);
    check(&wal);
    drop(wal);
    check(&open(&disk));
}

#[test]
fn a_log_on_a_full_disk_opens_and_keeps_its_torn_tail_in_the_reserve() {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk);
    append(&wal, 30);
    wal.append_many(None, &[entry(31)]).unwrap();
    wal.read_all().unwrap();
    let torn = disk.crash_image_with(|_, _| Fate::KeepBytes(100));
    torn.set_capacity(Some(torn.used_bytes()));
    let wal = open(&torn);
    let found = wal.recovery().torn.clone().unwrap();
    assert_eq!(torn.read_file(&found.kept).unwrap().len() as u64, found.bytes);
    assert_eq!(wal.bounds().last, LogIndex(30));
    check(&wal);
    let path = Path::new(DIR).join("RESERVE");
    assert!(torn.read_file(&path).is_none_or(|bytes| (bytes.len() as u64) < SEGMENT));
    wal.release(LogIndex(30)).unwrap();
    append(&wal, 5);
    wal.close().unwrap();
    torn.set_capacity(None);
    check(&open(&torn));
    assert_eq!(torn.read_file(&path).unwrap().len() as u64, SEGMENT, "held back again");
}

#[test]
fn a_release_that_cannot_prepare_a_spare_is_still_a_release() {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk);
    append(&wal, 60);
    disk.inject(Fault::on([CallKind::SetLen]).errno(ENOSPC));
    wal.release(wal.bounds().last).unwrap();
    assert_eq!((files(&disk, "free").len(), wal.disk_bytes()), (1, 2 * SEGMENT));
    append(&wal, 30);
    check(&wal);
}

#[test]
fn real_files_are_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let wal = FileWal::open(OsFileSystem::new(), dir.path(), config()).unwrap();
    for _ in 0..20 {
        append(&wal, 30);
        check(&wal);
        wal.release(wal.bounds().last).unwrap();
    }
    assert_eq!(wal.disk_bytes(), 3 * SEGMENT);
    wal.close().unwrap();
    let wal = FileWal::open(OsFileSystem::new(), dir.path(), config()).unwrap();
    assert_eq!((wal.bounds().last, wal.disk_bytes()), (LogIndex(600), 3 * SEGMENT));
    check(&wal);
}

/// Each thread's entry is durable when its sync returns; the threads share syncs and none waits forever.
#[test]
fn many_threads_share_syncs() {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk);
    let before = disk.calls(CallKind::Sync);
    let order = std::sync::Mutex::new(());
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..50 {
                    {
                        let _turn = order.lock().unwrap();
                        wal.append_many(None, &[entry(wal.bounds().last.0 + 1)]).unwrap();
                    }
                    wal.sync().unwrap();
                }
            });
        }
    });
    let syncs = disk.calls(CallKind::Sync) - before;
    assert!(syncs <= 800 + 3 * 800 / 10, "{syncs} syncs for 800 entries and at most 80 new segments");
    assert_eq!(wal.bounds().last, LogIndex(800));
    check(&open(&disk.crash_image(Crash::LoseUnsynced)));
}

/// A failed sync reaches all that wait, in whichever queue.
#[test]
fn a_failed_sync_reaches_every_waiting_thread() {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk);
    append(&wal, 1);
    let hold = disk.hold([CallKind::Sync]);
    disk.inject(Fault::on([CallKind::Sync]));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (2..12)
            .map(|index| {
                wal.append_many(None, &[entry(index)]).unwrap();
                let thread = scope.spawn(|| wal.sync());
                if index == 2 {
                    hold.wait_for(1);
                }
                thread
            })
            .collect();
        drop(hold);
        for thread in threads {
            let error = thread.join().unwrap().unwrap_err();
            assert!(matches!(error, WalError::Io { .. } | WalError::Poisoned { .. }), "{error}");
        }
    });
}

/// What the log says ahead: it never refuses what it said it had place for.
#[test]
fn a_log_says_ahead_that_the_disk_is_nearly_full_and_takes_what_it_said_it_can() {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk);
    disk.set_capacity(Some(disk.used_bytes() + 2 * SEGMENT + 100));
    let mut seen = Vec::new();
    loop {
        // An entry takes a little more than its data.
        let space = wal.disk_space(400);
        if seen.last() != Some(&space) {
            seen.push(space);
        }
        let appended = wal.append_many(None, &[entry(wal.bounds().last.0 + 1)]);
        match (space, &appended) {
            (_, Ok(_)) => wal.sync().unwrap(),
            (DiskSpace::Out, Err(WalError::DiskFull { .. })) => break,
            refused => panic!("{refused:?}"),
        }
    }
    assert_eq!(seen, [DiskSpace::Enough, DiskSpace::Low, DiskSpace::Out]);
    wal.release(wal.bounds().last).unwrap();
    assert_eq!(wal.disk_space(0), DiskSpace::Enough, "released segments are room");
    disk.set_capacity(None);
    assert_eq!(wal.disk_space(0), DiskSpace::Enough);
    assert_ne!(wal.disk_space(u64::MAX), DiskSpace::Enough);
}

#[test]
fn a_log_that_reaches_its_quota_says_so_ahead() {
    let disk = MemoryFileSystem::new();
    let config = WalConfig { quota_bytes: Some(2 * SEGMENT), ..config() };
    let wal = FileWal::open(Arc::new(disk), Path::new(DIR), config).unwrap();
    while wal.disk_space(400) != DiskSpace::Out {
        append(&wal, 1);
    }
    assert!(matches!(fill(&wal), WalError::Full { .. }));
}

#[test]
fn a_log_tells_what_it_is_about_to_take() {
    let disk = MemoryFileSystem::new();
    let wal = open(&disk);
    assert_eq!(wal.unreserved_bytes(), 0);
    let free = disk.free_bytes(Path::new(DIR)).unwrap();
    while wal.unreserved_bytes() == 0 {
        append(&wal, 1);
        assert_eq!(disk.free_bytes(Path::new(DIR)).unwrap(), free, "told too late");
    }
    assert_eq!(wal.unreserved_bytes(), SEGMENT);
    let many: Vec<Entry> = (1..=20).map(|more| entry(wal.bounds().last.0 + more)).collect();
    wal.append_many(None, &many).unwrap();
    assert!(SEGMENT < wal.unreserved_bytes(), "planned, and not made yet");
    wal.sync().unwrap();
    assert!(wal.unreserved_bytes() <= SEGMENT);
}
