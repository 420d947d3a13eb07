//! A tree's file under construction, from the rows of a view or of a snapshot. It has another name until it is whole: whoever
//! opens the directory after a crash removes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use harmony_types::config::StorageConfig;
use harmony_types::{FileSystem, Membership, OpenMode, StorageError};

use crate::recovery;
use crate::room;
use crate::tree::meta::{self, Progress};
use crate::tree::redb::RedbTree;
use crate::tree::{Durability, KvEngine, KvView, KvWriter, NextRow, Table, counted};
use crate::unified::{TREE_FILE, TREE_FILE_NEW};

/// Bytes written between two durable commits: redb keeps a note in memory of every page that it wrote since the last one,
/// and one sync of a large file at the end would keep the log's syncs waiting.
const DURABLE_BYTES: u64 = 16 << 20;

/// See the module. Removes the file when it is dropped before [`NewTree::take_place`].
pub(crate) struct NewTree {
    fs: Arc<dyn FileSystem>,
    config: StorageConfig,
    path: PathBuf,
    /// The name that it will have.
    place: PathBuf,
    /// There until it has taken its place.
    tree: Option<RedbTree>,
    /// The name is another one by now.
    renamed: bool,
    /// What the state's rows stand for, as far as the caller says it, and counts of what was written.
    pub(crate) progress: Progress,
    /// Written since the last durable commit.
    undurable: u64,
}

impl NewTree {
    /// An empty tree in `dir`. One that a rebuild or a snapshot left there is removed: there is never more than one.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn create(
        fs: &Arc<dyn FileSystem>,
        dir: &Path,
        config: &StorageConfig,
    ) -> Result<Self, StorageError> {
        let (path, place) = (dir.join(TREE_FILE_NEW), dir.join(TREE_FILE));
        recovery::remove_if_there(&**fs, &path)?;
        room::require(&**fs, dir, 0)?;
        let mut new = Self {
            fs: Arc::clone(fs),
            config: config.clone(),
            path,
            place,
            tree: None,
            renamed: false,
            progress: Progress::EMPTY,
            undurable: 0,
        };
        // The old tree keeps its cache meanwhile, and rows that come in order need little.
        let tree = RedbTree::open(&*new.fs, &new.path, OpenMode::CreateNew, config.tree_cache_bytes / 4)?;
        new.tree = Some(tree);
        Ok(new)
    }

    /// Writes rows behind a table's last one, in order, until `next` has no more, and counts them: about `bytes`.
    ///
    /// # Errors
    /// Those of `next`; [`StorageError::DiskFull`]; the tree's.
    pub(crate) fn append(&mut self, table: Table, bytes: u64, next: NextRow<'_>) -> Result<(), StorageError> {
        let before = bytes_of(&self.progress);
        self.require_room(bytes)?;
        self.write(0, &mut |writer, progress| counted::append(writer, progress, table, next))?;
        self.undurable += bytes_of(&self.progress) - before;
        Ok(())
    }

    /// Runs `write` and commits what it wrote, about `bytes`, all or nothing.
    ///
    /// # Errors
    /// Those of `write`; [`StorageError::DiskFull`]; the tree's.
    pub(crate) fn write(
        &mut self,
        bytes: u64,
        write: &mut dyn FnMut(&mut dyn KvWriter, &mut Progress) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.require_room(bytes)?;
        let durability =
            if self.undurable < DURABLE_BYTES { Durability::Visible } else { Durability::Durable };
        let mut progress = self.progress;
        self.tree().commit(durability, &mut |writer| write(writer, &mut progress))?;
        self.undurable = if durability == Durability::Durable { 0 } else { self.undurable } + bytes;
        self.progress = progress;
        Ok(())
    }

    /// Refuses what would take the last of the disk: the log and the old tree need that.
    ///
    /// # Errors
    /// [`StorageError::DiskFull`].
    pub(crate) fn require_room(&self, bytes: u64) -> Result<(), StorageError> {
        room::require(&*self.fs, self.place.parent().unwrap_or(&self.place), self.undurable + bytes)
    }

    /// What it holds so far.
    ///
    /// # Errors
    /// The tree's.
    pub(crate) fn view(&self) -> Result<Arc<dyn KvView>, StorageError> {
        self.tree().view()
    }

    /// Makes a whole tree of it: durable, without room at its end, and with all of its cache from here on.
    ///
    /// # Errors
    /// The tree's; [`StorageError::CorruptRecord`] when the disk shows something else than what was written.
    pub(crate) fn finish(&mut self, membership: &Membership) -> Result<(), StorageError> {
        self.require_room(0)?;
        let (identity, progress) = (self.config.wal.identity, self.progress);
        let tree = self.tree();
        tree.commit(Durability::Durable, &mut |writer| {
            meta::write_head(writer, identity)?;
            meta::write_membership(writer, membership)?;
            progress.write(writer)
        })?;
        self.tree.take().expect("it was there above").close()?;
        let tree = RedbTree::open(&*self.fs, &self.path, OpenMode::ReadWrite, self.config.tree_cache_bytes)?;
        // It is known by the name under which it will be found.
        let tree = self.tree.insert(tree.renamed(&self.place));
        if Progress::read(&*tree.view()?)? == progress {
            return Ok(());
        }
        let reason = "read back, it is another tree than the one that was written".to_owned();
        Err(StorageError::CorruptRecord { place: self.path.display().to_string(), reason })
    }

    /// Gives a finished one its name, durably. Behind an error, see [`NewTree::may_be_in_place`].
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn take_place(&mut self) -> Result<RedbTree, StorageError> {
        self.fs.rename(&self.path, &self.place).map_err(StorageError::io("rename to", &self.place))?;
        self.renamed = true;
        let dir = self.place.parent().unwrap_or(&self.place);
        self.fs.sync_dir(dir).map_err(StorageError::io("sync", dir))?;
        Ok(self.tree.take().expect("it is there until it has taken its place"))
    }

    /// Whether it may have its name, behind an error of [`NewTree::take_place`]: then the file that had it may be gone, and
    /// must not be written to any more. A rename that failed with an error of the disk may have happened.
    pub(crate) fn may_be_in_place(&self) -> bool {
        self.renamed || !self.fs.exists(&self.path).unwrap_or(false)
    }

    fn tree(&self) -> &RedbTree {
        self.tree.as_ref().expect("it is there until it has taken its place")
    }
}

fn bytes_of(progress: &Progress) -> u64 {
    progress.latest_bytes + progress.log_bytes + progress.state_bytes
}

impl Drop for NewTree {
    fn drop(&mut self) {
        if let Some(tree) = self.tree.take() {
            // Without this, redb would first make all of it durable.
            tree.abandon();
        }
        if !self.renamed {
            // Worthless. When removing fails, too, the next one does it, or the next open.
            let _ = recovery::remove_if_there(&*self.fs, &self.path);
        }
    }
}
