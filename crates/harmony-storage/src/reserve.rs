//! Space held back in the tree's directory, for the checkpoint of a compaction on a full disk: without it nothing that
//! frees space could be written. Given up when it is needed, and made again by the first checkpoint that finds room.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harmony_types::{FileSystem, OpenMode, StorageError};

/// Its name in the tree's directory.
pub(crate) const RESERVE_FILE: &str = "RESERVE";

/// Most that is held back.
const BYTES_MAX: u64 = 64 << 20;
/// Least: enough for a small checkpoint of a small tree, see `room.rs`.
const BYTES_MIN: u64 = 4 << 20;

/// See the module.
pub(crate) struct Reserve {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    /// That of a storage whose memory takes `checkpoint_bytes`. Nothing is made yet.
    pub(crate) fn new(fs: Arc<dyn FileSystem>, dir: &Path, checkpoint_bytes: u64) -> Self {
        let bytes = (checkpoint_bytes / 2).clamp(BYTES_MIN, BYTES_MAX);
        Self { fs, dir: dir.to_owned(), path: dir.join(RESERVE_FILE), bytes }
    }

    /// Holds the space back, unless it is held already or the disk has less than twice as much. Returns whether it is held.
    ///
    /// # Errors
    /// The system's, but not that the disk is full.
    pub(crate) fn hold(&self) -> Result<bool, StorageError> {
        let held = self.held_bytes()?;
        if self.bytes <= held {
            return Ok(true);
        }
        let free = self.fs.free_bytes(&self.dir).unwrap_or(0);
        // What is there was cut by a crash. Without room for all of it, it is better free.
        if free / 2 < self.bytes - held {
            self.give_up()?;
            return Ok(false);
        }
        let made = self.fs.open(&self.path, OpenMode::Create).and_then(|file| {
            file.allocate(self.bytes)?;
            file.sync_all()?;
            self.fs.sync_dir(&self.dir)
        });
        match made {
            Ok(()) => Ok(true),
            // Somebody else was faster.
            Err(error) if is_full(&error) => self.give_up().map(|()| false),
            Err(error) => Err(StorageError::io("reserve space in", &self.path)(error)),
        }
    }

    /// Bytes that giving it up would free.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn held_bytes(&self) -> Result<u64, StorageError> {
        let length = || {
            if self.fs.exists(&self.path)? { self.fs.open(&self.path, OpenMode::Read)?.len() } else { Ok(0) }
        };
        length().map_err(StorageError::io("look at", &self.path))
    }

    /// Gives the space back, if it is held.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn give_up(&self) -> Result<(), StorageError> {
        if self.fs.exists(&self.path).map_err(StorageError::io("look for", &self.path))? {
            self.fs.remove_file(&self.path).map_err(StorageError::io("remove", &self.path))?;
            // Some file systems free blocks only when that is durable.
            self.fs.sync_dir(&self.dir).map_err(StorageError::io("sync", &self.dir))?;
        }
        Ok(())
    }
}

/// Whether the system says that there is no place for more. A quota and a limit on the size of files leave none either.
pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
