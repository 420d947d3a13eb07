//! The operating system's files, with a count of what is done to the tree's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use harmony_types::{File, FileSystem, OpenMode};
use harmony_wal::OsFileSystem;

/// What was done to the tree's file so far.
#[derive(Default)]
pub struct Counts {
    written: AtomicU64,
    syncs: AtomicU64,
}

impl Counts {
    /// Bytes written.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}

/// A file system that counts, and its counts.
pub fn counting() -> (Arc<dyn FileSystem>, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    (Arc::new(Counting { counts: Arc::clone(&counts) }), counts)
}

struct Counting {
    counts: Arc<Counts>,
}

struct CountedFile {
    file: Arc<dyn File>,
    counts: Arc<Counts>,
}

impl FileSystem for Counting {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = OsFileSystem.open(path, mode)?;
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("tree.redb")) {
            return Ok(Arc::new(CountedFile { file, counts: Arc::clone(&self.counts) }));
        }
        Ok(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsFileSystem.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        OsFileSystem.remove_file(path)
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        OsFileSystem.list_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        OsFileSystem.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        OsFileSystem.sync_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        OsFileSystem.exists(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        OsFileSystem.free_bytes(path)
    }
}

impl File for CountedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.counts.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.counts.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.counts.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.file.allocate(bytes)
    }

    fn reset(&self, bytes: u64) -> io::Result<()> {
        self.file.reset(bytes)
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }
}
