//! redb without a memtable: one unsynced commit for each batch, and now and then a durable one, as somebody would put it
//! under a log. Keys and values alone: no history, no revisions, no checksums on reads.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};

use crate::Result;
use crate::load::{self, Values};
use crate::node::BATCH;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("keys");

/// A chain of unsynced commits is cut after so much, whichever comes first.
const DURABLE_BYTES: u64 = 64 << 20;
const DURABLE_INTERVAL: Duration = Duration::from_secs(5);

pub struct Naive {
    database: Database,
    values: Values,
    unsynced: u64,
    synced: Instant,
}

impl Naive {
    pub fn open(dir: &Path, cache_bytes: usize) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let database = Database::builder().set_cache_size(cache_bytes).create(dir.join("naive.redb"))?;
        Ok(Self { database, values: Values::new(), unsynced: 0, synced: Instant::now() })
    }

    /// One commit.
    pub fn write(&mut self, writes: impl IntoIterator<Item = (u64, u32)>) -> Result<()> {
        let durable = DURABLE_BYTES <= self.unsynced || DURABLE_INTERVAL <= self.synced.elapsed();
        self.commit(writes, durable)
    }

    /// All that was written, on disk.
    pub fn sync(&mut self) -> Result<()> {
        self.commit([], true)
    }

    fn commit(&mut self, writes: impl IntoIterator<Item = (u64, u32)>, durable: bool) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        if durable {
            transaction.set_quick_repair(true);
        } else {
            transaction.set_durability(Durability::None)?;
        }
        {
            let mut table = transaction.open_table(TABLE)?;
            for (number, generation) in writes {
                let (key, value) = (load::key(number), self.values.of(number, generation));
                table.insert(&key[..], &value[..])?;
                self.unsynced += (key.len() + value.len()) as u64;
            }
        }
        transaction.commit()?;
        if durable {
            (self.unsynced, self.synced) = (0, Instant::now());
        }
        Ok(())
    }

    pub fn fill(&mut self, keys: u64) -> Result<()> {
        for first in (0..keys).step_by(BATCH as usize * 16) {
            let end = keys.min(first + BATCH * 16);
            self.write((first..end).map(|number| (number, 0)))?;
        }
        self.sync()
    }

    pub fn view(&self) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>> {
        Ok(self.database.begin_read()?.open_table(TABLE)?)
    }

    /// Rows of a range, copied out.
    pub fn list(&self, from: &[u8], end: &[u8]) -> Result<Vec<(Bytes, Bytes)>> {
        let rows = self.view()?.range::<&[u8]>(from..end)?.map(|row| {
            let (key, value) = row?;
            Ok((Bytes::copy_from_slice(key.value()), Bytes::copy_from_slice(value.value())))
        });
        rows.collect()
    }
}
