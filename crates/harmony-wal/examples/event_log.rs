//! An event log for many threads: an event is on disk when `record` returns, and one sync serves all that wait.
//!
//! `cargo run -p harmony-wal --example event_log -- /tmp/some-directory`; again, and it goes on where it was.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

use harmony_wal::{Entry, FileWal, LogIndex, OsFileSystem, Term, Wal, WalConfig, WalError};

struct EventLog {
    wal: FileWal,
    /// Index of the next event.
    next: Mutex<LogIndex>,
}

impl EventLog {
    fn open(dir: &Path) -> Result<Self, WalError> {
        let wal = FileWal::open(OsFileSystem::new(), dir, WalConfig::default())?;
        let next = Mutex::new(wal.bounds().last.next());
        Ok(Self { wal, next })
    }

    /// Durable when it returns. The index is taken under the lock, the sync waits outside of it: others append meanwhile.
    fn record(&self, event: String) -> Result<LogIndex, WalError> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let index = *next;
        self.wal
            .append_many(None, &[Entry { term: Term(1), index, data: event.into(), ..Entry::default() }])?;
        *next = index.next();
        drop(next);
        self.wal.sync()?;
        Ok(index)
    }
}

fn main() -> Result<(), WalError> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from);
    run(&dir.unwrap_or_else(|| std::env::temp_dir().join("harmony-wal-events"))).map(drop)
}

/// Returns how many events the log holds in the end.
pub(crate) fn run(dir: &Path) -> Result<u64, WalError> {
    let log = EventLog::open(dir)?;
    let write = |thread| (0..100).try_for_each(|event| log.record(format!("{thread}: {event}")).map(drop));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|thread| scope.spawn(move || write(thread))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a writer does not panic"))
    })?;
    // As if the process ended here: nothing is flushed, and nothing needs to be.
    drop(log);

    let log = EventLog::open(dir)?;
    let held = log.wal.bounds();
    let last = log.wal.entries(held.last..held.last.next(), u64::MAX)?;
    println!("{} events, the last one is {}", held.last, String::from_utf8_lossy(&last[0].data));
    log.wal.close()?;
    Ok(held.last.0)
}
