//! The real file system behind the [`FileSystem`] trait: `std::fs` and the few system calls that it lacks.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use harmony_types::{File, FileSystem, OpenMode};
use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFileSystem;

impl OsFileSystem {
    /// A handle, ready to be shared.
    #[must_use]
    #[expect(clippy::new_ret_no_self, reason = "every caller wants the shared trait object")]
    pub fn new() -> Arc<dyn FileSystem> {
        Arc::new(Self)
    }
}

impl FileSystem for OsFileSystem {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::ReadWrite => options.write(true),
            OpenMode::CreateNew => options.write(true).create_new(true),
            OpenMode::Create => options.write(true).create(true).truncate(false),
        };
        Ok(Arc::new(OsFile {
            file: options.open(path)?,
            direct: OnceLock::new(),
            refused: AtomicBool::new(false),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                names.push(PathBuf::from(entry.file_name()));
            }
        }
        names.sort();
        Ok(names)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// An open file of the operating system.
struct OsFile {
    file: fs::File,
    /// The same file once more, for durable writes past the page cache; `None` where the file system has none.
    direct: OnceLock<Option<fs::File>>,
    /// It was asked for such a write, and refused.
    refused: AtomicBool,
}

impl OsFile {
    fn direct(&self) -> Option<&fs::File> {
        let direct = self.direct.get_or_init(|| direct::reopen(&self.file));
        direct.as_ref().filter(|_| !self.refused.load(Ordering::Relaxed))
    }
}

impl File for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match self.file.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn block_bytes(&self) -> Option<usize> {
        self.direct().map(|_| direct::BLOCK_BYTES)
    }

    fn write_blocks(&self, blocks: &[u8], offset: u64, durable: bool) -> io::Result<()> {
        match self.direct().map(|direct| direct::write(direct, blocks, offset, durable)) {
            // Nothing was written: this file system asks for more than a block's alignment, or knows no such write.
            Some(Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS)) => {
                self.refused.store(true, Ordering::Relaxed);
            }
            Some(written) => return Ok(written?),
            None => {}
        }
        self.write_at(blocks, offset)?;
        if durable { self.sync_data() } else { Ok(()) }
    }

    #[cfg(target_os = "linux")]
    fn begin_writeback(&self, offset: u64, bytes: u64) {
        // Linux begins to write what is dirty in the range, and forgets only what is not: the log has its own cache of what
        // was appended last. An error is one of the hint, not of the data.
        let bytes = std::num::NonZeroU64::new(bytes);
        let _ = rustix::fs::fadvise(&self.file, offset, bytes, rustix::fs::Advice::DontNeed);
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        // A signal cuts it short on some file systems: on tmpfs any that arrives meanwhile.
        let reserve = || rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, bytes);
        match rustix::io::retry_on_intr(reserve) {
            // A file system without reservation: extend sparsely; a full disk then shows at the write.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.file.set_len(self.file.metadata()?.len().max(bytes)),
            other => Ok(other?),
        }
    }

    fn reset(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)?;
        // Keeps the blocks: on a full disk nobody else can take them.
        let zero = || rustix::fs::fallocate(&self.file, FallocateFlags::ZERO_RANGE, 0, bytes);
        match rustix::io::retry_on_intr(zero) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.file.set_len(0)?;
                self.allocate(bytes)
            }
            other => Ok(other?),
        }
    }

    fn try_lock(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Ok(false),
            other => other.map(|()| true).map_err(io::Error::from),
        }
    }
}

/// Writes that go to the disk from the caller's memory.
#[cfg(target_os = "linux")]
mod direct {
    use std::fs;
    use std::io::IoSlice;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;

    use rustix::fs::OFlags;
    use rustix::io::{Errno, ReadWriteFlags};

    /// An alignment that every disk and file system in use is content with.
    pub(super) const BLOCK_BYTES: usize = 4096;

    /// The file behind an open one, whatever its name is by now.
    pub(super) fn reopen(file: &fs::File) -> Option<fs::File> {
        let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
    }

    /// An error that says that the call itself is refused comes before anything was written.
    pub(super) fn write(
        file: &fs::File,
        mut blocks: &[u8],
        mut offset: u64,
        durable: bool,
    ) -> Result<(), Errno> {
        let flags = if durable { ReadWriteFlags::DSYNC } else { ReadWriteFlags::empty() };
        let start = offset;
        while !blocks.is_empty() {
            match rustix::io::pwritev2(file, &[IoSlice::new(blocks)], offset, flags) {
                Ok(0) => return Err(Errno::IO),
                Ok(written) => {
                    blocks = &blocks[written..];
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) if start < offset => {
                    return Err(Errno::IO);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
mod direct {
    use std::fs;

    use rustix::io::Errno;

    pub(super) const BLOCK_BYTES: usize = 4096;

    pub(super) fn reopen(_: &fs::File) -> Option<fs::File> {
        None
    }

    pub(super) fn write(_: &fs::File, _: &[u8], _: u64, _: bool) -> Result<(), Errno> {
        Err(Errno::OPNOTSUPP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_read_back_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let os = OsFileSystem::new();
        let path = dir.path().join("a/b/file");
        os.create_dir_all(path.parent().unwrap()).unwrap();
        let file = os.open(&path, OpenMode::CreateNew).unwrap();
        file.allocate(8192).unwrap();
        assert_eq!(file.len().unwrap(), 8192);
        file.write_at(b"hello", 8190).unwrap();
        file.sync_data().unwrap();
        os.sync_dir(path.parent().unwrap()).unwrap();
        let mut buffer = [9; 16];
        assert_eq!(file.read_at(&mut buffer, 8188).unwrap(), 7);
        assert_eq!(&buffer[..7], b"\0\0hello");
        file.set_len(3).unwrap();
        assert_eq!(file.len().unwrap(), 3);
        file.write_at(&[7; 9000], 0).unwrap();
        if let Some(block_bytes) = file.block_bytes() {
            let memory = vec![3; 3 * block_bytes];
            let start = memory.as_ptr().align_offset(block_bytes);
            for (durable, byte) in [(true, 1), (false, 2)] {
                file.write_blocks(&memory[start..start + block_bytes], byte * block_bytes as u64, durable)
                    .unwrap();
            }
            let mut content = vec![9; 3 * block_bytes];
            file.read_at(&mut content, 0).unwrap();
            assert_eq!(content[block_bytes..], memory[..2 * block_bytes]);
            assert_eq!(content[block_bytes - 1], 7);
        }
        file.reset(6000).unwrap();
        let mut content = [9; 9000];
        assert_eq!(file.read_at(&mut content, 0).unwrap(), 6000);
        assert!(content[..6000].iter().all(|byte| *byte == 0));
        assert_eq!(os.list_dir(path.parent().unwrap()).unwrap(), [PathBuf::from("file")]);
        assert!(os.list_dir(&dir.path().join("a")).unwrap().is_empty(), "directories are not listed");
        assert!(0 < os.free_bytes(dir.path()).unwrap());
        assert!(os.open(&path, OpenMode::CreateNew).is_err());
        os.rename(&path, &dir.path().join("moved")).unwrap();
        assert!(!os.exists(&path).unwrap());
        os.remove_file(&dir.path().join("moved")).unwrap();
        assert!(os.open(&dir.path().join("moved"), OpenMode::ReadWrite).is_err());
    }

    #[test]
    fn a_lock_excludes_until_its_file_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let os = OsFileSystem::new();
        let path = dir.path().join("LOCK");
        let first = os.open(&path, OpenMode::Create).unwrap();
        assert!(first.try_lock().unwrap());
        let second = os.open(&path, OpenMode::Create).unwrap();
        assert!(!second.try_lock().unwrap());
        drop(first);
        assert!(second.try_lock().unwrap());
    }
}
