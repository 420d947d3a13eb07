//! The real file system behind the [`FileSystem`] trait: `std::fs` and the few system calls that it lacks.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
        Ok(Arc::new(OsFile(options.open(path)?)))
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
struct OsFile(fs::File);

impl File for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match self.0.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        // A signal cuts it short on some file systems: on tmpfs any that arrives meanwhile.
        let reserve = || rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, bytes);
        match rustix::io::retry_on_intr(reserve) {
            // A file system without reservation: extend sparsely; a full disk then shows at the write.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.0.set_len(self.0.metadata()?.len().max(bytes)),
            other => Ok(other?),
        }
    }

    fn reset(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)?;
        // Keeps the blocks: on a full disk nobody else can take them.
        let zero = || rustix::fs::fallocate(&self.0, FallocateFlags::ZERO_RANGE, 0, bytes);
        match rustix::io::retry_on_intr(zero) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.0.set_len(0)?;
                self.allocate(bytes)
            }
            other => Ok(other?),
        }
    }

    fn try_lock(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.0, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Ok(false),
            other => other.map(|()| true).map_err(io::Error::from),
        }
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
