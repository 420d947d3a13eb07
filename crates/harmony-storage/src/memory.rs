//! What is applied and not yet in the tree: a batch that commands write to, and below it one that is on its way into the
//! tree. Lost at a crash, as the log is its redo log.
//!
//! ```text
//! apply ──▶ the batch on top      read under the lock for moments; bounded by the storage
//!           the frozen batch      there from `freeze` to `rebase`; never changes, so it serves as a view, too
//!           the tree
//! ```

use std::cell::Cell;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use arc_swap::ArcSwap;
use bytes::Bytes;
use harmony_types::StorageError;

use crate::batch::{Base, Batch, Mark};
use crate::checked::Checked;
use crate::settings::Settings;
use crate::tree::meta::Progress;
use crate::tree::record::VersionBuf;
use crate::view::{Reads, View};

/// Rows that one read looks at under the lock: apply waits for it meanwhile.
pub(crate) const ROWS_MAX: u32 = 2_048;

/// Bytes of values that count as one row more: they are copied under the lock.
const ROW_BYTES: usize = 4_096;

/// See the module.
pub(crate) struct Memory {
    top: RwLock<Batch>,
    /// What the last apply left, for those who need no more.
    published: ArcSwap<Published>,
}

/// How far the state machine is.
pub(crate) struct Published {
    pub(crate) progress: Progress,
    pub(crate) settings: Settings,
    /// Bytes of keys and records, in the tree and, estimated, in memory.
    pub(crate) bytes: u64,
}

impl Published {
    fn of(batch: &Batch) -> Self {
        let frozen = match batch.base() {
            Base::Frozen(frozen) => frozen.row_bytes(),
            Base::Tree(_) => 0,
        };
        let progress = batch.progress;
        Self {
            progress,
            settings: batch.settings().clone(),
            bytes: progress.latest_bytes
                + progress.log_bytes
                + progress.state_bytes
                + frozen
                + batch.row_bytes(),
        }
    }
}

impl Memory {
    /// Nothing on top of the tree.
    pub(crate) fn new(tree: View) -> Self {
        let batch = Batch::new(Base::Tree(Arc::new(tree)));
        Self { published: ArcSwap::from_pointee(Published::of(&batch)), top: RwLock::new(batch) }
    }

    /// Nothing on top of a tree that replaces everything.
    pub(crate) fn reset(&self, tree: View) {
        let mut top = self.write();
        let old = std::mem::replace(&mut *top, Batch::new(Base::Tree(Arc::new(tree))));
        self.publish(&top);
        drop((top, old));
    }

    /// What the last apply left.
    pub(crate) fn published(&self) -> Arc<Published> {
        self.published.load_full()
    }

    /// Memory that the batch on top takes, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.top().bytes()
    }

    /// Runs `change`, all or nothing: after an error everything is as it was.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Batch) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let mut top = self.write();
        let mark = top.mark();
        let mut under_way = Change { top, mark: Some(mark) };
        let done = change(&mut under_way.top)?;
        under_way.mark = None;
        under_way.top.keep();
        self.publish(&under_way.top);
        Ok(done)
    }

    /// Reads at what was applied last; `None` when that would take too long.
    pub(crate) fn read<T>(
        &self,
        read: impl Fn(&dyn Reads) -> Result<T, StorageError>,
    ) -> Option<Result<T, StorageError>> {
        let top = self.top();
        // Rows that may still be looked at; `None` once there were too many.
        let left = Cell::new(Some(ROWS_MAX));
        let check = |value_bytes: usize| {
            let rows = u32::try_from(1 + value_bytes / ROW_BYTES).unwrap_or(u32::MAX);
            left.set(left.get().and_then(|left| left.checked_sub(rows)));
            // Any error does to end the read, as its result is dropped.
            if left.get().is_some() { Ok(()) } else { Err(StorageError::Closed) }
        };
        let result = read(&Checked { reads: &*top, check });
        left.get().map(|_| result)
    }

    /// Takes those keys out of `keys` that were written in memory, and returns the tree, in which the others are to be looked
    /// for.
    pub(crate) fn below(&self, keys: &mut Vec<Bytes>) -> Arc<View> {
        let top = self.top();
        keys.retain(|key| top.written(key).is_none());
        Arc::clone(top.tree())
    }

    /// The newest version of a key, tombstone or not, and how far the state machine is then. The tree is read without the
    /// lock: the disk keeps no apply waiting.
    pub(crate) fn newest(&self, key: &[u8]) -> Result<(Progress, Option<VersionBuf>), StorageError> {
        let (progress, tree) = {
            let top = self.top();
            if let Some(event) = top.written(key) {
                return Ok((top.progress, Some(event.to_buf())));
            }
            (top.progress, Arc::clone(top.tree()))
        };
        Ok((progress, tree.version(key)?))
    }

    /// Looks at the batch on top for a moment: apply waits meanwhile.
    pub(crate) fn with_top<T>(&self, look: impl FnOnce(&Batch) -> T) -> T {
        look(&self.top())
    }

    /// What was applied last, as a view that stands still; `None` when a batch must be folded first.
    pub(crate) fn fix(&self) -> Option<Base> {
        let mut top = self.write();
        if top.is_clean() {
            return Some(top.base().clone());
        }
        match top.base() {
            Base::Tree(_) => Some(Base::Frozen(top.freeze())),
            Base::Frozen(_) => None,
        }
    }

    /// What was applied last, as a view of its own: costs time and memory for each write on top, and waits for nobody.
    pub(crate) fn copy(&self) -> Base {
        Base::Frozen(Arc::new(self.top().copy()))
    }

    /// The tree, when all that was applied is in it.
    pub(crate) fn tree(&self) -> Option<Arc<View>> {
        let top = self.top();
        match top.base() {
            Base::Tree(view) if top.is_clean() => Some(Arc::clone(view)),
            _ => None,
        }
    }

    /// Ends the batch on top, to be folded next; false, and nothing changes, when there is a frozen one.
    pub(crate) fn freeze(&self) -> bool {
        let mut top = self.write();
        let on_tree = matches!(top.base(), Base::Tree(_));
        if on_tree {
            top.freeze();
        }
        on_tree
    }

    /// The batch that is to be folded.
    pub(crate) fn frozen(&self) -> Option<Arc<Batch>> {
        match self.top().base() {
            Base::Frozen(batch) => Some(Arc::clone(batch)),
            Base::Tree(_) => None,
        }
    }

    /// The frozen batch is in the tree.
    pub(crate) fn rebase(&self, tree: &Arc<View>) {
        let mut top = self.write();
        let old = top.rebase(Arc::clone(tree));
        self.publish(&top);
        // Freeing it takes a while, and nobody should wait for that.
        drop(top);
        drop(old);
    }

    /// Puts a tree in the place of one that says the same. A frozen batch stays on the old one until it is folded.
    pub(crate) fn replace_tree(&self, tree: Arc<View>) {
        let mut top = self.write();
        let old = match top.base() {
            Base::Tree(_) => Some(top.rebase(tree)),
            Base::Frozen(_) => None,
        };
        self.publish(&top);
        drop((top, old));
    }

    fn publish(&self, top: &Batch) {
        self.published.store(Arc::new(Published::of(top)));
    }

    fn top(&self) -> RwLockReadGuard<'_, Batch> {
        self.top.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Batch> {
        // A change that panics is rolled back, so what the lock guards is whole.
        self.top.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way back while a change is under way; taken when it ends by an error or a panic.
struct Change<'a> {
    top: RwLockWriteGuard<'a, Batch>,
    mark: Option<Mark>,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if let Some(mark) = self.mark.take() {
            self.top.roll_back(mark);
        }
    }
}
