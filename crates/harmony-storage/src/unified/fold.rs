//! Taking memory into the tree, and keeping memory within its bounds.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use harmony_types::planted::{self, Bug};
use harmony_types::{Applied, Entry, LogIndex, StorageError};

use super::{UnifiedStorage, Writing};
use crate::batch::{Base, Batch};
use crate::mvcc::compact;
use crate::room::{Effort, Need};
use crate::tree::meta::Progress;
use crate::tree::{Durability, KvEngine as _};
use crate::view::View;

impl UnifiedStorage {
    /// Takes all that was applied into the tree. Apply goes on meanwhile, on top of what is being taken.
    pub(crate) fn fold(
        &self,
        writing: &Writing<'_>,
        durability: Durability,
        compact_rows: usize,
    ) -> Result<Arc<View>, StorageError> {
        let drops = compact_rows != 0 && compact::is_due(&self.progress(), self.rebuilds.kept());
        let effort = |behind| match durability {
            Durability::Visible => Effort::Reader,
            Durability::Durable => Effort::Checkpoint { behind, drops },
        };
        // What a view froze, at any moment, a fold that failed left, or an apply.
        while !self.memory.freeze() {
            let behind = self.need_of_top();
            self.fold_frozen(writing, Durability::Visible, 0, effort(behind))?;
        }
        if durability == Durability::Durable && !planted::is(Bug::CheckpointUnsynced) {
            // The tree must never be ahead of the log on disk: a restart would find a hole.
            self.wal.sync()?;
        }
        let last = effort(Need::default());
        Ok(self.fold_frozen(writing, durability, compact_rows, last)?.expect("frozen above"))
    }

    /// Takes all that was applied into the tree, for somebody who can wait for the disk: where it has too little room for a commit
    /// beside the next checkpoint, by a checkpoint.
    pub(super) fn fold_somehow(
        &self,
        durability: Durability,
        compact_rows: usize,
    ) -> Result<Arc<View>, StorageError> {
        let writing = self.writer();
        match self.fold(&writing, durability, compact_rows) {
            Err(StorageError::DiskFull { .. }) if durability == Durability::Visible => {
                self.fold(&writing, Durability::Durable, compact_rows)
            }
            folded => folded,
        }
    }

    /// As a durable [`UnifiedStorage::fold`]; but of a frozen batch that is large it takes no more than that, so that an apply that
    /// waits finds place as soon as may be.
    pub(super) fn fold_part(
        &self,
        writing: &Writing<'_>,
        compact_rows: usize,
    ) -> Result<Arc<View>, StorageError> {
        let is_large = |frozen: Arc<Batch>| self.config.checkpoint_bytes / 2 <= frozen.bytes();
        if self.memory.frozen().is_some_and(is_large) {
            self.wal.sync()?;
            let drops = compact_rows != 0 && compact::is_due(&self.progress(), self.rebuilds.kept());
            let effort = Effort::Checkpoint { behind: self.need_of_top(), drops };
            if let Some(view) = self.fold_frozen(writing, Durability::Durable, compact_rows, effort)? {
                return Ok(view);
            }
        }
        self.fold(writing, Durability::Durable, compact_rows)
    }

    /// Takes the frozen batch into the tree, if there is one, and puts the tree in its place.
    pub(super) fn fold_frozen(
        &self,
        _writing: &Writing<'_>,
        durability: Durability,
        compact_rows: usize,
        effort: Effort,
    ) -> Result<Option<Arc<View>>, StorageError> {
        let Some(batch) = self.memory.frozen() else { return Ok(None) };
        let tree = self.tree.load_full();
        let mut progress = batch.progress;
        // A rebuild may have put another tree below the batch.
        progress.take_counts(&Progress::read(&*tree.view()?)?);
        progress.boundary_pending = false;
        let kept = self.rebuilds.kept();
        let mut pace = compact::Pace::beside(&batch, compact_rows);
        let deletes = compact::is_due(&progress, kept).then_some(pace.deletes_max);
        let admitted = self.room.admit(&tree, &batch, deletes, durability, effort)?;
        pace.deletes_max = admitted.deletes_max;
        tree.commit(durability, &mut |writer| {
            batch.commit(writer, &mut progress)?;
            compact::step(writer, &mut progress, kept, pace)?;
            if planted::is(Bug::AppliedIndexBehind) && progress.applied.index.0 != 0 {
                let index = LogIndex(progress.applied.index.0 - 1);
                return Progress { applied: Applied { index, ..progress.applied }, ..progress }.write(writer);
            }
            progress.write(writer)
        })?;
        let view = Arc::new(View { tree: tree.view()?, progress, settings: batch.settings().clone() });
        self.room.committed(&admitted);
        self.memory.rebase(&view);
        self.views.folded(&batch, &view, tree.written_bytes());
        if durability == Durability::Durable {
            self.durable_applied.store(view.progress.applied.index.0, Ordering::Release);
        }
        Ok(Some(view))
    }

    /// Leaves a full memory to the next checkpoint, which may be one that is under way: whoever applies waits for it then. With
    /// two of them and no checkpoint, or when memory soon holds more than the disk has room for, folds here. `may_exceed`:
    /// whether apply goes on when there is no room at all.
    pub(super) fn bound_memory(
        &self,
        entries: &[Entry],
        may_exceed: impl FnOnce() -> bool,
    ) -> Result<(), StorageError> {
        let need = || self.need().and(Need::of_entries(entries));
        if self.leaves_room() && self.room.has(need()) {
            return Ok(());
        }
        let writing = self.writer();
        let (is_full, need) = (!self.leaves_room(), need());
        if !is_full && self.room.has(need) {
            return Ok(());
        }
        match self.fold_part(&writing, compact::STEP_ROWS) {
            Err(StorageError::DiskFull { .. })
                if (!is_full && self.room.reserve_has(&self.tree.load(), need)?) || may_exceed() =>
            {
                Ok(())
            }
            folded => {
                folded?;
                // The full batch gives way at once.
                self.leaves_room();
                Ok(())
            }
        }
    }

    /// Whether the batch on top may take more; a full one makes place for a new one, unless there is a frozen one.
    pub(super) fn leaves_room(&self) -> bool {
        self.memory.bytes() < self.config.checkpoint_bytes || self.memory.freeze()
    }

    /// What taking all that is in memory into the tree may need.
    pub(super) fn need(&self) -> Need {
        let pages = self.tree.load().file_pages();
        self.memory.with_top(|top| match top.base() {
            Base::Frozen(frozen) => Need::of(frozen, pages).and(Need::of(top, pages)),
            Base::Tree(_) => Need::of(top, pages),
        })
    }

    /// What taking the batch on top into the tree may need.
    fn need_of_top(&self) -> Need {
        let pages = self.tree.load().file_pages();
        self.memory.with_top(|top| Need::of(top, pages))
    }
}
