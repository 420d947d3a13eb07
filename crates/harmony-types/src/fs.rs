//! How files enter: everything a layer asks of a disk, so that a test can put a crashing one in its place.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Existing, for reading.
    Read,
    /// Existing, for reading and writing.
    ReadWrite,
    /// New, for reading and writing; an existing file is an error.
    CreateNew,
    /// For reading and writing; made when missing, kept as it is when not.
    Create,
}

/// An open file. Positioned calls only: no cursor, so many threads may share it.
pub trait File: Send + Sync {
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// What the system reports.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`, growing the file when needed. Durable only after a sync.
    ///
    /// # Errors
    /// What the system reports; how much was written is unknown then.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Size of the blocks that [`File::write_blocks`] takes, bytes, where that is cheaper than [`File::write_at`] and a sync;
    /// `None` where it is not.
    fn block_bytes(&self) -> Option<usize> {
        None
    }

    /// Writes whole blocks at a multiple of [`File::block_bytes`], from memory aligned to it, past the system's cache if it
    /// can. With `durable`, these blocks are on disk when it returns, whatever else was written and not synced.
    ///
    /// # Errors
    /// What the system reports; how much was written, and what of it is on disk, is unknown then.
    fn write_blocks(&self, blocks: &[u8], offset: u64, durable: bool) -> io::Result<()> {
        self.write_at(blocks, offset)?;
        if durable { self.sync_data() } else { Ok(()) }
    }

    /// Asks the system to begin to carry `bytes` bytes from `offset` on to the disk, so that a later sync has less to do. A
    /// hint: it promises nothing, waits for nothing, and does nothing where the system cannot.
    fn begin_writeback(&self, offset: u64, bytes: u64) {
        let _ = (offset, bytes);
    }

    /// Makes the content durable (`fdatasync`): data, and the length if it changed.
    ///
    /// # Errors
    /// What the system reports; what is on disk is unknown then, and a second call proves nothing.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes content and all metadata durable (`fsync`).
    ///
    /// # Errors
    /// As [`File::sync_data`].
    fn sync_all(&self) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// What the system reports.
    fn len(&self) -> io::Result<u64>;

    /// True when the file has no bytes.
    ///
    /// # Errors
    /// What the system reports.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts or extends (with zeros) to `bytes`.
    ///
    /// # Errors
    /// What the system reports.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Reserves space for `0..bytes` and extends the file to it (`fallocate`), reading as zeros.
    ///
    /// # Errors
    /// What the system reports, for example that the disk is full.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Makes the file `bytes` long, all of it reading as zeros and reserved, whatever it held. Durable only after
    /// [`File::sync_all`]; until then a crash may leave any of what it held.
    ///
    /// An implementation may do better than this one, which gives the space back and asks for it again.
    ///
    /// # Errors
    /// What the system reports; what the file holds is unknown then.
    fn reset(&self, bytes: u64) -> io::Result<()> {
        self.set_len(0)?;
        self.allocate(bytes)
    }

    /// Takes the exclusive lock of the file for this process; false when another holds it. Released on drop.
    ///
    /// # Errors
    /// What the system reports.
    fn try_lock(&self) -> io::Result<bool>;
}

/// A file system: names, and the files behind them.
///
/// A created, renamed or removed name is durable only after [`FileSystem::sync_dir`] of its directory.
pub trait FileSystem: Send + Sync {
    /// Opens a file.
    ///
    /// # Errors
    /// What the system reports.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// Renames, replacing a file of the new name.
    ///
    /// # Errors
    /// What the system reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name.
    ///
    /// # Errors
    /// What the system reports.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Names of the files (not directories) in a directory, without the directory's path, sorted.
    ///
    /// # Errors
    /// What the system reports.
    fn list_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>>;

    /// Creates a directory and its parents; fine when it exists.
    ///
    /// # Errors
    /// What the system reports.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the system reports.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Whether a file or directory of this name exists.
    ///
    /// # Errors
    /// What the system reports.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Bytes that can still be written below `path`.
    ///
    /// # Errors
    /// What the system reports.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}
