//! What members are known to hold: whoever comes back with less has lost it, and must not vote.
//!
//! A member acknowledges an entry once it is on its disk; a leader counts that, and the entry is committed. A member that comes
//! back on an empty data directory, or on an older copy of it, has forgotten such entries, and maybe a vote: it could help to
//! elect a leader that lacks what was committed. It cannot know that by itself. So each leader tells all members from time to
//! time what each of them has acknowledged and is committed, which no later leader takes away from a log; all keep it, on disk
//! as well; and members that greet each other say where their logs end. One that ends before what the other knows of it is
//! refused and told so, before a single vote or acknowledgement of it counts.
//!
//! What a member acknowledged since it was last told of is not known, about a second of it. For an empty directory that does
//! not count: `incarnations` finds it at once. For an older copy of the right one it does.

pub(crate) mod incarnations;
mod rows;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use harmony_types::{FileSystem, LogIndex, NodeError, NodeId, Storage, StorageError};

use self::incarnations::Incarnations;
use self::rows::{Kind, RowsFile};
use crate::driver::Shared;
use crate::queue::Taken;

const KIND: Kind = Kind {
    name: "peers",
    magic: b"HMYPEERS",
    advice: "what it holds is learned anew: remove it and start again",
};

/// What members are known to have acknowledged, in memory and in a file.
#[derive(Default)]
pub struct Witness {
    state: Mutex<State>,
    file: Option<RowsFile>,
    /// Held while the file is written.
    saving: Mutex<()>,
    /// The last try to write it failed: said once in the log.
    failed: AtomicBool,
    incarnations: Incarnations,
}

#[derive(Default)]
struct State {
    held: BTreeMap<NodeId, u64>,
    changed: bool,
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.lock().held.iter()).finish()
    }
}

impl Witness {
    /// One that forgets when the process ends.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Reads the files `peers` and `incarnations` in `dir`, if they are there.
    ///
    /// # Errors
    /// A file cannot be read, or is damaged; what to do then is said.
    pub fn open(files: Arc<dyn FileSystem>, dir: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let dir = dir.into();
        let incarnations = Incarnations::open(Arc::clone(&files), dir.clone())?;
        let file = RowsFile::new(files, dir, KIND);
        let state = State { held: file.read()?, changed: false };
        Ok(Self { state: Mutex::new(state), file: Some(file), incarnations, ..Self::default() })
    }

    /// Which directories members run on.
    pub(crate) fn incarnations(&self) -> &Incarnations {
        &self.incarnations
    }

    /// Notes what members acknowledged; a lower index changes nothing. Whether there is something to save.
    pub(crate) fn note(&self, held: &[(NodeId, LogIndex)]) -> bool {
        let mut state = self.lock();
        for (id, index) in held {
            let known = state.held.entry(*id).or_default();
            if *known < index.0 {
                *known = index.0;
                state.changed = true;
            }
        }
        state.changed
    }

    /// Forgets members that are gone for good. Whether there is something to save.
    pub(crate) fn retain(&self, stays: impl Fn(NodeId) -> bool) -> bool {
        let mut state = self.lock();
        let before = state.held.len();
        state.held.retain(|id, _| stays(*id));
        state.changed |= before != state.held.len();
        state.changed
    }

    /// What a member is known to have acknowledged.
    pub(crate) fn held(&self, id: NodeId) -> LogIndex {
        LogIndex(self.lock().held.get(&id).copied().unwrap_or_default())
    }

    /// The highest committed index that any member is known to have acknowledged.
    #[must_use]
    pub fn highest(&self) -> LogIndex {
        LogIndex(self.lock().held.values().copied().max().unwrap_or_default())
    }

    /// Writes what changed since the last time to the file.
    pub(crate) fn save(&self) -> Result<(), StorageError> {
        let Some(file) = &self.file else { return Ok(()) };
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let held = {
            let mut state = self.lock();
            if !std::mem::take(&mut state.changed) {
                return Ok(());
            }
            state.held.clone()
        };
        file.write(&held).inspect_err(|_| self.lock().changed = true)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The witness thread: writes what there is to write, until the node stops.
pub(crate) fn run<S: Storage>(shared: &Shared<S>) -> Result<(), NodeError> {
    harmony_wal::work_in_background();
    loop {
        match shared.witnessed.take(None) {
            Taken::Closed => return Ok(()),
            Taken::Content(()) | Taken::TimedOut => save(shared),
        }
    }
}

/// Writes what there is to write. That it could not be written ends nobody: it is kept in memory, and written the next time.
pub(crate) fn save<S: Storage>(shared: &Shared<S>) {
    let Witness { failed, .. } = &shared.witness;
    match shared.witness.save() {
        Ok(()) => failed.store(false, Ordering::Relaxed),
        Err(error) if !failed.swap(true, Ordering::Relaxed) => {
            tracing::warn!(%error, "what members hold was not written: it is tried again each time there is news");
        }
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use harmony_types::fake::fs::{Crash, MemoryFileSystem};

    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    #[test]
    fn what_was_saved_survives_and_never_steps_back() {
        let files = Arc::new(MemoryFileSystem::with_dir("/m"));
        let witness = Witness::open(Arc::clone(&files) as _, "/m").unwrap();
        witness.note(&[(id(1), LogIndex(10)), (id(2), LogIndex(1 << 40))]);
        witness.note(&[(id(1), LogIndex(4)), (id(3), LogIndex(7))]);
        witness.save().unwrap();
        witness.retain(|member| member != id(3));
        witness.note(&[(id(1), LogIndex(11))]);

        let image = Arc::new(files.crash_image(Crash::LoseUnsynced));
        let after = Witness::open(image as _, "/m").unwrap();
        assert_eq!([1, 2, 3, 4].map(|number| after.held(id(number)).0), [10, 1 << 40, 7, 0]);
        witness.save().unwrap();
        let after = Witness::open(Arc::clone(&files) as _, "/m").unwrap();
        assert_eq!([1, 3].map(|number| after.held(id(number)).0), [11, 0]);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let files = Arc::new(MemoryFileSystem::with_dir("/m"));
        let witness = Witness::open(Arc::clone(&files) as _, "/m").unwrap();
        witness.note(&[(id(1), LogIndex(10))]);
        witness.save().unwrap();
        for offset in [0, 9, 14] {
            files.flip("/m/peers", offset, 1).unwrap();
            let error = Witness::open(Arc::clone(&files) as _, "/m").unwrap_err().to_string();
            assert!(error.contains("/m/peers") && error.contains("remove it"), "{error}");
            files.flip("/m/peers", offset, 1).unwrap();
        }
        assert!(Witness::open(files as _, "/m").is_ok());
    }
}
