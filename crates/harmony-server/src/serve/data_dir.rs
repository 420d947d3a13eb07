//! The data directory: `member/wal`, `member/tree`, `member/spool`, `member/peers`, `member/incarnations`, and a lock that
//! keeps other processes out.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::ServeError;

/// Name of the lock file. It stays when the process ends; the lock on it does not.
const LOCK: &str = "harmony.lock";

/// A data directory that is this process's alone for as long as the value lives.
pub(super) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens the directory, made if it is not there, and locks it.
    ///
    /// # Errors
    /// [`ServeError::DataDir`], [`ServeError::Locked`].
    pub(super) fn open(path: &Path) -> Result<Self, ServeError> {
        let refused = |action, path: &Path| {
            let path = path.to_owned();
            move |source| ServeError::DataDir { action, path, source }
        };
        fs::create_dir_all(path).map_err(refused("create", path))?;
        let lock_path = path.join(LOCK);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(refused("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ServeError::Locked { path: path.to_owned(), holder: holder(&mut lock) });
            }
            Err(TryLockError::Error(source)) => return Err(refused("lock", &lock_path)(source)),
        }
        // Only for the message above, so it need not be durable.
        lock.set_len(0)
            .and_then(|()| write!(lock, "{}", std::process::id()))
            .map_err(refused("write", &lock_path))?;
        let dir = Self { path: path.to_owned(), _lock: lock };
        for sub in [dir.wal(), dir.tree(), dir.spool()] {
            fs::create_dir_all(&sub).map_err(refused("create", &sub))?;
        }
        Ok(dir)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn wal(&self) -> PathBuf {
        self.member().join("wal")
    }

    /// For what arrives from peers and is not taken in yet.
    pub(super) fn spool(&self) -> PathBuf {
        self.member().join("spool")
    }

    /// What is this member's, and what it knows of the others.
    pub(super) fn member(&self) -> PathBuf {
        self.path.join("member")
    }

    pub(super) fn tree(&self) -> PathBuf {
        self.member().join("tree")
    }
}

/// Who holds the lock, in words; nothing when the file does not tell.
fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    match lock.read_to_string(&mut text) {
        Ok(_) if text.chars().all(|c| c.is_ascii_digit()) && !text.is_empty() => format!(" (process {text})"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_made_with_its_parts() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&temp.path().join("a/b")).unwrap();
        assert!(dir.wal().is_dir() && dir.tree().is_dir());
        assert_eq!(dir.wal(), temp.path().join("a/b/member/wal"));
    }

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let temp = tempfile::tempdir().unwrap();
        let first = DataDir::open(temp.path()).unwrap();
        let error = DataDir::open(temp.path()).err().unwrap();
        assert!(matches!(error, ServeError::Locked { .. }), "{error}");
        let text = error.to_string();
        let process = format!("(process {})", std::process::id());
        for part in [temp.path().to_str().unwrap(), &process, "--data-dir"] {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
        drop(first);
        DataDir::open(temp.path()).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        fs::write(&path, "x").unwrap();
        let error = DataDir::open(&path).err().unwrap().to_string();
        assert!(error.contains("cannot create") && error.contains("file"), "{error}");
    }
}
