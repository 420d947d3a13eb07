//! One member of a new cluster out of a backup.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use harmony_storage::{Restore, restore_snapshot};
use harmony_types::config::{StorageConfig, WalConfig};
use harmony_types::{ClusterId, Revision};
use harmony_wal::OsFileSystem;

use super::data_dir::DataDir;
use super::{Ids, ServeError, first_members};
use crate::config::Config;

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// It would overwrite something.
    #[error("{path} is not empty: restore into a directory that is empty or not there, with --data-dir")]
    NotEmpty { path: PathBuf },
    /// The directory cannot be made.
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// There is no member to recover.
    #[error("{path} holds no member: name the data directory of one that was started once")]
    NoMember { path: PathBuf },
    /// The new cluster would be the old one.
    #[error(
        "the new cluster would have the id {cluster} of the lost one, and take its members' messages: give another \
         --initial-cluster-token"
    )]
    SameCluster { cluster: ClusterId },
    /// The directory cannot be used.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The backup is damaged, or the disk failed.
    #[error(transparent)]
    Storage(#[from] harmony_types::StorageError),
}

/// What of a backup becomes different.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changes {
    /// Added to the revision.
    pub(crate) bump_revision: u64,
    /// Whether all history is given up.
    pub(crate) mark_compacted: bool,
}

/// Makes the data directory that `config` names, with the member that it describes. The directory appears when all of it is there.
///
/// # Errors
/// [`RestoreError`]; nothing is left then.
pub(crate) fn restore(
    config: &Config,
    backup: Box<dyn Read + Send>,
    changes: Changes,
) -> Result<Revision, RestoreError> {
    restore_with(config, backup, changes, |_, revision| Ok(revision))
}

/// As [`restore`], with what `finish` adds before the directory appears.
///
/// # Errors
/// As [`restore`].
pub(super) fn restore_with(
    config: &Config,
    backup: Box<dyn Read + Send>,
    changes: Changes,
    finish: impl FnOnce(&DataDir, Revision) -> Result<Revision, RestoreError>,
) -> Result<Revision, RestoreError> {
    let path = &config.data_dir;
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::Io { action, path, source }
    };
    match fs::read_dir(path) {
        Ok(mut found) => {
            if found.next().is_some() {
                return Err(RestoreError::NotEmpty { path: path.clone() });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("read", path)(error)),
    }
    // A server must never find half of a member, and take it for a new one.
    let mut unfinished = path.clone().into_os_string();
    unfinished.push(".restoring");
    let unfinished = PathBuf::from(unfinished);
    remove(&unfinished).map_err(failed("remove", &unfinished))?;
    let restored = into(&unfinished, config, backup, changes, finish).and_then(|revision| {
        // It is empty, as was seen above; a rename replaces it.
        fs::rename(&unfinished, path).map_err(failed("rename", &unfinished))?;
        sync_parent(path).map_err(failed("sync the directory of", path))?;
        Ok(revision)
    });
    if restored.is_err() {
        let _second = remove(&unfinished);
    }
    restored
}

fn into(
    path: &Path,
    config: &Config,
    backup: Box<dyn Read + Send>,
    changes: Changes,
    finish: impl FnOnce(&DataDir, Revision) -> Result<Revision, RestoreError>,
) -> Result<Revision, RestoreError> {
    let dir = DataDir::open(path)?;
    let options = storage_options(config);
    let Changes { bump_revision, mark_compacted } = changes;
    let restore = Restore { membership: first_members(config), bump_revision, mark_compacted };
    let revision = restore_snapshot(OsFileSystem::new(), &dir.wal(), &dir.tree(), options, restore, backup)?;
    finish(&dir, revision)
}

/// How the storage of the new member is opened.
pub(super) fn storage_options(config: &Config) -> StorageConfig {
    StorageConfig {
        wal: WalConfig {
            identity: Ids::of(config).identity(),
            segment_bytes: config.segment_bytes,
            ..WalConfig::default()
        },
        ..StorageConfig::default()
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a new name last.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(parent)?.sync_all()
}
