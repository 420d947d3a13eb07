//! okaywal. An entry of ours is a chunk of theirs, a batch is an entry of chunks; each commit syncs, there is no other.
//! Where a chunk lies is for its user to remember: kept here, as the index that other peers keep themselves.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use okaywal::{
    Configuration, EntryId, LogManager, LogPosition, ReadChunkResult, SegmentReader, WriteAheadLog,
};

use crate::Result;
use crate::payload::Payloads;
use crate::peer::{Log, Purpose, Writer};

pub const SETTINGS: &str = "to keep its entries: preallocate_bytes 256 MiB (512 for a million entries), no checkpoint; \
    recycling: Configuration::default_for (1 MiB files, checkpoint and reuse after 768 KiB)";

/// What recovery read, and where it lies.
#[derive(Debug, Default)]
struct Recovered {
    positions: Vec<LogPosition>,
    payloads: Vec<Vec<u8>>,
}

/// Remembers what recovery shows; lets go of what is checkpointed.
#[derive(Debug)]
struct Manager(Arc<Mutex<Recovered>>);

impl LogManager for Manager {
    fn recover(&mut self, entry: &mut okaywal::Entry<'_>) -> std::io::Result<()> {
        let mut recovered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let ReadChunkResult::Chunk(mut chunk) = entry.read_chunk()? {
            let position = chunk.log_position();
            let payload = chunk.read_all()?;
            if !chunk.check_crc()? {
                return Err(std::io::Error::other("a chunk with a wrong checksum"));
            }
            recovered.positions.push(position);
            recovered.payloads.push(payload);
        }
        Ok(())
    }

    fn checkpoint_to(&mut self, _: EntryId, _: &mut SegmentReader, _: &WriteAheadLog) -> std::io::Result<()> {
        Ok(())
    }
}

pub struct Okay {
    wal: Option<WriteAheadLog>,
    recovered: Arc<Mutex<Recovered>>,
    keeps: bool,
}

pub fn open(dir: &Path, purpose: Purpose) -> Result<Okay> {
    let recovered = Arc::default();
    let config = Configuration::default_for(dir);
    let config = match purpose {
        Purpose::Keep => config.preallocate_bytes(256 << 20).checkpoint_after_bytes(u64::MAX),
        Purpose::Fill => config.preallocate_bytes(512 << 20).checkpoint_after_bytes(u64::MAX),
        Purpose::Recycle => config,
    };
    let wal = config.open(Manager(Arc::clone(&recovered)))?;
    Ok(Okay { wal: Some(wal), recovered, keeps: purpose != Purpose::Recycle })
}

impl Okay {
    fn wal(&self) -> Result<&WriteAheadLog> {
        self.wal.as_ref().ok_or_else(|| "closed".into())
    }

    fn recovered(&self) -> MutexGuard<'_, Recovered> {
        self.recovered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Okay {
    fn drop(&mut self) {
        // Or its thread keeps the files open.
        if let Some(wal) = self.wal.take() {
            let _ = wal.shutdown();
        }
    }
}

struct Hand<'a> {
    log: &'a Okay,
    batches: Vec<&'a [Bytes]>,
    turn: usize,
    /// Of the batch being written.
    positions: Vec<LogPosition>,
}

impl Writer for Hand<'_> {
    fn append(&mut self, sync: bool) -> Result<()> {
        if !sync {
            return Err("okaywal appends nothing without a sync".into());
        }
        let turn = self.turn;
        self.turn = (turn + 1) % self.batches.len();
        let mut entry = self.log.wal()?.begin_entry()?;
        for payload in self.batches[turn] {
            self.positions.push(entry.write_chunk(payload)?.position);
        }
        if self.log.keeps {
            // Before the entry lets the next writer in, so that the index has their order.
            self.log.recovered().positions.append(&mut self.positions);
        } else {
            self.positions.clear();
        }
        entry.commit()?;
        Ok(())
    }
}

impl Log for Okay {
    fn writer<'a>(&'a self, _: u64, payloads: &'a Payloads, batch: usize) -> Result<Box<dyn Writer + 'a>> {
        let batches = payloads.batches(batch).collect();
        Ok(Box::new(Hand { log: self, batches, turn: 0, positions: Vec::with_capacity(batch) }))
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn read(&self, _: u64, index: u64, show: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let position = self.recovered().positions[index as usize - 1];
        let mut reader = self.wal()?.read_at(position)?;
        let mut payload = vec![0; reader.chunk_length() as usize];
        std::io::Read::read_exact(&mut reader, &mut payload)?;
        if !reader.crc_is_valid()? {
            return Err(format!("entry {index} has a wrong checksum").into());
        }
        show(&payload)
    }

    fn last(&self, _: u64) -> u64 {
        self.recovered().positions.len() as u64
    }

    fn release(&self) -> Result<()> {
        Ok(())
    }

    fn file_bytes(&self) -> u64 {
        1 << 20
    }

    fn read_all(&self, show: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        // Opening has read them.
        for (payload, index) in self.recovered().payloads.drain(..).zip(1..) {
            show(index, &payload)?;
        }
        Ok(())
    }
}
