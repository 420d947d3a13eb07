//! What a data directory that does not open means for the operator.

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;

use harmony_types::{StorageError, WalError};

use super::ServeError;
use super::data_dir::DataDir;

/// The tree's file in its directory.
const TREE_FILE: &str = "tree.redb";

/// Ending of the log's files.
const SEGMENT: &str = "wal";

/// Refuses a tree without a log before a new, empty log is made beside it: it would stand in the way of the lost one.
///
/// # Errors
/// [`StorageError::NotFound`]; [`StorageError::Io`].
pub(super) fn check_log(data_dir: &DataDir) -> Result<(), StorageError> {
    let (wal, tree) = (data_dir.wal(), data_dir.tree().join(TREE_FILE));
    if !tree.try_exists().map_err(StorageError::io("look for", &tree))? {
        return Ok(());
    }
    for file in fs::read_dir(&wal).map_err(StorageError::io("read", &wal))? {
        let file = file.map_err(StorageError::io("read", &wal))?;
        if file.path().extension().is_some_and(|ending| ending == SEGMENT) {
            return Ok(());
        }
    }
    Err(StorageError::NotFound { what: format!("a log beside {} in {}", tree.display(), wal.display()) })
}

/// The refusal with what to do about it.
pub(super) fn of(data_dir: &Path, source: StorageError) -> ServeError {
    let path = data_dir.to_owned();
    match &source {
        StorageError::Foreign { .. } | StorageError::Wal(WalError::Foreign { .. }) => {
            ServeError::Foreign { path, source }
        }
        error if error.is_disk_full() || is_full(error) => ServeError::Full { path, source },
        // The tree's own errors behind a full disk are about its content.
        StorageError::CrcMismatch { .. }
        | StorageError::CorruptRecord { .. }
        | StorageError::InvalidIndex { .. }
        | StorageError::NotFound { .. }
        | StorageError::Tree { .. }
        | StorageError::Wal(
            WalError::CrcMismatch { .. } | WalError::CorruptRecord { .. } | WalError::MissingSegment { .. },
        ) => ServeError::Damaged { path, source },
        _ => ServeError::Storage(source),
    }
}

/// True when the system said somewhere in the error's chain that the disk is full.
fn is_full(error: &(dyn Error + 'static)) -> bool {
    let full =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    // The tree passes the system's error on as text only.
    let codes = [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT].map(rustix::io::Errno::raw_os_error);
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if error.downcast_ref::<io::Error>().is_some_and(full)
            || codes.iter().any(|code| text.ends_with(&format!("(os error {code})")))
        {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use harmony_types::LogIndex;

    use super::*;

    fn refused(source: StorageError) -> String {
        of(Path::new("/d"), source).to_string()
    }

    #[test]
    fn a_full_disk_is_told_apart_from_damage() {
        let io = || io::Error::from(io::ErrorKind::StorageFull);
        let full = refused(StorageError::io("write", "/d/x")(io()));
        assert!(full.contains("make room on the disk of /d and start again"), "{full}");
        let full = refused(StorageError::Wal(WalError::io("write", "/d/x")(io())));
        assert!(full.contains("make room on the disk of /d and start again"), "{full}");
        for text in ["No space left on device (os error 28)", "Disk quota exceeded (os error 122)"] {
            let source = format!("I/O error: {text}").into();
            let full = refused(StorageError::Tree { action: "commit", path: "/d/x".into(), source });
            assert!(full.contains("make room on the disk of /d and start again"), "{full}");
        }
        let (dir, needed, free) = (Path::new("/d"), 2, 1);
        let full = refused(StorageError::DiskFull { dir: dir.into(), needed, free });
        assert!(full.contains("make room on the disk of /d and start again"), "{full}");
        let full = refused(WalError::DiskFull { dir: dir.into(), needed, free }.into());
        assert!(full.contains("make room on the disk of /d and start again"), "{full}");
    }

    #[test]
    fn damage_is_told_with_what_to_do() {
        let (dir, index) = ("/d/member/wal".into(), LogIndex(7));
        let missing = refused(WalError::MissingSegment { dir, sequence: 2, index }.into());
        assert_eq!(
            missing,
            "the data of this member is damaged and was left as it is: /d/member/wal: segment 2 is missing: the log would \
             have a hole behind index 7; if it is the only member, start it with a copy of data directory /d from before the \
             damage; in a cluster an older copy is not safe: see docs/operations.md"
        );
        let source = "Not a redb database".into();
        let tree = refused(StorageError::Tree { action: "open", path: "/d/x".into(), source });
        assert!(tree.starts_with("the data of this member is damaged"), "{tree}");
    }

    #[test]
    fn what_is_neither_is_told_as_it_is() {
        let locked = refused(StorageError::Locked { path: "/d/x".into() });
        assert_eq!(locked, "/d/x is locked: another process uses this directory");
    }
}
