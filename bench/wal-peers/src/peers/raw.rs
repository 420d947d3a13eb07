//! A file that was filled with zeros before, written over from its start, again and again: what the disk allows. No
//! frame, no checksum, no index, no recovery.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Result;
use crate::payload::Payloads;
use crate::peer::{Log, Writer};

pub const SETTINGS: &str = "a file of 256 MiB, zero-filled and synced before; pwrite, then fdatasync, by each thread \
    for itself; starts over at its end";

const FILE_BYTES: u64 = 256 << 20;

pub struct Raw {
    file: File,
    /// Bytes written ever.
    end: AtomicU64,
}

pub fn open(dir: &Path) -> Result<Raw> {
    std::fs::create_dir_all(dir)?;
    let mut file = File::options().create_new(true).read(true).write(true).open(dir.join("raw"))?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..FILE_BYTES >> 20 {
        file.write_all(&zeros)?;
    }
    file.sync_all()?;
    Ok(Raw { file, end: AtomicU64::new(0) })
}

struct Hand<'a> {
    log: &'a Raw,
    batches: Vec<Vec<u8>>,
    turn: usize,
}

impl Writer for Hand<'_> {
    fn append(&mut self, sync: bool) -> Result<()> {
        let turn = self.turn;
        self.turn = (turn + 1) % self.batches.len();
        let batch = &self.batches[turn];
        let at = self.log.end.fetch_add(batch.len() as u64, Ordering::Relaxed) % FILE_BYTES;
        self.log.file.write_all_at(batch, at)?;
        if sync {
            self.log.file.sync_data()?;
        }
        Ok(())
    }
}

impl Log for Raw {
    fn writer<'a>(&'a self, _: u64, payloads: &'a Payloads, batch: usize) -> Result<Box<dyn Writer + 'a>> {
        let batches = payloads.batches(batch).map(|batch| batch.concat()).collect();
        Ok(Box::new(Hand { log: self, batches, turn: 0 }))
    }

    fn sync(&self) -> Result<()> {
        Ok(self.file.sync_data()?)
    }

    fn read(&self, _: u64, _: u64, _: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        Err("a raw file has no entries".into())
    }

    fn last(&self, _: u64) -> u64 {
        0
    }

    fn release(&self) -> Result<()> {
        Ok(())
    }

    fn file_bytes(&self) -> u64 {
        FILE_BYTES
    }

    fn read_all(&self, _: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        Err("a raw file has no entries".into())
    }
}
