//! The log alone: append, sync, cut the tail, release the head, read back.
//!
//! `cargo run -p harmony-wal --example standalone -- /tmp/some-directory`; again, and it goes on where it was.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use harmony_wal::{Entry, FileWal, LogBounds, LogIndex, OsFileSystem, Term, Wal, WalConfig, WalError};

fn main() -> Result<(), WalError> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from);
    run(&dir.unwrap_or_else(|| std::env::temp_dir().join("harmony-wal-standalone"))).map(drop)
}

/// Returns what the log holds in the end.
pub(crate) fn run(dir: &Path) -> Result<LogBounds, WalError> {
    let config = WalConfig { segment_bytes: 64 << 10, ..WalConfig::default() };
    let wal = FileWal::open(OsFileSystem::new(), dir, config)?;
    let found = wal.bounds();
    println!("{}: entries {}..={}, {:?}", dir.display(), found.first(), found.last, wal.recovery());

    let entry = |index| {
        let data = Bytes::from(format!("the payload of entry {index}, whatever it means to its owner"));
        Entry { term: Term(1), index: LogIndex(index), data, ..Entry::default() }
    };
    let entries: Vec<Entry> = (found.last.0 + 1..).take(1000).map(entry).collect();
    wal.append_many(None, &entries)?;
    wal.sync()?;
    println!("appended and synced 1000 entries, up to {}", wal.bounds().last);

    wal.truncate(LogIndex(wal.bounds().last.0 - 9))?;
    wal.sync()?;
    println!("truncated the last ten: the log ends at {}", wal.bounds().last);

    wal.release(LogIndex(wal.bounds().last.0 - 100))?;
    let kept = wal.bounds();
    println!("released what whole segments hold before the last hundred: {}..={}", kept.first(), kept.last);

    let last = wal.entries(kept.last..kept.last.next(), u64::MAX)?;
    println!("entry {}: {}", last[0].index, String::from_utf8_lossy(&last[0].data));
    wal.close()?;
    Ok(kept)
}
