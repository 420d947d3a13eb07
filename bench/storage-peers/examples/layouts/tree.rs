//! The two tables in a redb file, and what changes them.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bench_harness::Result;
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend, TableDefinition,
};
use rustix::time::{ClockId, clock_gettime};

use crate::form::{self, Form, Put, Replaced, Row, Version};

pub const LATEST: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("latest");
pub const LOG: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("log");

const PAGE_BYTES: u64 = 4096;
const MIB: f64 = (1 << 20) as f64;
/// Rows of one commit while the tree is loaded.
const LOAD_ROWS: u64 = 1_000_000;

/// What a commit cost.
pub struct Cost {
    pub cpu: Duration,
    /// Pages written at least once.
    pub dirtied_mib: f64,
    pub written_mib: f64,
}

pub struct Tree {
    pub form: Form,
    pub database: Database,
    writes: Arc<Mutex<Writes>>,
    revision: u64,
    /// Rows of the log up to this revision are gone.
    dropped: u64,
}

impl Tree {
    pub fn create(form: Form, path: &Path, cache_bytes: usize) -> Result<Self> {
        let file = std::fs::File::options().read(true).write(true).create_new(true).open(path)?;
        let writes = Arc::new(Mutex::new(Writes::default()));
        let backend = CountingFile { file, writes: Arc::clone(&writes) };
        let database = Database::builder().set_cache_size(cache_bytes).create_with_backend(backend)?;
        Ok(Self { form, database, writes, revision: 0, dropped: 0 })
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Writes each key once, at the revision of its number and one.
    pub fn load(&mut self, keys: u64) -> Result<()> {
        let mut row = Vec::new();
        for first in (0..keys).step_by(LOAD_ROWS as usize) {
            let numbers = first..keys.min(first + LOAD_ROWS);
            let mut transaction = self.database.begin_write()?;
            transaction.set_quick_repair(true);
            {
                let mut table = transaction.open_table(LATEST)?;
                let mut end = table.upper_bound_mut(std::ops::Bound::<&[u8]>::Unbounded)?;
                for number in numbers.clone() {
                    let key = form::key(number);
                    let version = Version { revision: number + 1, value: form::value(number + 1) };
                    form::encode_latest(&key, version, &mut row);
                    end.insert_before(&key[..], &row[..])?;
                }
                end.close()?;
            }
            {
                let mut table = transaction.open_table(LOG)?;
                let mut end = table.upper_bound_mut(std::ops::Bound::<&[u8]>::Unbounded)?;
                for number in numbers {
                    let (key, log_key) = (form::key(number), (number + 1).to_be_bytes());
                    let value = self.form.keeps_created().then(|| form::value(number + 1));
                    Row { key: &key, value, replaced: Replaced::None }.encode(&log_key, &mut row);
                    end.insert_before(&log_key[..], &row[..])?;
                }
                end.close()?;
            }
            transaction.commit()?;
        }
        self.revision = keys;
        Ok(())
    }

    /// Takes these writes in, in one durable commit. They are in the order of their revisions.
    pub fn checkpoint(&mut self, puts: &[Put]) -> Result<Cost> {
        // As the storage's memory has them.
        let mut newest = BTreeMap::new();
        for put in puts {
            newest.entry(form::key(put.key)).or_insert_with(Vec::new).push(put.revision);
        }
        let (form, dropped) = (self.form, self.dropped);
        self.revision = puts.last().map_or(self.revision, |put| put.revision);
        self.commit(|latest, log| {
            let mut row = Vec::new();
            // Key, and what the first of its new versions replaced.
            let mut before: HashMap<form::Key, (u64, Vec<u8>)> = HashMap::with_capacity(newest.len());
            let mut previous: HashMap<u64, u64> = HashMap::with_capacity(puts.len());
            for (key, revisions) in &newest {
                for pair in revisions.windows(2) {
                    previous.insert(pair[1], pair[0]);
                }
                let revision = revisions.last().copied().unwrap_or(0);
                form::encode_latest(key, Version { revision, value: form::value(revision) }, &mut row);
                if let Some(old) = latest.insert(&key[..], &row[..])? {
                    let old = form::decode_latest(key, old.value());
                    let kept = match form {
                        Form::Pointer if dropped < old.revision => Vec::new(),
                        _ => old.value.to_vec(),
                    };
                    before.insert(*key, (old.revision, kept));
                }
            }
            let mut end = log.upper_bound_mut(std::ops::Bound::<&[u8]>::Unbounded)?;
            for put in puts {
                let (key, log_key) = (form::key(put.key), put.revision.to_be_bytes());
                let replaced = match previous.get(&put.revision) {
                    Some(older) if form == Form::Pointer => Replaced::At(*older),
                    Some(older) => Replaced::Here(Version { revision: *older, value: form::value(*older) }),
                    None => match before.get(&key) {
                        None => Replaced::None,
                        Some((revision, value)) if value.is_empty() => Replaced::At(*revision),
                        Some((revision, value)) => Replaced::Here(Version { revision: *revision, value }),
                    },
                };
                let left_out = match replaced {
                    Replaced::None => !form.keeps_created(),
                    _ => form == Form::Undo,
                };
                let value = (!left_out).then(|| form::value(put.revision));
                Row { key: &key, value, replaced }.encode(&log_key, &mut row);
                end.insert_before(&log_key[..], &row[..])?;
            }
            Ok(end.close()?)
        })
    }

    /// Drops the rows of the log up to and including this revision that nothing behind it points at. Returns how many it
    /// looked at.
    pub fn compact(&mut self, upto: u64) -> Result<(u64, Cost)> {
        let rows = self.log_rows_upto(upto)?;
        let end = upto.to_be_bytes();
        let form = self.form;
        self.dropped = upto;
        let cost = self.commit(|latest, log| {
            if form != Form::Pointer {
                return Ok(log.retain_in::<&[u8], _>(..=&end[..], |_, _| false)?);
            }
            // A row that is the last of its key here, when the key was written behind: the next row points at it.
            let mut last: HashMap<form::Key, u64> = HashMap::new();
            for row in log.range::<&[u8]>(..=&end[..])? {
                let (log_key, row) = row?;
                let key = Row::decode(log_key.value(), row.value()).key.try_into()?;
                last.insert(key, revision_of(log_key.value()));
            }
            let mut kept: HashMap<u64, ()> = HashMap::new();
            for (key, revision) in last {
                if let Some(row) = latest.get(&key[..])?
                    && upto < form::decode_latest(&key, row.value()).revision
                {
                    kept.insert(revision, ());
                }
            }
            Ok(log.retain_in::<&[u8], _>(..=&end[..], |key, _| kept.contains_key(&revision_of(key)))?)
        })?;
        Ok((rows, cost))
    }

    fn commit(
        &mut self,
        write: impl FnOnce(
            &mut redb::Table<'_, &'static [u8], &'static [u8]>,
            &mut redb::Table<'_, &'static [u8], &'static [u8]>,
        ) -> Result<()>,
    ) -> Result<Cost> {
        let writes = || self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        *writes() = Writes::default();
        let before = cpu();
        let mut transaction = self.database.begin_write()?;
        transaction.set_quick_repair(true);
        {
            let (mut latest, mut log) = (transaction.open_table(LATEST)?, transaction.open_table(LOG)?);
            write(&mut latest, &mut log)?;
        }
        transaction.commit()?;
        let cpu = cpu() - before;
        let writes = writes();
        Ok(Cost {
            cpu,
            dirtied_mib: (writes.pages() * PAGE_BYTES) as f64 / MIB,
            written_mib: writes.bytes as f64 / MIB,
        })
    }

    /// Pages that the two tables take.
    pub fn live_mib(&self) -> Result<f64> {
        let transaction = self.database.begin_read()?;
        let mut pages = 0;
        for table in [LATEST, LOG] {
            let stats = transaction.open_table(table)?.stats()?;
            pages += stats.leaf_pages() + stats.branch_pages();
        }
        Ok((pages * PAGE_BYTES) as f64 / MIB)
    }

    pub fn log_rows(&self) -> Result<u64> {
        Ok(self.database.begin_read()?.open_table(LOG)?.len()?)
    }

    fn log_rows_upto(&self, upto: u64) -> Result<u64> {
        let end = upto.to_be_bytes();
        let log = self.database.begin_read()?.open_table(LOG)?;
        Ok(log.range::<&[u8]>(..=&end[..])?.count() as u64)
    }
}

pub fn revision_of(log_key: &[u8]) -> u64 {
    u64::from_be_bytes(log_key.try_into().expect("8 bytes"))
}

/// CPU time of this process: redb works in the caller's thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// What was written to a file.
#[derive(Default, Debug)]
struct Writes {
    bytes: u64,
    /// One bit a page.
    pages: Vec<u64>,
}

impl Writes {
    fn add(&mut self, offset: u64, bytes: u64) {
        self.bytes += bytes;
        for page in offset / PAGE_BYTES..(offset + bytes).div_ceil(PAGE_BYTES) {
            let word = (page / 64) as usize;
            if self.pages.len() <= word {
                self.pages.resize(word + 1, 0);
            }
            self.pages[word] |= 1 << (page % 64);
        }
    }

    fn pages(&self) -> u64 {
        self.pages.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

#[derive(Debug)]
struct CountingFile {
    file: std::fs::File,
    writes: Arc<Mutex<Writes>>,
}

impl StorageBackend for CountingFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).add(offset, data.len() as u64);
        self.file.write_all_at(data, offset)
    }

    fn try_lock_range(
        &self,
        _: std::ops::Bound<u64>,
        _: std::ops::Bound<u64>,
    ) -> std::result::Result<bool, redb::BackendError> {
        Ok(true)
    }

    fn unlock_range(
        &self,
        _: std::ops::Bound<u64>,
        _: std::ops::Bound<u64>,
    ) -> std::result::Result<(), redb::BackendError> {
        Ok(())
    }
}
