//! harmony-wal. One log with one run of indexes: writers that work at the same time take turns to append, and wait for
//! the disk together.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use harmony_types::{Entry, LogIndex, RecordType, Term};
use harmony_wal::{FileWal, Filler, OsFileSystem, SystemClock, Wal, WalConfig};

use crate::Result;
use crate::payload::Payloads;
use crate::peer::{Log, Writer};

pub const SETTINGS: &str = "WalConfig::default(), fill_ahead(); recover: open_with(); append_many for each call, then sync() where the row says so; \
    writers share one run of indexes behind a mutex that is held for the append and not for the sync";

/// Bytes of entries read at once when all are read.
const READ_BYTES: u64 = 1 << 20;

pub struct Harmony {
    wal: FileWal,
    _filler: Filler,
    /// The next index, held while its entry is appended: entries of a log follow each other.
    next: Mutex<u64>,
}

pub fn open(dir: &Path) -> Result<Harmony> {
    with(FileWal::open(OsFileSystem::new(), dir, WalConfig::default())?)
}

/// Entries are shown while the log is opened: this one has none that a later record replaces.
pub fn recover(dir: &Path, show: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<Harmony> {
    let mut shown = Ok(());
    let wal = FileWal::open_with(OsFileSystem::new(), dir, WalConfig::default(), &mut |_, record| {
        if record.record_type == RecordType::Entry && shown.is_ok() {
            // The first byte is the entry's type.
            shown = show(record.index.0, &record.data[1..]);
        }
    })?;
    shown?;
    with(wal)
}

fn with(wal: FileWal) -> Result<Harmony> {
    let next = Mutex::new(wal.bounds().last.0 + 1);
    let _filler = wal.fill_ahead(Arc::new(SystemClock::new()))?;
    Ok(Harmony { wal, _filler, next })
}

struct Hand<'a> {
    log: &'a Harmony,
    batches: Vec<Vec<Entry>>,
    turn: usize,
}

impl Writer for Hand<'_> {
    fn append(&mut self, sync: bool) -> Result<()> {
        let turn = self.turn;
        self.turn = (turn + 1) % self.batches.len();
        let batch = &mut self.batches[turn];
        let mut next = self.log.next.lock().unwrap_or_else(PoisonError::into_inner);
        for (entry, index) in batch.iter_mut().zip(*next..) {
            entry.index = LogIndex(index);
        }
        self.log.wal.append_many(None, batch)?;
        *next += batch.len() as u64;
        drop(next);
        if sync {
            self.log.wal.sync()?;
        }
        Ok(())
    }
}

impl Log for Harmony {
    fn writer<'a>(&'a self, _: u64, payloads: &'a Payloads, batch: usize) -> Result<Box<dyn Writer + 'a>> {
        let entry = |data: &bytes::Bytes| Entry { term: Term(1), data: data.clone(), ..Entry::default() };
        let batches = payloads.batches(batch).map(|batch| batch.iter().map(entry).collect()).collect();
        Ok(Box::new(Hand { log: self, batches, turn: 0 }))
    }

    fn sync(&self) -> Result<()> {
        Ok(self.wal.sync()?)
    }

    fn read(&self, _: u64, index: u64, show: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let entries = self.wal.entries(LogIndex(index)..LogIndex(index + 1), u64::MAX)?;
        show(&entries[0].data)
    }

    fn last(&self, _: u64) -> u64 {
        self.wal.bounds().last.0
    }

    fn release(&self) -> Result<()> {
        self.wal.sync()?;
        Ok(self.wal.release(self.wal.bounds().last)?)
    }

    fn file_bytes(&self) -> u64 {
        WalConfig::default().segment_bytes
    }

    fn read_all(&self, show: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let bounds = self.wal.bounds();
        let mut from = bounds.first();
        while from <= bounds.last {
            for entry in self.wal.entries(from..bounds.last.next(), READ_BYTES)? {
                show(entry.index.0, &entry.data)?;
                from = entry.index.next();
            }
        }
        Ok(())
    }
}
