//! A [`PagedFile`] as redb's storage: so the tree lives on the production disk and on the crashing one alike.

use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use redb::{BackendError, StorageBackend};

use super::pages::{PageDamage, PagedFile};

/// One open file, locked by whoever opened it.
pub(super) struct FileBackend {
    pages: Arc<PagedFile>,
}

impl FileBackend {
    pub(super) fn new(pages: Arc<PagedFile>) -> Self {
        Self { pages }
    }
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
        self.pages.read(offset, out).inspect_err(|error| {
            if let Some(damage) = PageDamage::of(error) {
                self.pages.note_damage(damage);
            }
        })
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.pages.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.pages.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
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
