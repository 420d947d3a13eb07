//! Checking a tree that no process uses, and counting what is in it. Nothing is changed.

mod rows;

use std::path::Path;

use harmony_types::{Applied, ClusterId, FileSystem, NodeId, Revision, StorageError};

use crate::tree::KvEngine;
use crate::tree::meta;
use crate::tree::redb::{PageCounts, Unchanged};
use crate::unified::TREE_FILE;
use crate::view::View;

/// What a tree holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeStats {
    /// Whose tree it is.
    pub cluster: ClusterId,
    /// Of which member; `None` for one used alone.
    pub node: Option<NodeId>,
    /// The last entry that it has: the log goes on from there.
    pub applied: Applied,
    /// The newest revision.
    pub revision: Revision,
    /// The compact revision, 0 for never.
    pub compacted: Revision,
    /// Keys that exist.
    pub keys: u64,
    /// Deletes of keys that compaction has not dropped yet.
    pub tombstones: u64,
    /// Events of the history.
    pub events: u64,
    /// Rows of replicated state that are no keys: leases, what is attached to them, users, roles, alarms.
    pub state_rows: u64,
    /// Bytes of keys and records.
    pub live_bytes: u64,
    /// Length of the file.
    pub file_bytes: u64,
    /// Pages of the file.
    pub pages: u64,
    /// Those of them that hold nothing.
    pub free_pages: u64,
}

/// What was found in a tree without damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// What it holds.
    pub stats: TreeStats,
    /// Pages that it uses, each as it was written.
    pub used_pages: u64,
    /// Pages that nothing uses and that a crash cut while they were written: no damage.
    pub torn_pages: u64,
}

/// Reads and checks a whole tree: every page's checksum, the chain of checksums from the roots of the B-trees to every row,
/// every record's checksum, and what must hold between the tables.
///
/// # Errors
/// The first damage: [`StorageError::CrcMismatch`], [`StorageError::CorruptRecord`]. [`StorageError::Locked`] while a
/// process uses it; [`StorageError::Io`] of kind `NotFound` when there is no tree.
pub fn check(fs: &dyn FileSystem, dir: &Path) -> Result<CheckReport, StorageError> {
    let (opened, counts) = Unchanged::open_verified(fs, &dir.join(TREE_FILE))?;
    let PageCounts { used, torn, .. } = counts;
    Ok(CheckReport { stats: count(&opened, dir, true)?, used_pages: used, torn_pages: torn })
}

/// Counts what a tree holds, in one read of its tables.
///
/// # Errors
/// As [`check`], as far as damage is met.
pub fn stats(fs: &dyn FileSystem, dir: &Path) -> Result<TreeStats, StorageError> {
    count(&Unchanged::open(fs, &dir.join(TREE_FILE))?, dir, false)
}

fn count(opened: &Unchanged, dir: &Path, compare: bool) -> Result<TreeStats, StorageError> {
    let (pages, free_pages) = opened.pages()?;
    let tree = opened.tree.view()?;
    let (cluster, node) = meta::read_head(&*tree, &dir.join(TREE_FILE).display().to_string())?;
    let view = View::open(tree)?;
    let progress = &view.progress;
    let found = rows::count(&view)?;
    if compare {
        rows::compare(&view, &found)?;
    }
    Ok(TreeStats {
        cluster,
        node: NodeId::new(node),
        applied: progress.applied,
        revision: progress.revision,
        compacted: progress.compact,
        keys: found.keys,
        tombstones: found.tombstones,
        events: found.events,
        state_rows: found.state_rows,
        live_bytes: found.latest_bytes + found.log_bytes + found.state_bytes,
        file_bytes: opened.tree.file_bytes()?,
        pages,
        free_pages,
    })
}

#[cfg(test)]
mod tests;
