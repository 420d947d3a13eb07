//! A [`harmony_types::File`] as redb's storage: so the tree lives on the production disk and on the crashing one alike.

use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use harmony_types::File;
use redb::{BackendError, StorageBackend};

/// One open file. Locking is the file's own whole-file lock, held until the file is dropped.
pub(super) struct FileBackend {
    file: Arc<dyn File>,
    abandoned: Arc<AtomicBool>,
}

impl FileBackend {
    /// Once `abandoned` is true, nothing is written any more.
    pub(super) fn new(file: Arc<dyn File>, abandoned: Arc<AtomicBool>) -> Self {
        Self { file, abandoned }
    }

    fn check_writable(&self) -> Result<(), io::Error> {
        if self.abandoned.load(Ordering::Acquire) {
            return Err(io::Error::other("the tree was given up without being closed"));
        }
        Ok(())
    }

    fn try_lock(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        if matches!(start, Bound::Unbounded | Bound::Included(0)) && end == Bound::Unbounded {
            self.file.try_lock().map_err(BackendError::from)
        } else {
            Err(BackendError::Unsupported)
        }
    }
}

impl fmt::Debug for FileBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileBackend")
    }
}

impl StorageBackend for FileBackend {
    fn len(&self) -> Result<u64, io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let mut done = 0;
        while done < out.len() {
            let read = self.file.read_at(&mut out[done..], offset + done as u64)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            done += read;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.check_writable()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.check_writable()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.check_writable()?;
        self.file.write_at(data, offset)
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.try_lock(start, end)
    }

    fn unlock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}
