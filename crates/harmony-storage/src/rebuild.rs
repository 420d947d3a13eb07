//! Rebuilding: a whole new tree file, written from views of the old one and put in its place, while everything else goes on.
//! The new file is dense, so this is defragmentation, without a pause.
//!
//! | phase | does | held meanwhile |
//! | --- | --- | --- |
//! | copy | copies the rows of a view that stands still, in key order, but for what compaction gave up | nothing |
//! | round | makes a checkpoint, and repeats on the new tree what came since the view before: events out of the log, and rows of `state` that differ | nothing, besides the checkpoint |
//! | end | the last, short round; closes the new file, so that redb cuts what it does not need; renames it; exchanges the trees | the right to commit: checkpoints wait, apply and reads do not |
//!
//! Rounds are repeated until one is short, so that the end is short, too; under writes that come as fast as they can be repeated,
//! the end comes after [`ROUNDS_MAX`] rounds all the same, and apply may wait for it as it waits for a checkpoint.
//!
//! - Checkpoints go on into the old tree. Compaction drops none of the events that the next round needs: see
//!   [`Rebuilds::kept`].
//! - The views are read from the file and around the old tree's cache, see `tree/redb/durable.rs`: a damaged page ends the
//!   rebuild, and nothing else. They pin the old file's pages: it grows by what is written until the next round.
//! - Each step holds one or two MiB in memory, whatever the size of the tree; besides, the new tree has a quarter of a tree's cache.
//! - A crash leaves the old file or the new one, each with all that was durable. Whatever fails before the rename leaves the old
//!   one in use and removes the new one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use harmony_types::{Revision, StorageError};

use crate::mvcc::compact;
use crate::new_tree::NewTree;
use crate::room;
use crate::tree::meta::Progress;
use crate::tree::{Durability, KvEngine};
use crate::unified::{UnifiedStorage, Writing};
use crate::view::View;

mod build;

use build::Build;

/// Rounds after which the end comes, however long the last one was.
const ROUNDS_MAX: u32 = 10;

/// Steps' worth of events in a round that counts as short.
const ROUND_STEPS: u64 = 4;

/// Bytes of a step when nobody says.
const STEP_BYTES: usize = 1 << 20;

/// What a rebuild did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// Length of the tree's file before, bytes.
    pub bytes_before: u64,
    /// Length of the file that took its place, bytes.
    pub bytes_after: u64,
}

/// How far a rebuild is after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebuildStep {
    /// There is more to do.
    More,
    /// The new file is in place, durably.
    Done(Rebuilt),
    /// A snapshot came in meanwhile: the tree is a new one anyway.
    Superseded,
}

/// A rebuild that its owner drives at a pace of his own. Dropped before it is done, it is given up: the old file stays.
#[derive(Debug)]
pub struct Rebuild<'a> {
    storage: &'a UnifiedStorage,
    id: u64,
}

impl UnifiedStorage {
    /// Writes the tree into a new file without gaps and puts that in the old one's place, see the table in the source's
    /// module `rebuild`. Apply, reads, snapshots and checkpoints go on meanwhile. Takes as long as reading and writing the
    /// whole tree, and as much disk again until it is done.
    ///
    /// `None`: a snapshot came in meanwhile, so the tree is a new one anyway.
    ///
    /// # Errors
    /// As [`Rebuild::step`].
    pub fn rebuild(&self) -> Result<Option<Rebuilt>, StorageError> {
        let mut rebuild = self.start_rebuild()?;
        loop {
            match rebuild.step(STEP_BYTES)? {
                RebuildStep::More => {}
                RebuildStep::Done(rebuilt) => return Ok(Some(rebuilt)),
                RebuildStep::Superseded => return Ok(None),
            }
        }
    }

    /// As [`UnifiedStorage::rebuild`], in steps.
    ///
    /// # Errors
    /// [`StorageError::Io`] of kind `ResourceBusy` while another rebuild is under way; else as [`Rebuild::step`].
    pub fn start_rebuild(&self) -> Result<Rebuild<'_>, StorageError> {
        let mut state = self.rebuilds.lock();
        self.check_open()?;
        if state.build.is_some() {
            let source = std::io::Error::new(
                std::io::ErrorKind::ResourceBusy,
                "another rebuild is under way: wait until it is done",
            );
            return Err(StorageError::io("rebuild", &self.tree_dir)(source));
        }
        let source = self.take_source(&self.writer());
        let build = source.and_then(|source| {
            // Before anything is copied: all that is in the tree.
            let Progress { latest_bytes, log_bytes, state_bytes, .. } = source.progress;
            room::require(&*self.fs, &self.tree_dir, latest_bytes + log_bytes + state_bytes)?;
            let new = NewTree::create(&self.fs, &self.tree_dir, &self.config)?;
            Ok(Build::new(source, new))
        });
        match build {
            Ok(build) => {
                state.last_id += 1;
                state.build = Some((state.last_id, build));
                Ok(Rebuild { storage: self, id: state.last_id })
            }
            Err(error) => {
                self.rebuilds.give_up(&mut state);
                Err(error)
            }
        }
    }

    /// A view of a checkpoint that is made here. Events behind it are kept from now on.
    fn take_source(&self, writing: &Writing<'_>) -> Result<View, StorageError> {
        let view = self.fold(writing, Durability::Durable, compact::STEP_ROWS)?;
        let source = View {
            tree: self.tree.load().durable_view()?,
            progress: view.progress,
            settings: view.settings.clone(),
        };
        self.rebuilds.keep_from(source.progress.revision.next());
        Ok(source)
    }

    /// One step of `build`; what it came to once it is done.
    fn advance(&self, build: &mut Build, bytes_max: usize) -> Result<Option<Rebuilt>, StorageError> {
        if build.step(bytes_max)? {
            return Ok(None);
        }
        let is_short = build.rounds != 0 && build.round_bytes <= ROUND_STEPS.saturating_mul(bytes_max as u64);
        if is_short || ROUNDS_MAX <= build.rounds {
            return self.finish(build, bytes_max).map(Some);
        }
        let source = self.take_source(&self.writer())?;
        build.next_round(source);
        Ok(None)
    }

    /// The last round and what comes behind it.
    fn finish(&self, build: &mut Build, bytes_max: usize) -> Result<Rebuilt, StorageError> {
        let writing = self.writer();
        let source = self.take_source(&writing)?;
        build.next_round(source);
        build.finish(bytes_max)?;
        let bytes_before = self.tree.load().file_bytes()?;
        let View { tree, progress, .. } = self.swap_in(&writing, &mut build.new)?;
        // The settings that memory has, so that it does not take them for changed ones.
        let settings = build.source.settings.clone();
        self.memory.replace_tree(View { tree, progress, settings }.into());
        Ok(Rebuilt { bytes_before, bytes_after: self.tree.load().file_bytes()? })
    }
}

impl Rebuild<'_> {
    /// Reads and writes about `bytes_max` bytes, of which it holds as much in memory, or makes a checkpoint. The last step
    /// exchanges the trees; it is as long as some four others, or as writes that came faster than they could be repeated make it.
    ///
    /// # Errors
    /// [`StorageError::Closed`]. [`StorageError::CrcMismatch`] and [`StorageError::CorruptRecord`] when the old tree is damaged
    /// where it was read; [`StorageError::Io`] and [`StorageError::Tree`] when the disk refused: the old tree is in use as
    /// before, and nothing is left of the new one. Only when renaming it failed nobody knows which of both files has the
    /// name: then every checkpoint fails, until the storage is opened again.
    pub fn step(&mut self, bytes_max: usize) -> Result<RebuildStep, StorageError> {
        let rebuilds = &self.storage.rebuilds;
        let mut state = rebuilds.lock();
        let Some((id, mut build)) = state.build.take().filter(|(id, _)| *id == self.id) else {
            self.storage.check_open()?;
            return Ok(RebuildStep::Superseded);
        };
        match self.storage.advance(&mut build, bytes_max) {
            Ok(None) => {
                state.build = Some((id, build));
                Ok(RebuildStep::More)
            }
            done => {
                drop(build);
                rebuilds.give_up(&mut state);
                done.map(|rebuilt| rebuilt.map_or(RebuildStep::More, RebuildStep::Done))
            }
        }
    }
}

impl Drop for Rebuild<'_> {
    fn drop(&mut self) {
        let mut state = self.storage.rebuilds.lock();
        if state.build.as_ref().is_some_and(|(id, _)| *id == self.id) {
            self.storage.rebuilds.give_up(&mut state);
        }
    }
}

/// The rebuild that is under way, if any. Holding the lock is the right to make a new tree file.
pub(crate) struct Rebuilds {
    state: Mutex<State>,
    kept: AtomicU64,
}

#[derive(Default)]
pub(crate) struct State {
    /// With its owner's number.
    build: Option<(u64, Build)>,
    last_id: u64,
}

impl Default for Rebuilds {
    fn default() -> Self {
        Self { state: Mutex::default(), kept: AtomicU64::new(compact::KEEP_NONE.0) }
    }
}

impl Rebuilds {
    /// Waits for a step that is under way.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A step that panics has taken its rebuild out, which is given up with it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the rebuild that is under way, if any: the old tree stays.
    pub(crate) fn give_up(&self, state: &mut State) {
        state.build = None;
        self.keep_from(compact::KEEP_NONE);
    }

    /// The first revision whose events compaction must not drop from the tree: the next round reads them there.
    pub(crate) fn kept(&self) -> Revision {
        Revision(self.kept.load(Ordering::Acquire))
    }

    fn keep_from(&self, revision: Revision) {
        self.kept.store(revision.0, Ordering::Release);
    }
}
