//! raft-engine. A lane is a Raft group ("region") of its own: it applies a write to its index after the write, in each
//! thread, and panics at a hole, so threads cannot append to one region at the same time.

use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;

use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};
use raft_proto::eraftpb;

use crate::Result;
use crate::payload::Payloads;
use crate::peer::{Log, Purpose, Writer};

pub const SETTINGS: &str = "Config::default() (LZ4 from 8 KiB a batch, files of 128 MiB, fallocate ahead, \
    4 recovery threads); one LogBatch reused by each writer, write(batch, sync); one region for one thread, 16 for 16; \
    recycling: files of 32 MiB, purge-threshold 128 MiB";

/// Size of files where they are recycled: smaller than the default, so that there are several without writing gigabytes.
const RECYCLED_FILE_MIB: u64 = 32;

/// Entries read at once when all are read.
const READ_ENTRIES: u64 = 4096;

/// How raft-engine learns an entry's index.
struct Ext;

impl MessageExt for Ext {
    type Entry = eraftpb::Entry;

    fn index(entry: &eraftpb::Entry) -> u64 {
        entry.index
    }
}

pub struct Raft {
    engine: Engine,
    /// Lanes that have written, for releasing.
    lanes: Mutex<u64>,
}

pub fn open(dir: &Path, purpose: Purpose, compress: bool) -> Result<Raft> {
    let mut config =
        Config { dir: dir.to_str().ok_or("a path that is no text")?.to_owned(), ..Config::default() };
    if !compress {
        config.batch_compression_threshold = ReadableSize(0);
    }
    if purpose == Purpose::Recycle {
        config.target_file_size = ReadableSize::mb(RECYCLED_FILE_MIB);
        config.purge_threshold = ReadableSize::mb(128);
    }
    Ok(Raft { engine: Engine::open(config)?, lanes: Mutex::new(0) })
}

/// Region 0 is not for use.
fn region(lane: u64) -> u64 {
    lane + 1
}

struct Hand<'a> {
    engine: &'a Engine,
    region: u64,
    next: u64,
    batches: Vec<Vec<eraftpb::Entry>>,
    turn: usize,
    log_batch: LogBatch,
}

impl Writer for Hand<'_> {
    fn append(&mut self, sync: bool) -> Result<()> {
        let turn = self.turn;
        self.turn = (turn + 1) % self.batches.len();
        let batch = &mut self.batches[turn];
        for entry in &mut *batch {
            entry.index = self.next;
            self.next += 1;
        }
        self.log_batch.add_entries::<Ext>(self.region, batch)?;
        self.engine.write(&mut self.log_batch, sync)?;
        Ok(())
    }
}

impl Log for Raft {
    fn writer<'a>(&'a self, lane: u64, payloads: &'a Payloads, batch: usize) -> Result<Box<dyn Writer + 'a>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        *lanes = (*lanes).max(lane + 1);
        let entry = |data: &bytes::Bytes| {
            let mut entry = eraftpb::Entry::new();
            entry.term = 1;
            entry.data = data.to_vec().into();
            entry
        };
        let batches = payloads.batches(batch).map(|batch| batch.iter().map(entry).collect()).collect();
        let next = self.last(lane) + 1;
        let log_batch = LogBatch::default();
        Ok(Box::new(Hand { engine: &self.engine, region: region(lane), next, batches, turn: 0, log_batch }))
    }

    fn sync(&self) -> Result<()> {
        // `Engine::sync` writes an empty batch, which `Engine::write` returns from before it syncs: no sync at all in
        // 0.4.2. A batch with something in it does sync.
        let mut batch = LogBatch::default();
        batch.put(u64::MAX >> 1, b"sync".to_vec(), b"1".to_vec())?;
        self.engine.write(&mut batch, true)?;
        Ok(())
    }

    fn read(&self, lane: u64, index: u64, show: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let entry = self.engine.get_entry::<Ext>(region(lane), index)?;
        show(&entry.ok_or_else(|| format!("raft-engine has no entry {index}"))?.data)
    }

    fn last(&self, lane: u64) -> u64 {
        self.engine.last_index(region(lane)).unwrap_or(0)
    }

    fn release(&self) -> Result<()> {
        let lanes = *self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        for lane in 0..lanes {
            self.engine.compact_to(region(lane), self.last(lane));
        }
        self.engine.purge_expired_files()?;
        Ok(())
    }

    fn file_bytes(&self) -> u64 {
        RECYCLED_FILE_MIB << 20
    }

    fn read_all(&self, show: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let (mut from, end) = (self.engine.first_index(region(0)).unwrap_or(1), self.last(0) + 1);
        let mut entries = Vec::new();
        while from < end {
            let upto = end.min(from + READ_ENTRIES);
            entries.clear();
            self.engine.fetch_entries_to::<Ext>(region(0), from, upto, None, &mut entries)?;
            for entry in &entries {
                show(entry.index, &entry.data)?;
            }
            from = upto;
        }
        Ok(())
    }
}
