//! What the log allocates: nothing for an entry, something for a segment, and what reads take.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

mod counting;

use std::sync::Mutex;

use bytes::Bytes;
use counting::{Counts, count};
use harmony_types::config::WalConfig;
use harmony_types::{Entry, LogIndex, Term};
use harmony_wal::{FileWal, OsFileSystem, Wal};
use tempfile::TempDir;

/// Small, so that a test goes over to the next one many times.
const SEGMENT_BYTES: u64 = 64 << 10;
/// What going over to the next segment may allocate: names, a file, its place among the segments.
const ROLL_ALLOCATIONS_MAX: u64 = 24;
/// What a release may allocate: names and lists of files.
const RELEASE_ALLOCATIONS_MAX: u64 = 48;
/// Entries that share one block of the index.
const INDEX_BLOCK_ENTRIES: u64 = 4096;
/// What such a block may allocate: itself, and the list of blocks.
const BLOCK_ALLOCATIONS_MAX: u64 = 2;

/// A log on real files with a cache that is soon full, and entries for it whose data is shared already.
struct Log {
    wal: FileWal,
    next: u64,
    _dir: TempDir,
}

/// What a run of appends took.
#[derive(Debug, Default)]
struct Taken {
    rolls: u64,
    /// Blocks of the index that were begun.
    blocks: u64,
    allocations: u64,
    /// Appends that allocated.
    appends: u64,
    /// Of those, the ones that did not go over to a segment or a block.
    unexplained: u64,
}

impl Taken {
    fn add(&mut self, counts: Counts, rolls: u64, blocks: u64) {
        self.rolls += rolls;
        self.blocks += blocks;
        self.allocations += counts.allocations;
        self.appends += u64::from(counts.allocations != 0);
        self.unexplained += u64::from(counts.allocations != 0 && rolls + blocks == 0);
    }

    #[track_caller]
    fn check(&self) {
        assert!(3 <= self.rolls, "too few entries to show anything: {self:?}");
        let bound = self.rolls * ROLL_ALLOCATIONS_MAX + self.blocks * BLOCK_ALLOCATIONS_MAX;
        assert!(self.allocations <= bound, "{self:?}");
    }
}

fn entry(index: u64, data: Bytes) -> Entry {
    Entry { term: Term(1), index: LogIndex(index), data, ..Entry::default() }
}

fn shared(index: u64) -> Entry {
    entry(index, Bytes::from_static(&[7; 256]))
}

/// The segment in which the log ends.
fn segment(wal: &FileWal) -> u32 {
    wal.append_many(None, &[]).unwrap().segment()
}

impl Log {
    /// With buffers and cache grown to the size that groups of up to 100 entries need.
    fn new(segment_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = WalConfig { segment_bytes, cache_bytes: 64 << 10, ..WalConfig::default() };
        let wal = FileWal::open(OsFileSystem::new(), dir.path(), config).unwrap();
        let mut log = Self { wal, next: 1, _dir: dir };
        log.append(20, 100, true);
        log
    }

    /// Appends `groups` of `entries`, each with a sync if asked to.
    fn append(&mut self, groups: u64, entries: u64, sync: bool) -> Taken {
        let mut taken = Taken::default();
        for _ in 0..groups {
            let group: Vec<Entry> = (self.next..self.next + entries).map(shared).collect();
            self.next += entries;
            let begins_block = |entry: &Entry| entry.index.0 % INDEX_BLOCK_ENTRIES == 1;
            let blocks = u64::from(group.iter().any(begins_block));
            let before = segment(&self.wal);
            let (_, counts) = count(|| {
                self.wal.append_many(None, &group).unwrap();
                if sync {
                    self.wal.sync().unwrap();
                }
            });
            let rolls = u64::from(segment(&self.wal) - before);
            taken.add(counts, rolls, blocks);
        }
        taken
    }

    fn read(&self, first: u64, entries: u64) -> Counts {
        let range = LogIndex(first)..LogIndex(first + entries);
        let (read, counts) = count(|| self.wal.entries(range, u64::MAX).unwrap());
        assert_eq!(read.len() as u64, entries);
        counts
    }
}

#[test]
fn synced_groups_allocate_nothing_between_rolls() {
    for (groups, entries) in [(1_000, 1), (100, 64)] {
        let taken = Log::new(SEGMENT_BYTES).append(groups, entries, true);
        taken.check();
        assert_eq!(taken.unexplained, 0, "{taken:?}");
    }
}

#[test]
fn appends_without_sync_allocate_nothing_between_rolls() {
    for entries in [1, 64] {
        let mut log = Log::new(8 << 20);
        // Until both buffers have grown.
        log.append(60_000 / entries, entries, false);
        let taken = log.append(100_000 / entries, entries, false);
        taken.check();
        // A roll is planned by one append and made by another, the one that finds enough to write.
        assert!(taken.unexplained <= taken.rolls, "{taken:?}");
    }
}

#[test]
fn a_log_that_releases_as_it_goes_takes_no_more() {
    let mut log = Log::new(SEGMENT_BYTES);
    let mut round = |checked: bool| {
        let (taken, appended) = count(|| log.append(20, 64, true));
        let (_, released) = count(|| log.wal.release(LogIndex(log.next - 1)).unwrap());
        if checked {
            taken.check();
            assert_eq!(taken.unexplained, 0, "{taken:?}");
            assert!(released.allocations <= RELEASE_ALLOCATIONS_MAX, "{released:?}");
        }
        appended.live_bytes + released.live_bytes
    };
    // Enough for the index to go from block to block.
    (0..8).for_each(|_| _ = round(false));
    let live_bytes: i64 = (0..32).map(|_| round(true)).sum();
    assert!(live_bytes.abs() < 4 << 10, "{live_bytes} bytes more after 32 rounds of 1280 entries");
}

#[test]
fn threads_that_share_a_sync_allocate_nothing_between_rolls() {
    let log = Log::new(SEGMENT_BYTES);
    let (wal, next, before) = (&log.wal, Mutex::new(log.next), segment(&log.wal));
    let append_all = || {
        let mut allocations = 0;
        for _ in 0..200 {
            let (_, counts) = count(|| {
                let mut next = next.lock().unwrap();
                wal.append_many(None, &[shared(*next)]).unwrap();
                *next += 1;
                drop(next);
                wal.sync().unwrap();
            });
            allocations += counts.allocations;
        }
        allocations
    };
    let allocations: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(append_all)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let rolls = u64::from(segment(wal) - before);
    let taken = Taken { rolls, blocks: 1, allocations, ..Taken::default() };
    taken.check();
}

/// `Bytes` made of a vector gets its count of owners when it is first cloned, and the cache is its second owner.
#[test]
fn data_without_another_owner_gets_its_count() {
    let mut log = Log::new(8 << 20);
    let group: Vec<Entry> = (0..64).map(|at| entry(log.next + at, Bytes::from(vec![7; 256]))).collect();
    log.next += 64;
    let (_, counts) = count(|| log.wal.append_many(None, &group).unwrap());
    assert_eq!(counts.allocations, 64);
}

/// The result, and lists that double; from disk also the name of each file read and one buffer for what stands together.
#[test]
fn reads_take_what_they_return() {
    let mut log = Log::new(8 << 20);
    log.append(50, 100, true);
    for (first, entries, allocations) in
        [(6_900, 1, 2), (6_900, 100, 7), (100, 1, 3), (100, 100, 10), (100, 1_000, 13)]
    {
        let counts = log.read(first, entries);
        assert!(counts.allocations <= allocations, "{entries} entries from {first}: {counts:?}");
    }
}
