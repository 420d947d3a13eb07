//! Reading the whole tree from the disk in the background, in steps, to find damage before somebody needs the bytes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use harmony_types::StorageError;

use crate::tree::redb::{Cursor, RedbTree};

/// How far the verification of the tree's file is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// How often all of it was read since it was opened, to its end or to damage.
    pub passes: u64,
    /// Pages read in the pass that is under way.
    pub pages: u64,
    /// The damage found last; `None` again after a pass without.
    pub damage: Option<String>,
}

/// Goes through a tree again and again.
#[derive(Default)]
pub(crate) struct Verifier {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cursor: Cursor,
    /// The tree that the cursor is in.
    tree: Option<std::sync::Weak<RedbTree>>,
    seen: Verification,
}

impl Verifier {
    /// Reads about `pages_max` pages of what the last durable commit holds. Nobody may commit to `tree` meanwhile.
    ///
    /// # Errors
    /// [`StorageError::Closed`]. Damage is none, nor is a read that the disk refuses: it is in the answer, and logged once.
    pub(crate) fn step(&self, tree: &Arc<RedbTree>, pages_max: u64) -> Result<Verification, StorageError> {
        let mut state = self.state();
        let is_same = state.tree.as_ref().is_some_and(|known| known.as_ptr() == Arc::as_ptr(tree));
        if !is_same {
            // A snapshot came in: what was found in the old file is gone with it.
            *state = State { tree: Some(Arc::downgrade(tree)), ..State::default() };
        }
        let found = tree.verify(state.cursor.clone(), pages_max);
        match found {
            Ok(step) => {
                state.seen.pages += step.pages;
                match step.next {
                    Some(next) => state.cursor = next,
                    None => state.end_pass(None),
                }
            }
            Err(StorageError::Closed) => return Err(StorageError::Closed),
            // It only reads: what the disk refuses is as good as damaged.
            Err(error) => {
                let damage = error.to_string();
                if state.seen.damage.as_ref() != Some(&damage) {
                    tracing::error!(%damage, "the tree's file is damaged");
                }
                state.end_pass(Some(damage));
            }
        }
        Ok(state.seen.clone())
    }

    /// The damage that was found in `tree`.
    pub(crate) fn damage_of(&self, tree: &Arc<RedbTree>) -> Option<String> {
        let state = self.state();
        let is_same = state.tree.as_ref().is_some_and(|known| known.as_ptr() == Arc::as_ptr(tree));
        state.seen.damage.clone().filter(|_| is_same)
    }

    /// How far it is.
    pub(crate) fn seen(&self) -> Verification {
        self.state().seen.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each step leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end_pass(&mut self, damage: Option<String>) {
        self.cursor = Cursor::default();
        self.seen = Verification { passes: self.seen.passes + 1, pages: 0, damage };
    }
}
