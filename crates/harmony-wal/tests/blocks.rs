//! Groups that go to the disk as whole blocks.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use harmony_types::config::WalConfig;
use harmony_types::fake::fs::{Crash, MemoryFileSystem};
use harmony_types::{Entry, LogIndex, Term};
use harmony_wal::{FileWal, OsFileSystem, Wal};

fn entry(index: u64, bytes: usize) -> Entry {
    Entry { term: Term(1), index: LogIndex(index), data: Bytes::from(vec![7; bytes]), ..Entry::default() }
}

/// A group that a write without a sync has begun is durable as a whole.
#[test]
fn a_sync_covers_what_was_written_before_without_one() {
    let disk = MemoryFileSystem::new();
    disk.set_block_bytes(Some(512));
    let config = WalConfig { segment_bytes: 4 << 20, ..WalConfig::default() };
    let wal = FileWal::open(Arc::new(disk.clone()), Path::new("/wal"), config.clone()).unwrap();
    wal.append_many(None, &[entry(1, 200 << 10)]).unwrap(); // written at once, without a sync
    wal.append_many(None, &[entry(2, 10)]).unwrap();
    wal.sync().unwrap();
    let image = disk.crash_image(Crash::LoseUnsynced);
    let wal = FileWal::open(Arc::new(image), Path::new("/wal"), config).unwrap();
    assert_eq!(wal.bounds().last, LogIndex(2));
}

/// A second handle, for writes past the page cache, goes with the step to the next segment.
#[test]
fn a_segment_that_is_full_keeps_one_handle() {
    let dir = tempfile::tempdir().unwrap();
    let config = WalConfig { segment_bytes: 8 << 10, ..WalConfig::default() };
    let wal = FileWal::open(OsFileSystem::new(), dir.path(), config).unwrap();
    let fds = || {
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter(|fd| {
                std::fs::read_link(fd.as_ref().unwrap().path()).is_ok_and(|to| to.starts_with(dir.path()))
            })
            .count()
    };
    for index in 1..=100 {
        wal.append_many(None, &[entry(index, 5000)]).unwrap();
        wal.sync().unwrap();
    }
    let segments = std::fs::read_dir(dir.path())
        .unwrap()
        .filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "wal"))
        .count();
    assert!(fds() <= segments + 4, "{} for {segments}", fds());
}
