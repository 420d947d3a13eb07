//! What a log keeps in memory: 12 bytes an entry, a cache with a bound, and what is not written yet, with a bound too.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

mod counting;

use std::path::Path;

use bytes::Bytes;
use counting::count;
use harmony_types::config::WalConfig;
use harmony_types::{Entry, LogIndex, Term};
use harmony_wal::{FileWal, OsFileSystem, Wal};

/// 22 MB of log: less than what several threads read at open, whose memory would not be counted here.
const ENTRIES: u64 = 300_000;
const INDEX_BYTES: i64 = 12 * 300_000;
const CACHE_BYTES: i64 = 2 << 20;
const SEGMENT_BYTES: i64 = 1 << 20;
/// The begun block of the index, lists of blocks and segments, names, files: 160 bytes a segment and some more.
const FIXED_BYTES: i64 = (96 << 10) + (300 << 10);
/// An open reads pieces of 1 MiB.
const OPEN_BYTES_MAX: i64 = 2 << 20;
/// While appends outrun the disk: two buffers that hold 4 MiB and may have grown to twice that, and entries that the
/// cache must keep until they are written.
const UNWRITTEN_BYTES_MAX: i64 = 32 << 20;
/// 32 blocks of the index that are kept for reuse, and as many of the cache.
const SPARE_BYTES_MAX: i64 = 32 * (48 << 10) + 32 * (32 << 10);

fn open(dir: &Path) -> FileWal {
    let (segment_bytes, cache_bytes) = (SEGMENT_BYTES.unsigned_abs(), CACHE_BYTES.unsigned_abs());
    let config = WalConfig { segment_bytes, cache_bytes, ..WalConfig::default() };
    FileWal::open(OsFileSystem::new(), dir, config).unwrap()
}

/// Entries of 32 bytes, each with data of its own, as from a network.
fn append(wal: &FileWal) {
    let entry = |index| {
        let data = Bytes::from(vec![7; 32]);
        Entry { term: Term(1), index: LogIndex(index), data, ..Entry::default() }
    };
    for first in (1..=ENTRIES).step_by(100) {
        let group: Vec<Entry> = (first..first + 100).map(entry).collect();
        wal.append_many(None, &group).unwrap();
    }
}

#[test]
fn memory_stays_within_its_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path());
    let (_, appended) = count(|| append(&wal));
    let bound = INDEX_BYTES + CACHE_BYTES + UNWRITTEN_BYTES_MAX + FIXED_BYTES;
    assert!(appended.peak_bytes <= bound, "while appending: {appended:?}");
    wal.close().unwrap();
    drop(wal);

    let (wal, opened) = count(|| open(dir.path()));
    assert_eq!(wal.bounds().last, LogIndex(ENTRIES));
    assert!(INDEX_BYTES <= opened.live_bytes, "the index is somewhere: {opened:?}");
    assert!(opened.live_bytes <= INDEX_BYTES + FIXED_BYTES, "opened: {opened:?}");
    assert!(opened.peak_bytes <= INDEX_BYTES + FIXED_BYTES + OPEN_BYTES_MAX, "while opening: {opened:?}");

    let (_, released) = count(|| wal.release(LogIndex(ENTRIES)).unwrap());
    // A frame of 72 bytes for each of 12.
    let kept = SEGMENT_BYTES / 72 * 12 + SPARE_BYTES_MAX + FIXED_BYTES;
    assert!(opened.live_bytes + released.live_bytes <= kept, "released: {released:?} of {opened:?}");
}
