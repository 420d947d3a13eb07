//! The tree in a redb file: the only module that names redb.
//!
//! - A visible commit is redb's `Durability::None`: it lives in memory, and a crash goes back to the last durable one,
//!   whole. The log is its redo log.
//! - A durable commit turns quick repair on, so that opening after a kill costs milliseconds whatever the file's size.
//! - redb's reads do not verify its page checksums: every record carries its own, see [`super::record`].

use std::fmt::Display;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use harmony_types::{FileSystem, OpenMode, StorageError};
use redb::{Database, DatabaseError, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};

use super::backend::FileBackend;
use super::{Durability, KvEngine, KvView, KvWriter, NextRow, Table, Visit};

const LATEST: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("latest");
const LOG: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("log");
const STATE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("state");

/// An open tree file.
pub(crate) struct RedbTree {
    database: Arc<Database>,
    file: Arc<dyn harmony_types::File>,
    path: PathBuf,
    abandoned: Arc<AtomicBool>,
}

impl RedbTree {
    /// Opens the tree in `path`, with `mode` for the file itself. An empty file becomes an empty tree with all tables.
    ///
    /// # Errors
    /// [`StorageError::Locked`] when another process has it; [`StorageError::Tree`] when it is no tree or damaged.
    pub(crate) fn open(
        fs: &dyn FileSystem,
        path: &Path,
        mode: OpenMode,
        cache_bytes: usize,
    ) -> Result<Self, StorageError> {
        let file = fs.open(path, mode).map_err(StorageError::io("open", path))?;
        let abandoned = Arc::new(AtomicBool::new(false));
        let opened = Database::builder()
            .set_cache_size(cache_bytes)
            .create_with_backend(FileBackend::new(Arc::clone(&file), Arc::clone(&abandoned)));
        let database = match opened {
            Ok(database) => database,
            Err(DatabaseError::DatabaseAlreadyOpen) => {
                return Err(StorageError::Locked { path: path.to_owned() });
            }
            Err(error) => return Err(failed("open", path)(error)),
        };
        let tree = Self { database: Arc::new(database), file, path: path.to_owned(), abandoned };
        if mode == OpenMode::CreateNew {
            // A view needs the tables to exist.
            tree.commit(Durability::Visible, &mut |_| Ok(()))?;
        }
        Ok(tree)
    }

    /// Writes nothing more, so that the file stays as the last durable commit left it. Without this, redb makes all visible
    /// commits durable when the last handle is dropped, whether the log holds their entries or not.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    /// The same tree under the name that its file was renamed to.
    pub(crate) fn renamed(self, path: &Path) -> Self {
        Self { path: path.to_owned(), ..self }
    }
}

/// A [`StorageError::Tree`] in the making. Errors are boxed: redb has one type for each of its calls.
fn failed<E>(action: &'static str, path: &Path) -> impl FnOnce(E) -> StorageError
where
    E: std::error::Error + Display + Send + Sync + 'static,
{
    let path = path.to_owned();
    move |error| StorageError::Tree { action, path, source: Box::new(error) }
}

impl KvEngine for RedbTree {
    fn view(&self) -> Result<Arc<dyn KvView>, StorageError> {
        let transaction = self.database.begin_read().map_err(failed("begin a view", &self.path))?;
        let open = |table| transaction.open_table(table).map_err(failed("open a table", &self.path));
        Ok(Arc::new(RedbView {
            latest: open(LATEST)?,
            log: open(LOG)?,
            state: open(STATE)?,
            _database: Arc::clone(&self.database),
            path: self.path.clone(),
        }))
    }

    fn commit(
        &self,
        durability: Durability,
        write: &mut dyn FnMut(&mut dyn KvWriter) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut transaction = self.database.begin_write().map_err(failed("begin a commit", &self.path))?;
        match durability {
            Durability::Visible => transaction
                .set_durability(redb::Durability::None)
                .map_err(failed("begin a commit", &self.path))?,
            Durability::Durable => transaction.set_quick_repair(true),
        }
        {
            let open = |table| transaction.open_table(table).map_err(failed("open a table", &self.path));
            let mut writer =
                RedbWriter { latest: open(LATEST)?, log: open(LOG)?, state: open(STATE)?, path: &self.path };
            write(&mut writer)?;
        }
        transaction.commit().map_err(failed("commit", &self.path))
    }

    fn file_bytes(&self) -> Result<u64, StorageError> {
        self.file.len().map_err(StorageError::io("read the length of", &self.path))
    }
}

type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// One read transaction with its tables open. Keeps the database, which closes its file when dropped.
struct RedbView {
    latest: Rows,
    log: Rows,
    state: Rows,
    _database: Arc<Database>,
    path: PathBuf,
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
        match self.table(table).get(key).map_err(failed("get", &self.path))? {
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
        scan(self.table(table), bounds, &self.path, visit)
    }
}

fn scan(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    bounds: (Bound<&[u8]>, Bound<&[u8]>),
    path: &Path,
    visit: Visit<'_>,
) -> Result<(), StorageError> {
    for row in table.range::<&[u8]>(bounds).map_err(failed("scan", path))? {
        let (key, value) = row.map_err(failed("scan", path))?;
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
    path: &'txn Path,
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
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<Option<usize>, StorageError> {
        let path = self.path;
        let replaced = self.table(table).insert(key, value).map_err(failed("put", path))?;
        Ok(replaced.map(|old| old.value().len()))
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<Option<usize>, StorageError> {
        let path = self.path;
        let removed = self.table(table).remove(key).map_err(failed("remove", path))?;
        Ok(removed.map(|old| old.value().len()))
    }

    fn get(
        &mut self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]) -> Result<(), StorageError>,
    ) -> Result<bool, StorageError> {
        let path = self.path;
        match self.table(table).get(key).map_err(failed("get", path))? {
            Some(value) => read(value.value()).map(|()| true),
            None => Ok(false),
        }
    }

    fn append(&mut self, table: Table, next: NextRow<'_>) -> Result<(), StorageError> {
        let path = self.path;
        // Runs at the table's end go in as whole leaves: several times as fast as inserts one by one.
        let mut cursor = self
            .table(table)
            .upper_bound_mut(Bound::<&[u8]>::Unbounded)
            .map_err(failed("seek the end", path))?;
        let (mut key, mut value) = (Vec::new(), Vec::new());
        while next(&mut key, &mut value)? {
            cursor.insert_before(key.as_slice(), value.as_slice()).map_err(failed("append", path))?;
        }
        cursor.close().map_err(failed("append", path))
    }

    fn scan_below(&mut self, table: Table, end: &[u8], visit: Visit<'_>) -> Result<(), StorageError> {
        let path = self.path;
        scan(self.table(table), (Bound::Unbounded, Bound::Excluded(end)), path, visit)
    }

    fn remove_through(&mut self, table: Table, last: &[u8]) -> Result<(), StorageError> {
        let path = self.path;
        self.table(table)
            .retain_in::<&[u8], _>(..=last, |_, _| false)
            .map_err(failed("remove a prefix", path))
    }
}
