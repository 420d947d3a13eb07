//! A [`PagedFile`] as redb's storage: so the tree lives on the production disk and on the crashing one alike.

use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use harmony_wal::give_way;
use redb::{BackendError, StorageBackend};

use super::pages::{PageDamage, PagedFile};

/// The first damage that a tree met: the one that stopped it.
pub(super) type FirstDamage = Arc<Met>;

/// What stopped a tree's reads. redb refuses every read behind the first that failed, whatever the reason was.
#[derive(Debug, Default)]
pub(super) struct Met {
    damage: OnceLock<PageDamage>,
    refused: OnceLock<String>,
}

impl Met {
    /// The damaged page.
    pub(super) fn get(&self) -> Option<&PageDamage> {
        self.damage.get()
    }

    /// What the system said to a read that it refused.
    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.get().map(String::as_str)
    }

    fn note(&self, error: &io::Error) {
        // Only the first one counts.
        match PageDamage::of(error) {
            Some(found) => drop(self.damage.set(found.clone())),
            None => drop(self.refused.set(error.to_string())),
        }
    }
}

/// One open file, locked by whoever opened it.
pub(super) struct FileBackend {
    pages: Arc<PagedFile>,
    damage: FirstDamage,
}

impl FileBackend {
    pub(super) fn new(pages: Arc<PagedFile>, damage: FirstDamage) -> Self {
        Self { pages, damage }
    }
}

/// Reads, and remembers damage.
pub(super) fn read(pages: &PagedFile, damage: &FirstDamage, offset: u64, out: &mut [u8]) -> io::Result<()> {
    give_way();
    pages.read(offset, out).inspect_err(|error| damage.note(error))
}

impl fmt::Debug for FileBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileBackend")
    }
}

impl StorageBackend for FileBackend {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.pages.len())
    }

    /// Behind an error redb refuses every call that needs the file.
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        read(&self.pages, &self.damage, offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.pages.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.pages.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        give_way();
        self.pages.write(offset, data)
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        // Locks on parts are for several processes at one file.
        if matches!(start, Bound::Unbounded | Bound::Included(0)) && end == Bound::Unbounded {
            Ok(true)
        } else {
            Err(BackendError::Unsupported)
        }
    }

    fn unlock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}
