//! The views that are held, and what ends those that keep too much.
//!
//! While a view of the tree is held, no page that was given up since can be used again: redb is copy-on-write, and frees
//! pages in the order of its commits. So the tree's file grows by what is written, however little of it is new. That is
//! counted here, and a view for which too much was written is ended: its pages are free with the next commit, and whoever
//! reads at it is told.
//!
//! A view may begin as a batch in memory. As soon as the batch is in the tree the view goes over to the tree, which says the
//! same, and the memory is free. A view that was taken as a copy, while a checkpoint ran, cannot: memory of such copies has
//! a limit of its own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use harmony_types::{Revision, StorageError};

use crate::batch::{Base, Batch};
use crate::view::{Reads as _, View};

/// Batches of full size that views may keep in memory, all together.
const BATCHES_MAX: u64 = 8;

/// See the module.
pub(crate) struct Views {
    /// Bytes written to the tree that end a view.
    bytes_max: u64,
    /// Bytes in memory that end the oldest views.
    memory_max: u64,
    held: Mutex<Held>,
}

struct Held {
    slots: BTreeMap<u64, Arc<Slot>>,
    next_id: u64,
    /// Bytes written to trees so far, those before the present one included.
    written: u64,
    /// Those that the present one had written when it was looked at last.
    of_tree: u64,
    /// What was folded last, and the tree that says the same.
    folded: (Weak<Batch>, Weak<View>),
    closed: bool,
}

/// One view.
struct Slot {
    /// So that a read can look after every row.
    ended: AtomicBool,
    state: Mutex<State>,
}

enum State {
    /// `since`: what was written when it was taken.
    Held { base: Base, since: u64 },
    /// It kept too much.
    Expired { revision: Revision, kept_bytes: u64, limit_bytes: u64 },
    /// The storage was closed.
    Closed,
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn base(&self) -> Option<Base> {
        match &*self.state() {
            State::Held { base, .. } => Some(base.clone()),
            _ => None,
        }
    }

    /// Ends the view. What it held is dropped by the caller.
    fn end(&self, with: impl FnOnce(&Base) -> State) -> Option<State> {
        let mut state = self.state();
        let State::Held { base, .. } = &*state else { return None };
        let ended = with(base);
        self.ended.store(true, Ordering::Release);
        Some(std::mem::replace(&mut state, ended))
    }
}

/// A view that is held until it is dropped, or ended.
pub(crate) struct Pin {
    views: Arc<Views>,
    id: u64,
    slot: Arc<Slot>,
}

impl Pin {
    /// What to read.
    ///
    /// # Errors
    /// [`StorageError::ViewExpired`]; [`StorageError::Closed`].
    pub(crate) fn base(&self) -> Result<Base, StorageError> {
        match &*self.slot.state() {
            State::Held { base, .. } => Ok(base.clone()),
            State::Expired { revision, kept_bytes, limit_bytes } => Err(StorageError::ViewExpired {
                revision: *revision,
                kept_bytes: *kept_bytes,
                limit_bytes: *limit_bytes,
            }),
            State::Closed => Err(StorageError::Closed),
        }
    }

    /// Whether what was read may still be used; looked at after every row.
    ///
    /// # Errors
    /// As [`Pin::base`].
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        if self.slot.ended.load(Ordering::Acquire) { self.base().map(drop) } else { Ok(()) }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let slot = self.views.held().slots.remove(&self.id);
        // Freeing what it held takes a while, and nobody should wait for that.
        drop(slot);
    }
}

impl Views {
    /// None is held.
    pub(crate) fn new(bytes_max: u64, checkpoint_bytes: u64) -> Arc<Self> {
        let held = Held {
            slots: BTreeMap::new(),
            next_id: 0,
            written: 0,
            of_tree: 0,
            folded: (Weak::new(), Weak::new()),
            closed: false,
        };
        let memory_max = checkpoint_bytes.saturating_mul(BATCHES_MAX);
        Arc::new(Self { bytes_max, memory_max, held: Mutex::new(held) })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes written to trees when the last commit ended. To be asked for before the base of a view is taken.
    pub(crate) fn written(&self) -> u64 {
        self.held().written
    }

    /// Holds a view that was taken when `since` had been written.
    pub(crate) fn pin(self: &Arc<Self>, since: u64, mut base: Base) -> Pin {
        let mut held = self.held();
        // It may have been folded just now.
        if let Base::Frozen(batch) = &base
            && std::ptr::eq(held.folded.0.as_ptr(), Arc::as_ptr(batch))
            && let Some(tree) = held.folded.1.upgrade()
        {
            base = Base::Tree(tree);
        }
        let state = if held.closed { State::Closed } else { State::Held { base, since } };
        let slot = Arc::new(Slot { ended: AtomicBool::new(held.closed), state: Mutex::new(state) });
        let id = held.next_id;
        held.next_id += 1;
        held.slots.insert(id, Arc::clone(&slot));
        let ended = self.bound_memory(&held);
        drop(held);
        drop(ended);
        Pin { views: Arc::clone(self), id, slot }
    }

    /// `batch` is in the tree now, `tree` says the same, and `of_tree` bytes were written to it so far.
    pub(crate) fn folded(&self, batch: &Arc<Batch>, tree: &Arc<View>, of_tree: u64) {
        let mut held = self.held();
        held.written += of_tree.saturating_sub(held.of_tree);
        held.of_tree = of_tree;
        held.folded = (Arc::downgrade(batch), Arc::downgrade(tree));
        let mut ended = Vec::new();
        for slot in held.slots.values() {
            let mut state = slot.state();
            let State::Held { base, since } = &mut *state else { continue };
            if matches!(&*base, Base::Frozen(frozen) if Arc::ptr_eq(frozen, batch)) {
                *base = Base::Tree(Arc::clone(tree));
                *since = held.written;
            }
            let kept_bytes = held.written - *since;
            drop(state);
            if self.bytes_max < kept_bytes {
                ended.extend(expire(slot, kept_bytes, self.bytes_max));
            }
        }
        drop(held);
        // Freeing it takes a while, and nobody should wait for that.
        drop(ended);
    }

    /// A new tree is in the place of the old one, and so many bytes were written to it so far: not on behalf of any view.
    pub(crate) fn replaced(&self, of_tree: u64) {
        self.held().of_tree = of_tree;
    }

    /// Ends all views: what they hold would keep the files open and locked.
    pub(crate) fn close(&self) {
        let mut held = self.held();
        held.closed = true;
        let ended: Vec<_> = held.slots.values().map(|slot| slot.end(|_| State::Closed)).collect();
        drop(held);
        drop(ended);
    }

    /// Ends the oldest of the views that keep memory while they keep too much of it.
    fn bound_memory(&self, held: &Held) -> Vec<State> {
        // Views of the same batch stand side by side: batches follow each other.
        let mut batches: Vec<(Arc<Batch>, Vec<&Arc<Slot>>)> = Vec::new();
        for slot in held.slots.values() {
            if let Some(Base::Frozen(batch)) = slot.base() {
                match batches.last_mut() {
                    Some((last, slots)) if Arc::ptr_eq(last, &batch) => slots.push(slot),
                    _ => batches.push((batch, vec![slot])),
                }
            }
        }
        let mut kept_bytes: u64 = batches.iter().map(|(batch, _)| batch.bytes()).sum();
        let mut ended = Vec::new();
        for (batch, slots) in batches {
            if kept_bytes <= self.memory_max {
                break;
            }
            ended.extend(slots.iter().filter_map(|slot| expire(slot, kept_bytes, self.memory_max)));
            kept_bytes -= batch.bytes();
        }
        ended
    }
}

fn expire(slot: &Slot, kept_bytes: u64, limit_bytes: u64) -> Option<State> {
    slot.end(|base| {
        let revision = base.progress().revision;
        tracing::warn!(%revision, kept_bytes, limit_bytes, "a view was ended: it was held for too long");
        State::Expired { revision, kept_bytes, limit_bytes }
    })
}
