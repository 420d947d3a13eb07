//! A tree opened to be looked at: nothing of it is changed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use harmony_types::{FileSystem, OpenMode, StorageError};
use redb::{Database, DatabaseError};

use super::{Opened, RedbTree, TreeFile, check_length, contained, failed, locked};
use crate::tree::backend::FirstDamage;
use crate::tree::overlay::{Overlay, OverlayBackend};
use crate::tree::pages::{PAGE_BYTES, PageDamage, PageState, PagedFile};

/// Memory for a tree that is looked at once.
const CACHE_BYTES: usize = 64 << 20;

/// See the module.
pub(crate) struct Unchanged {
    pub(crate) tree: RedbTree,
    overlay: Arc<Overlay>,
}

/// What the pages of a good tree are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PageCounts {
    /// Used by the tree, each of them good.
    pub(crate) used: u64,
    /// Not used, and not as they were written: a crash cut them.
    pub(crate) torn: u64,
}

impl Unchanged {
    /// Opens the tree in `path`. What is committed to it stays in memory.
    ///
    /// # Errors
    /// As [`RedbTree::open`].
    pub(crate) fn open(fs: &dyn FileSystem, path: &Path) -> Result<Self, StorageError> {
        let file = open_file(fs, path)?;
        Self::open_pages(file, false)
    }

    /// As [`Unchanged::open`], with everything in the file checked: redb's own checksums from the roots to every row, which
    /// find a page that is old together with its checksum, and the checksums of all pages, used or not.
    ///
    /// # Errors
    /// [`StorageError::CrcMismatch`], [`StorageError::CorruptRecord`]; as [`RedbTree::open`].
    pub(crate) fn open_verified(
        fs: &dyn FileSystem,
        path: &Path,
    ) -> Result<(Self, PageCounts), StorageError> {
        let file = open_file(fs, path)?;
        // redb verifies before it believes anything; opening without that could trip over what is not as it should be.
        drop(Self::open_pages(file.clone(), true)?);
        let mut opened = Self::open_pages(file.clone(), false)?;
        opened.overlay.take_read();
        let database = Arc::get_mut(&mut opened.tree.database).and_then(|opened| opened.0.as_mut());
        let database = database.expect("nobody else has a handle yet");
        match database.check_integrity() {
            Ok(true) => {}
            Ok(false) => return Err(corrupt(&file, "its list of free pages is not that of its pages")),
            Err(error) => return Err(corrupt_or_failed(&file, error)),
        }
        let counts = count_pages(&file, &opened.overlay.take_read())?;
        Ok((opened, counts))
    }

    fn open_pages(file: TreeFile, verify: bool) -> Result<Self, StorageError> {
        let overlay = Arc::new(Overlay::new(Arc::clone(&file.pages), Arc::clone(&file.damage)));
        let opened = contained("open", &file, || {
            Database::builder()
                .set_cache_size(CACHE_BYTES)
                .set_check_integrity_on_open(verify)
                .create_with_backend(OverlayBackend(Arc::clone(&overlay)))
        })?;
        let database = opened.map_err(|error| corrupt_or_failed(&file, error))?;
        Ok(Self { tree: RedbTree { database: Arc::new(Opened(Some(database))), file }, overlay })
    }

    /// All pages, and those of them that hold nothing.
    ///
    /// # Errors
    /// What redb reports.
    pub(crate) fn pages(&self) -> Result<(u64, u64), StorageError> {
        let file = &self.tree.file;
        let transaction = self.tree.database.begin_write().map_err(failed("begin a commit", file))?;
        let allocated = transaction.stats().map_err(failed("count pages", file))?.allocated_pages();
        transaction.abort().map_err(failed("end a commit", file))?;
        let all = file.pages.len() / PAGE_BYTES as u64;
        // The first page is the header's, which is never allocated.
        Ok((all, all.saturating_sub(allocated + 1)))
    }
}

fn open_file(fs: &dyn FileSystem, path: &Path) -> Result<TreeFile, StorageError> {
    let pages = PagedFile::open(locked(fs, path, OpenMode::Read)?, path)?;
    check_length(&pages, path, false)?;
    pages.abandon();
    Ok(TreeFile { pages: Arc::new(pages), damage: FirstDamage::default(), path: path.into() })
}

/// Compares every page with its checksum.
fn count_pages(file: &TreeFile, used: &BTreeSet<u64>) -> Result<PageCounts, StorageError> {
    let TreeFile { pages, path, .. } = file;
    let mut counts = PageCounts { used: used.len() as u64, torn: 0 };
    let mut damage: Option<PageDamage> = None;
    let mut next = 0;
    loop {
        let seen = pages.look(next, &mut |page, state| match state {
            PageState::Bad(found) if page == 0 || used.contains(&page) => damage = Some(found),
            PageState::Bad(_) => counts.torn += 1,
            PageState::Good | PageState::Unwritten => {}
        });
        let seen = seen.map_err(StorageError::io("read", &**path))?;
        match damage {
            Some(damage) => return Err(damage.to_error(path)),
            None if seen == next => return Ok(counts),
            None => next = seen,
        }
    }
}

fn corrupt(file: &TreeFile, reason: &str) -> StorageError {
    StorageError::CorruptRecord { place: file.path.display().to_string(), reason: reason.to_owned() }
}

/// What redb found wrong, or could not do.
fn corrupt_or_failed(file: &TreeFile, error: DatabaseError) -> StorageError {
    match error {
        DatabaseError::Storage(redb::StorageError::Corrupted(reason)) if file.damage.get().is_none() => {
            corrupt(file, &reason)
        }
        error => failed("open", file)(error),
    }
}
