//! The tree in a redb file: the only module that names redb.
//!
//! - A visible commit is redb's `Durability::None`: it lives in memory, and a crash goes back to the last durable one,
//!   whole. The log is its redo log.
//! - A durable commit turns quick repair on, so that opening after a kill costs milliseconds whatever the file's size. That
//!   makes it a commit in two phases, which [`super::pages`] rests on.
//! - redb's reads do not verify its page checksums: every page that it reads has passed [`super::pages`], and every record
//!   carries a checksum of its own, see [`super::record`].
//! - A read that met a damaged page is redb's last one that needs the file: it refuses all that follow. Every error from then
//!   on names that page.

use std::any::Any;
use std::fmt::Display;
use std::io;
use std::ops::{Bound, Deref};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;

use harmony_types::{File, FileSystem, OpenMode, StorageError};
use harmony_wal::give_way;
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};

use super::backend::{FileBackend, FirstDamage};
use super::pages::{PAGE_BYTES, PagedFile};
use super::{Durability, KvEngine, KvView, KvWriter, NextRow, Table, Visit};

mod durable;
mod header;
mod space;
mod unchanged;
mod verify;

pub(crate) use space::Space;
pub(crate) use unchanged::{PageCounts, Unchanged};
pub(crate) use verify::Cursor;

const LATEST: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("latest");
const LOG: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("log");
const STATE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("state");

/// An open tree file.
pub(crate) struct RedbTree {
    database: Arc<Opened>,
    file: TreeFile,
}

/// A database that is closed without a panic, see [`call`].
struct Opened(Option<Database>);

impl Deref for Opened {
    type Target = Database;

    fn deref(&self) -> &Database {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let database = self.0.take();
        // What it could not write, the log has.
        let _ = std::panic::catch_unwind(AssertUnwindSafe(|| drop(database)));
    }
}

/// The file under a tree, and its name.
#[derive(Clone)]
struct TreeFile {
    pages: Arc<PagedFile>,
    damage: FirstDamage,
    path: Arc<Path>,
}

impl RedbTree {
    /// Opens the tree in `path`, with `mode` for the file itself. A new file becomes an empty tree with all tables.
    ///
    /// # Errors
    /// [`StorageError::Locked`] when another process has it; [`StorageError::Tree`] when it is no tree;
    /// [`StorageError::CrcMismatch`] and [`StorageError::CorruptRecord`] when it is damaged.
    pub(crate) fn open(
        fs: &dyn FileSystem,
        path: &Path,
        mode: OpenMode,
        cache_bytes: usize,
    ) -> Result<Self, StorageError> {
        let file = locked(fs, path, mode)?;
        if mode == OpenMode::CreateNew {
            return Self::create(file, path, cache_bytes);
        }
        let pages = PagedFile::open(file, path)?;
        check_length(&pages, path, true)?;
        let file = TreeFile { pages: Arc::new(pages), damage: FirstDamage::default(), path: path.into() };
        Self::open_pages(file, cache_bytes)
    }

    /// Makes an empty tree of an empty file.
    ///
    /// redb doubles the file when it is full, and writes to the smallest piece of free pages that will do. Of a number of
    /// pages that is no power of two that is the end of the file, so that it could never be cut again.
    fn create(file: Arc<dyn File>, path: &Path, cache_bytes: usize) -> Result<Self, StorageError> {
        let pages = PagedFile::create(file).map_err(StorageError::io("write", path))?;
        let file = TreeFile { pages: Arc::new(pages), damage: FirstDamage::default(), path: path.into() };
        let tree = Self::open_pages(file.clone(), cache_bytes)?;
        // A view needs the tables to exist.
        tree.commit(Durability::Visible, &mut |_| Ok(()))?;
        tree.close()?;
        let used = header::pages_told(&header::read(&file.pages, path)?) - 1;
        let bytes = (1 + used.next_power_of_two()) * PAGE_BYTES as u64;
        file.pages.set_len(bytes).map_err(StorageError::io("extend", path))?;
        Self::open_pages(file, cache_bytes)
    }

    fn open_pages(file: TreeFile, cache_bytes: usize) -> Result<Self, StorageError> {
        let backend = FileBackend::new(Arc::clone(&file.pages), Arc::clone(&file.damage));
        let database = call("open", &file, || {
            Database::builder().set_cache_size(cache_bytes).create_with_backend(backend)
        })?;
        Ok(Self { database: Arc::new(Opened(Some(database))), file })
    }

    /// Writes nothing more, so that the file stays as the last durable commit left it. Without this, redb makes all visible
    /// commits durable when the last handle is dropped, whether the log holds their entries or not.
    pub(crate) fn abandon(&self) {
        self.file.pages.abandon();
    }

    /// What stopped its reads, in words.
    pub(crate) fn damage(&self) -> Option<String> {
        let TreeFile { damage, path, .. } = &self.file;
        let met = damage.get().map(|page| page.to_error(path).to_string());
        met.or_else(|| Some(format!("read {}: {}", path.display(), damage.refused()?)))
    }

    /// Bytes of pages written since it was opened.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.file.pages.written_bytes()
    }

    /// Makes all that was committed durable, cuts what the file does not need at its end, and gives the file free.
    ///
    /// # Errors
    /// The system's: what is on disk is that of the last durable commit, or all.
    ///
    /// # Panics
    /// When a view of it is still there.
    pub(crate) fn close(self) -> Result<(), StorageError> {
        let Self { database, file } = self;
        let mut opened = Arc::into_inner(database).expect("whoever closes a tree has dropped its views");
        opened.0.take().map_or(Ok(()), |database| call("close", &file, || database.close()))
    }

    /// The same tree under the name that its file was renamed to.
    pub(crate) fn renamed(self, path: &Path) -> Self {
        Self { file: TreeFile { path: path.into(), ..self.file }, ..self }
    }
}

/// The file, locked until it is dropped.
fn locked(fs: &dyn FileSystem, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>, StorageError> {
    let file = fs.open(path, mode).map_err(StorageError::io("open", path))?;
    if file.try_lock().map_err(StorageError::io("lock", path))? {
        Ok(file)
    } else {
        Err(StorageError::Locked { path: path.to_owned() })
    }
}

/// Refuses a file that is shorter than redb's header says, which redb itself would trip over. It may be longer: redb syncs a
/// longer file before the header that tells of it, and a shorter header before it cuts the file. Such a length is made
/// durable before redb makes a header of it: a process that ended with a failed sync left it in the system's memory alone.
///
/// # Errors
/// [`StorageError::CorruptRecord`]; [`StorageError::CrcMismatch`] for a damaged header; [`StorageError::Io`].
fn check_length(pages: &PagedFile, path: &Path, may_write: bool) -> Result<(), StorageError> {
    let header = header::read(pages, path)?;
    let (found, expected) = (pages.len() / PAGE_BYTES as u64, header::pages_told(&header));
    if expected < found && may_write {
        let settled = pages.set_len(pages.len()).and_then(|()| pages.sync());
        return settled.map_err(StorageError::io("settle the length of", path));
    }
    if expected <= found {
        return Ok(());
    }
    Err(StorageError::CorruptRecord {
        place: path.display().to_string(),
        reason: format!("{found} pages, of {expected} that its header tells of: the file was cut"),
    })
}

/// Calls redb, which trusts the pages that it reads: one that is old together with its checksum comes through
/// [`super::pages`], and may make it panic.
///
/// # Errors
/// As [`failed`]; [`StorageError::CorruptRecord`] instead of a panic. A program that aborts on panics ends all the same.
fn call<T, E>(
    action: &'static str,
    file: &TreeFile,
    run: impl FnOnce() -> Result<T, E>,
) -> Result<T, StorageError>
where
    E: std::error::Error + Display + Send + Sync + 'static,
{
    contained(action, file, run)?.map_err(failed(action, file))
}

fn contained<T>(action: &'static str, file: &TreeFile, run: impl FnOnce() -> T) -> Result<T, StorageError> {
    std::panic::catch_unwind(AssertUnwindSafe(run)).map_err(|_| StorageError::CorruptRecord {
        place: file.path.display().to_string(),
        reason: format!("its pages do not belong together ({action}): the disk lost some writes"),
    })
}

/// A [`StorageError::Tree`] in the making, or the damage behind it. Errors are boxed: redb has one type for each of its
/// calls.
fn failed<E>(action: &'static str, file: &TreeFile) -> impl FnOnce(E) -> StorageError
where
    E: std::error::Error + Display + Send + Sync + 'static,
{
    move |error| match file.damage.get() {
        Some(damage) => damage.to_error(&file.path),
        None => StorageError::Tree { action, path: file.path.to_path_buf(), source: Box::new(error) },
    }
}

/// The system's error behind one of redb's, which has a type for each of its calls.
pub(crate) fn io_error<'a>(
    error: &'a (dyn std::error::Error + Send + Sync + 'static),
) -> Option<&'a io::Error> {
    let inner: &'a redb::StorageError = if let Some(error) = error.downcast_ref() {
        error
    } else if let Some(redb::CommitError::Storage(error)) = error.downcast_ref() {
        error
    } else if let Some(redb::TableError::Storage(error)) = error.downcast_ref() {
        error
    } else if let Some(redb::TransactionError::Storage(error)) = error.downcast_ref() {
        error
    } else if let Some(redb::DatabaseError::Storage(error)) = error.downcast_ref() {
        error
    } else {
        return None;
    };
    match inner {
        redb::StorageError::Io(error) => Some(error),
        _ => None,
    }
}

impl KvEngine for RedbTree {
    fn view(&self) -> Result<Arc<dyn KvView>, StorageError> {
        let transaction = call("begin a view", &self.file, || self.database.begin_read())?;
        let open = |table| call("open a table", &self.file, || transaction.open_table(table));
        Ok(Arc::new(RedbView {
            latest: open(LATEST)?,
            log: open(LOG)?,
            state: open(STATE)?,
            _kept: Arc::<Opened>::clone(&self.database),
            file: self.file.clone(),
        }))
    }

    fn commit(
        &self,
        durability: Durability,
        write: &mut dyn FnMut(&mut dyn KvWriter) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut transaction = call("begin a commit", &self.file, || self.database.begin_write())?;
        match durability {
            Durability::Visible => transaction
                .set_durability(redb::Durability::None)
                .map_err(failed("begin a commit", &self.file))?,
            Durability::Durable => transaction.set_quick_repair(true),
        }
        {
            let open = |table| call("open a table", &self.file, || transaction.open_table(table));
            let mut writer =
                RedbWriter { latest: open(LATEST)?, log: open(LOG)?, state: open(STATE)?, file: &self.file };
            write(&mut writer)?;
        }
        call("commit", &self.file, || transaction.commit())
    }

    fn file_bytes(&self) -> Result<u64, StorageError> {
        let read = self.file.pages.file_bytes();
        read.map_err(StorageError::io("read the length of", &*self.file.path))
    }
}

type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// One read transaction with its tables open. Keeps the database, which closes its file when dropped, and what else it needs.
struct RedbView {
    latest: Rows,
    log: Rows,
    state: Rows,
    _kept: Arc<dyn Any + Send + Sync>,
    file: TreeFile,
}

impl RedbView {
    fn table(&self, table: Table) -> &Rows {
        match table {
            Table::Latest => &self.latest,
            Table::Log => &self.log,
            Table::State => &self.state,
        }
    }
}

impl KvView for RedbView {
    fn get(
        &self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]) -> Result<(), StorageError>,
    ) -> Result<bool, StorageError> {
        match call("get", &self.file, || self.table(table).get(key))? {
            Some(value) => read(value.value()).map(|()| true),
            None => Ok(false),
        }
    }

    fn scan(
        &self,
        table: Table,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        visit: Visit<'_>,
    ) -> Result<(), StorageError> {
        scan(self.table(table), bounds, &self.file, visit)
    }
}

fn scan(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    bounds: (Bound<&[u8]>, Bound<&[u8]>),
    file: &TreeFile,
    visit: Visit<'_>,
) -> Result<(), StorageError> {
    let mut rows = call("scan", file, || table.range::<&[u8]>(bounds))?;
    while let Some((key, value)) = call("scan", file, || rows.next().transpose())? {
        if visit(key.value(), value.value())?.is_break() {
            break;
        }
    }
    Ok(())
}

struct RedbWriter<'txn> {
    latest: redb::Table<'txn, &'static [u8], &'static [u8]>,
    log: redb::Table<'txn, &'static [u8], &'static [u8]>,
    state: redb::Table<'txn, &'static [u8], &'static [u8]>,
    file: &'txn TreeFile,
}

impl<'txn> RedbWriter<'txn> {
    fn table(&mut self, table: Table) -> &mut redb::Table<'txn, &'static [u8], &'static [u8]> {
        match table {
            Table::Latest => &mut self.latest,
            Table::Log => &mut self.log,
            Table::State => &mut self.state,
        }
    }
}

impl KvWriter for RedbWriter<'_> {
    fn replace(
        &mut self,
        table: Table,
        key: &[u8],
        value: &[u8],
        replaced: &mut dyn FnMut(&[u8]) -> Result<(), StorageError>,
    ) -> Result<Option<usize>, StorageError> {
        give_way();
        let file = self.file;
        let Some(old) = call("put", file, || self.table(table).insert(key, value))? else { return Ok(None) };
        replaced(old.value())?;
        Ok(Some(old.value().len()))
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<Option<usize>, StorageError> {
        let file = self.file;
        let removed = call("remove", file, || self.table(table).remove(key))?;
        Ok(removed.map(|old| old.value().len()))
    }

    fn get(
        &mut self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]) -> Result<(), StorageError>,
    ) -> Result<bool, StorageError> {
        let file = self.file;
        match call("get", file, || self.table(table).get(key))? {
            Some(value) => read(value.value()).map(|()| true),
            None => Ok(false),
        }
    }

    fn append(&mut self, table: Table, next: NextRow<'_>) -> Result<(), StorageError> {
        let file = self.file;
        // Runs at the table's end go in as whole leaves: several times as fast as inserts one by one.
        let table = self.table(table);
        let mut cursor = call("seek the end", file, || table.upper_bound_mut(Bound::<&[u8]>::Unbounded))?;
        let (mut key, mut value) = (Vec::new(), Vec::new());
        while next(&mut key, &mut value)? {
            give_way();
            call("append", file, || cursor.insert_before(key.as_slice(), value.as_slice()))?;
        }
        call("append", file, || cursor.close())
    }

    fn scan_below(&mut self, table: Table, end: &[u8], visit: Visit<'_>) -> Result<(), StorageError> {
        let file = self.file;
        scan(self.table(table), (Bound::Unbounded, Bound::Excluded(end)), file, visit)
    }

    fn remove_through(&mut self, table: Table, last: &[u8]) -> Result<(), StorageError> {
        let file = self.file;
        let table = self.table(table);
        call("remove a prefix", file, || table.retain_in::<&[u8], _>(..=last, |_, _| false))
    }
}

#[cfg(test)]
mod tests;
