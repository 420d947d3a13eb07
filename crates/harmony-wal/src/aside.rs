//! Keeps aside what opening cuts, on a full disk too: then in the blocks of the file `RESERVE`.

use std::io;
use std::path::{Path, PathBuf};

use harmony_types::{File, FileSystem, OpenMode, WalError};

/// Space held back for a torn tail: most groups are smaller.
const RESERVE_BYTES: u64 = 8 << 20;
const RESERVE_NAME: &str = "RESERVE";

/// Holds space back, unless it is held already. On a disk without room there is none until the next open.
pub(crate) fn reserve(fs: &dyn FileSystem, dir: &Path, segment_bytes: u64) -> Result<(), WalError> {
    let path = dir.join(RESERVE_NAME);
    let wanted = RESERVE_BYTES.min(segment_bytes);
    let held = fs.open(&path, OpenMode::Create).and_then(|file| {
        if wanted <= file.len()? {
            return Ok(());
        }
        file.allocate(wanted)?;
        file.sync_all()?;
        fs.sync_dir(dir)
    });
    match held {
        Err(error) if is_full(&error) => {
            tracing::warn!(dir = %dir.display(), %error, "no room for the log's reserve");
            match fs.remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(WalError::io("remove", &path)(error))
                }
                _ => Ok(()),
            }
        }
        held => held.map_err(WalError::io("reserve space in", &path)),
    }
}

/// The reserve's path, if there is one. It is made behind the first segment: then the directory had a log.
pub(crate) fn reserve_of(fs: &dyn FileSystem, dir: &Path) -> Result<Option<PathBuf>, WalError> {
    let path = dir.join(RESERVE_NAME);
    let there = fs.exists(&path).map_err(WalError::io("look for", &path))?;
    Ok(there.then_some(path))
}

/// Gives the reserve up, durably: the directory is to be taken for a new one.
pub(crate) fn remove_reserve(fs: &dyn FileSystem, dir: &Path) -> Result<(), WalError> {
    let Some(path) = reserve_of(fs, dir)? else { return Ok(()) };
    fs.remove_file(&path).map_err(WalError::io("remove", &path))?;
    fs.sync_dir(dir).map_err(WalError::io("sync", dir))
}

/// Writes `bytes` into the file `path` of `dir`, durable in content and name when this returns.
pub(crate) fn keep(fs: &dyn FileSystem, dir: &Path, path: &Path, bytes: &[u8]) -> Result<(), WalError> {
    let written = fs.open(path, OpenMode::Create).and_then(|file| fill(&*file, bytes));
    match written {
        Err(error) if is_full(&error) => {
            let reserve = dir.join(RESERVE_NAME);
            tracing::warn!(file = %path.display(), "the disk is full: the torn tail goes into the log's reserve");
            fs.rename(&reserve, path).map_err(WalError::io("use the log's reserve", &reserve))?;
            let file = fs.open(path, OpenMode::ReadWrite).map_err(WalError::io("open", path))?;
            fill(&*file, bytes).map_err(WalError::io("write", path))?;
        }
        other => other.map_err(WalError::io("write", path))?,
    }
    fs.sync_dir(dir).map_err(WalError::io("sync", dir))
}

/// Writes first and cuts behind: blocks that the file has are used again.
fn fill(file: &dyn File, bytes: &[u8]) -> io::Result<()> {
    file.write_at(bytes, 0)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
