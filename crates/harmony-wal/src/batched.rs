//! [`BatchedWal`]: syncs after so many records, and after so much time.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use harmony_types::{
    Clock, DiskSpace, Entry, HardState, LogBounds, LogIndex, Term, Wal, WalError, WalOffset, WalRecord,
};

/// When a [`BatchedWal`] syncs by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// After so many appended records; at least 1.
    pub records_max: u64,
    /// When so much time has passed, if anything was appended.
    pub flush_interval: Duration,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self { records_max: 1_000, flush_interval: Duration::from_millis(10) }
    }
}

/// Any log, synced in batches: for callers that can lose the last moments and do not want to call `sync` themselves.
///
/// What was appended is durable after `records_max` records, after the flush interval, or after `sync` or `close`,
/// whichever comes first. A thread of its own keeps the time and ends with the log. When its sync fails, the log below
/// is poisoned, and the next call reports it.
pub struct BatchedWal<W> {
    inner: Arc<Inner<W>>,
}

struct Inner<W> {
    wal: W,
    options: BatchOptions,
    /// Records appended since a sync began.
    unsynced: AtomicU64,
    closed: AtomicBool,
}

impl<W: Wal + 'static> BatchedWal<W> {
    /// Puts batching over `wal`; `clock` times the flushes.
    ///
    /// # Errors
    /// [`WalError::Io`] when the system gives no thread.
    pub fn new(wal: W, options: BatchOptions, clock: Arc<dyn Clock>) -> Result<Self, WalError> {
        let (unsynced, closed) = (AtomicU64::new(0), AtomicBool::new(false));
        let inner = Arc::new(Inner { wal, options, unsynced, closed });
        let timer = Arc::downgrade(&inner);
        thread::Builder::new()
            .name("wal-flush".to_owned())
            .spawn(move || keep_time(&timer, options.flush_interval, &*clock))
            .map_err(WalError::io("start the flush thread of", "wal"))?;
        Ok(Self { inner })
    }

    /// The log below.
    #[must_use]
    pub fn inner(&self) -> &W {
        &self.inner.wal
    }
}

/// Flushes at each interval until the log is gone. Holds no strong reference while it sleeps, so that dropping the log
/// does not wait for the clock.
fn keep_time<W: Wal>(inner: &Weak<Inner<W>>, interval: Duration, clock: &dyn Clock) {
    loop {
        clock.sleep(interval);
        let Some(inner) = inner.upgrade() else { return };
        if inner.closed.load(Ordering::Acquire) {
            return;
        }
        if inner.unsynced.load(Ordering::Acquire) != 0
            && let Err(error) = inner.sync()
        {
            tracing::error!(%error, "timed flush of the write-ahead log failed");
            return;
        }
    }
}

impl<W: Wal> Inner<W> {
    fn sync(&self) -> Result<(), WalError> {
        // Before the sync: what is appended meanwhile counts for the next one.
        self.unsynced.store(0, Ordering::Release);
        self.wal.sync()
    }

    fn appended(&self, records: u64) -> Result<(), WalError> {
        let unsynced = self.unsynced.fetch_add(records, Ordering::AcqRel) + records;
        if self.options.records_max <= unsynced { self.sync() } else { Ok(()) }
    }
}

impl<W: Wal> Wal for BatchedWal<W> {
    fn append(&self, record: WalRecord) -> Result<WalOffset, WalError> {
        let offset = self.inner.wal.append(record)?;
        self.inner.appended(1)?;
        Ok(offset)
    }

    fn append_many(&self, hard_state: Option<&HardState>, entries: &[Entry]) -> Result<WalOffset, WalError> {
        let offset = self.inner.wal.append_many(hard_state, entries)?;
        self.inner.appended(entries.len() as u64 + u64::from(hard_state.is_some()))?;
        Ok(offset)
    }

    fn read(&self, offset: WalOffset) -> Result<WalRecord, WalError> {
        self.inner.wal.read(offset)
    }

    fn read_all(&self) -> Result<Vec<WalRecord>, WalError> {
        self.inner.wal.read_all()
    }

    fn scan(&self, visit: &mut dyn FnMut(WalOffset, WalRecord) -> bool) -> Result<(), WalError> {
        self.inner.wal.scan(visit)
    }

    fn entries(&self, range: Range<LogIndex>, bytes_max: u64) -> Result<Vec<Entry>, WalError> {
        self.inner.wal.entries(range, bytes_max)
    }

    fn term(&self, index: LogIndex) -> Result<Term, WalError> {
        self.inner.wal.term(index)
    }

    fn bounds(&self) -> LogBounds {
        self.inner.wal.bounds()
    }

    fn hard_state(&self) -> HardState {
        self.inner.wal.hard_state()
    }

    fn truncate(&self, from: LogIndex) -> Result<(), WalError> {
        self.inner.wal.truncate(from)?;
        self.inner.appended(1)
    }

    fn release(&self, upto: LogIndex) -> Result<(), WalError> {
        self.inner.wal.release(upto)
    }

    fn sync(&self) -> Result<(), WalError> {
        self.inner.sync()
    }

    fn disk_space(&self, upcoming_bytes: u64) -> DiskSpace {
        self.inner.wal.disk_space(upcoming_bytes)
    }

    fn unreserved_bytes(&self) -> u64 {
        self.inner.wal.unreserved_bytes()
    }

    fn close(&self) -> Result<(), WalError> {
        self.inner.closed.store(true, Ordering::Release);
        self.inner.wal.close()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use harmony_types::config::WalConfig;
    use harmony_types::fake::clock::VirtualClock;
    use harmony_types::fake::fs::{CallKind, Fault, MemoryFileSystem};

    use super::*;
    use crate::FileWal;

    const SECOND: Duration = Duration::from_secs(1);

    fn batched(records_max: u64) -> (MemoryFileSystem, VirtualClock, BatchedWal<FileWal>) {
        let (disk, clock) = (MemoryFileSystem::new(), VirtualClock::new());
        let config = WalConfig { segment_bytes: 1 << 20, ..WalConfig::default() };
        let wal = FileWal::open(Arc::new(disk.clone()), Path::new("/wal"), config).unwrap();
        let options = BatchOptions { records_max, flush_interval: SECOND };
        let batched = BatchedWal::new(wal, options, Arc::new(clock.clone())).unwrap();
        clock.wait_for_sleepers(1);
        (disk, clock, batched)
    }

    fn append(wal: &impl Wal, index: u64) -> Result<WalOffset, WalError> {
        let data = Bytes::from_static(b"data");
        wal.append_many(None, &[Entry { index: LogIndex(index), term: Term(1), data, ..Entry::default() }])
    }

    #[test]
    fn a_full_batch_is_synced() {
        let (disk, _clock, wal) = batched(3);
        let before = disk.calls(CallKind::Sync);
        append(&wal, 1).unwrap();
        append(&wal, 2).unwrap();
        assert_eq!(disk.calls(CallKind::Sync), before);
        append(&wal, 3).unwrap();
        assert_eq!(disk.calls(CallKind::Sync), before + 1);
        append(&wal, 4).unwrap();
        wal.close().unwrap();
        assert_eq!(disk.calls(CallKind::Sync), before + 2, "close flushes");
        assert!(matches!(append(&wal, 5), Err(WalError::Closed)));
    }

    #[test]
    fn time_syncs_what_waits_and_nothing_else() {
        let (disk, clock, wal) = batched(1_000);
        let before = disk.calls(CallKind::Sync);
        append(&wal, 1).unwrap();
        clock.advance(SECOND);
        // Asleep again means that it has done its work.
        clock.wait_for_sleepers(1);
        assert_eq!(disk.calls(CallKind::Sync), before + 1);
        clock.advance(SECOND);
        clock.wait_for_sleepers(1);
        assert_eq!(disk.calls(CallKind::Sync), before + 1, "nothing to sync");
        clock.stop();
    }

    #[test]
    fn a_failed_flush_shows_at_the_next_call() {
        let (disk, _clock, wal) = batched(2);
        append(&wal, 1).unwrap();
        disk.inject(Fault::on([CallKind::Sync]));
        assert!(matches!(append(&wal, 2), Err(WalError::Io { .. })));
        assert!(matches!(append(&wal, 3), Err(WalError::Poisoned { .. })));
        assert!(matches!(wal.close(), Err(WalError::Poisoned { .. })));
    }
}
