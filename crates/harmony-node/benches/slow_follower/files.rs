//! The machine's files with syncs that take as long as somebody says.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use harmony_types::{File, FileSystem, OpenMode};

/// What a sync takes beside its own time.
#[derive(Default)]
pub(crate) struct Delay {
    time: Mutex<Duration>,
    changed: Condvar,
}

impl Delay {
    /// Zero lets go whoever waits.
    pub(crate) fn set(&self, time: Duration) {
        *self.time.lock().unwrap() = time;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let time = self.time.lock().unwrap();
        let whole = *time;
        drop(self.changed.wait_timeout_while(time, whole, |time| !time.is_zero()).unwrap());
    }
}

/// See the module.
pub(crate) struct SlowFiles {
    pub(crate) files: Arc<dyn FileSystem>,
    pub(crate) delay: Arc<Delay>,
}

struct SlowFile {
    file: Arc<dyn File>,
    delay: Arc<Delay>,
}

impl FileSystem for SlowFiles {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = self.files.open(path, mode)?;
        Ok(Arc::new(SlowFile { file, delay: Arc::clone(&self.delay) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.files.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.files.remove_file(path)
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.files.list_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.files.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.delay.wait();
        self.files.sync_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.files.exists(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.files.free_bytes(path)
    }
}

impl File for SlowFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn block_bytes(&self) -> Option<usize> {
        self.file.block_bytes()
    }

    fn write_blocks(&self, blocks: &[u8], offset: u64, durable: bool) -> io::Result<()> {
        if durable {
            self.delay.wait();
        }
        self.file.write_blocks(blocks, offset, durable)
    }

    fn begin_writeback(&self, offset: u64, bytes: u64) {
        self.file.begin_writeback(offset, bytes);
    }

    fn sync_data(&self) -> io::Result<()> {
        self.delay.wait();
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.delay.wait();
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
