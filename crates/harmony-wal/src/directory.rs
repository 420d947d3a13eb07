//! The log's directory: made, locked, and given its first segment.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use harmony_types::config::WalConfig;
use harmony_types::{File, FileSystem, HardState, LogIndex, NodeId, OpenMode, Term, WalError};

use crate::preallocate;
use crate::segment::{self, Head, OPENING_BYTES};

/// The file that a process locks.
const LOCK_NAME: &str = "LOCK";

/// Makes the directory and each parent that is missing, durably: each before anything is put into it, so that of those
/// that a killed process made only the innermost may have a name that is not durable.
pub(crate) fn make(fs: &dyn FileSystem, dir: &Path) -> Result<(), WalError> {
    let mut missing = Vec::new();
    for ancestor in dir.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()) {
        if fs.exists(ancestor).map_err(WalError::io("look for", ancestor))? {
            sync_name(fs, ancestor)?;
            break;
        }
        missing.push(ancestor);
    }
    for made in missing.into_iter().rev() {
        fs.create_dir_all(made).map_err(WalError::io("create", made))?;
        sync_name(fs, made)?;
    }
    Ok(())
}

/// Makes the name of a directory durable. A parent that this process may not open is somebody else's: its names are not
/// ours to sync.
fn sync_name(fs: &dyn FileSystem, dir: &Path) -> Result<(), WalError> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    match fs.sync_dir(parent) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced.map_err(WalError::io("sync", parent)),
    }
}

pub(crate) fn lock(fs: &dyn FileSystem, dir: &Path) -> Result<Arc<dyn File>, WalError> {
    let path = dir.join(LOCK_NAME);
    let file = fs.open(&path, OpenMode::Create).map_err(WalError::io("open", &path))?;
    take(file, path)
}

/// The lock for a reader that must change nothing; `None` when no log ever made the lock file.
pub(crate) fn lock_existing(fs: &dyn FileSystem, dir: &Path) -> Result<Option<Arc<dyn File>>, WalError> {
    let path = dir.join(LOCK_NAME);
    if !fs.exists(&path).map_err(WalError::io("look for", &path))? {
        return Ok(None);
    }
    let file = fs.open(&path, OpenMode::Read).map_err(WalError::io("open", &path))?;
    take(file, path).map(Some)
}

fn take(file: Arc<dyn File>, path: PathBuf) -> Result<Arc<dyn File>, WalError> {
    match file.try_lock().map_err(WalError::io("lock", &path))? {
        true => Ok(file),
        false => Err(WalError::Locked { path }),
    }
}

/// Makes the first segment of a new log, all of it written: once in a log's life, some 30 ms on a fast disk.
pub(crate) fn create_first_segment(
    fs: &dyn FileSystem,
    dir: &Path,
    config: &WalConfig,
) -> Result<(), WalError> {
    let head = Head {
        sequence: 1,
        oldest: 1,
        cluster: config.identity.cluster.0,
        node: NodeId::or_zero(config.identity.node),
        boundary: LogIndex::ZERO,
        boundary_term: Term(0),
    };
    let mut opening = Vec::with_capacity(OPENING_BYTES as usize);
    segment::encode_opening(&mut opening, &head, 0, &HardState::default());
    preallocate::create_filled(fs, dir, &head, &opening, config.segment_bytes).map(drop)
}
