//! What each call asks of the file system, as the table in the crate's documentation has it.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use harmony_types::config::WalConfig;
use harmony_types::fake::fs::{CallKind, MemoryFileSystem};
use harmony_types::{Entry, LogIndex, Term};
use harmony_wal::{FileWal, Wal};

struct Log {
    disk: MemoryFileSystem,
    wal: FileWal,
}

impl Log {
    fn new(segment_bytes: u64, cache_bytes: u64) -> Self {
        Self::on(MemoryFileSystem::new(), segment_bytes, cache_bytes)
    }

    fn on(disk: MemoryFileSystem, segment_bytes: u64, cache_bytes: u64) -> Self {
        let config = WalConfig { segment_bytes, cache_bytes, ..WalConfig::default() };
        let wal = FileWal::open(Arc::new(disk.clone()), Path::new("/wal"), config).unwrap();
        disk.start_trace(CallKind::ALL);
        Self { disk, wal }
    }

    fn append(&self, entries: u64) {
        let first = self.wal.bounds().last.0 + 1;
        let data = Bytes::from_static(&[7; 256]);
        let entry =
            |index| Entry { term: Term(1), index: LogIndex(index), data: data.clone(), ..Entry::default() };
        let entries: Vec<Entry> = (first..first + entries).map(entry).collect();
        self.wal.append_many(None, &entries).unwrap();
    }

    fn synced(&self, entries: u64) {
        self.append(entries);
        self.wal.sync().unwrap();
    }

    fn read(&self, first: u64, entries: u64) {
        let range = LogIndex(first)..LogIndex(first + entries);
        assert_eq!(self.wal.entries(range, u64::MAX).unwrap().len() as u64, entries);
    }

    /// First words of the calls that `run` made.
    #[track_caller]
    fn check(&self, run: impl FnOnce(&Self), calls: &str) {
        self.disk.take_trace();
        run(self);
        let first_word = |line: &String| line.split_whitespace().next().unwrap_or_default().to_owned();
        let made: Vec<String> = self.disk.take_trace().iter().map(first_word).collect();
        assert_eq!(made.join(" "), calls);
    }
}

#[test]
fn an_append_asks_nothing_and_a_sync_writes_and_syncs_once() {
    let log = Log::new(1 << 20, 1 << 20);
    log.check(|log| log.append(1), "");
    log.check(|log| log.wal.sync().unwrap(), "write sync");
    for entries in [1, 64] {
        log.check(|log| log.append(entries), "");
        log.check(|log| log.wal.sync().unwrap(), "write sync");
        log.check(|log| log.wal.sync().unwrap(), "");
    }
    log.check(|log| (0..100).for_each(|_| log.synced(1)), &["write sync"; 100].join(" "));
    log.check(|log| log.wal.truncate(LogIndex(100)).unwrap(), "");
    log.append(1);
    log.check(|log| log.wal.close().unwrap(), "write sync");
}

#[test]
fn large_groups_are_written_before_the_sync() {
    let log = Log::new(64 << 20, 1 << 20);
    log.append(14_000);
    log.check(|log| log.append(1_000), "write");
}

#[test]
fn a_segment_costs_four_syncs_and_a_released_one_saves_its_space() {
    let log = Log::new(64 << 10, 1 << 20);
    let old = "write sync";
    let (new, spare) = ("open allocate write sync rename sync_dir", "write sync rename sync_dir");
    // The handle that reads go through.
    let (seal, reads, group) = ("write sync", "open", "write write sync");
    log.check(|log| log.synced(300), &[old, new, seal, reads, group].join(" "));
    let (note, empty) = ("write sync", "rename sync_dir open set_len allocate sync");
    log.check(|log| log.wal.release(LogIndex(290)).unwrap(), &[note, empty].join(" "));
    log.check(|log| log.synced(300), &[old, spare, seal, reads, group].join(" "));
}

#[test]
fn reads_ask_nothing_of_the_cache_and_once_for_what_stands_together() {
    let log = Log::new(4 << 20, 16 << 10);
    log.synced(6_000);
    log.check(|log| log.read(5_990, 10), "");
    log.check(|log| log.read(10, 1), "read");
    // A frame of 296 bytes each, 1 MiB at once.
    log.check(|log| log.read(10, 3_500), "read");
    log.check(|log| log.read(10, 3_600), "read read");
    log.check(
        |log| {
            log.wal.bounds();
            log.wal.hard_state();
            log.wal.term(LogIndex(10)).unwrap();
        },
        "",
    );
}

/// In space that is settled; where it is not known to be, a group is written as it is, and zeros behind it.
#[test]
fn synced_groups_are_written_as_whole_blocks() {
    let disk = MemoryFileSystem::new();
    disk.set_block_bytes(Some(512));
    let log = Log::on(disk.clone(), 1 << 20, 1 << 20);
    disk.take_trace();
    for entries in [1, 1, 5, 1] {
        log.synced(entries);
        let trace = disk.take_trace();
        let place = trace[0].split_whitespace().last().unwrap();
        let numbers: Vec<u64> = place.split('+').map(|number| number.parse().unwrap()).collect();
        assert!(numbers.iter().all(|number| number.is_multiple_of(512)), "{trace:?}");
        assert_eq!(trace.len(), 1, "{trace:?}");
    }
    log.wal.close().unwrap();
    let log = Log::on(disk, 1 << 20, 1 << 20);
    log.check(|log| log.synced(1), "write write sync");
    log.check(|log| log.synced(1), "write");
}

/// An opening writes again what it cannot know to be synced. A large part is proved synced by the way, for the next one.
#[test]
fn a_large_unsynced_part_is_written_again_once() {
    let disk = MemoryFileSystem::new();
    let log = Log::on(disk.clone(), 16 << 20, 0);
    log.append(8000);
    log.wal.sync().unwrap();
    let open = || {
        disk.take_trace();
        let log = Log::on(disk.clone(), 16 << 20, 0);
        assert_eq!(log.wal.bounds().last, LogIndex(8000));
        let trace = disk.take_trace();
        let written = trace.iter().filter_map(|line| line.strip_prefix("write ")?.split('+').nth(1));
        written.map(|bytes| bytes.parse::<usize>().unwrap()).sum::<usize>()
    };
    drop(log);
    let bytes = 8000 * 300;
    assert!(bytes < open());
    assert!(open() < bytes / 10);
    let after = disk.crash_image(harmony_types::fake::fs::Crash::LoseUnsynced);
    assert_eq!(Log::on(after, 16 << 20, 0).wal.bounds().last, LogIndex(8000));
}
