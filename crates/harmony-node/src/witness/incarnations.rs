//! Which data directory each member runs on.
//!
//! A directory gets a number of its own, its incarnation, when a member first starts on it. Members that greet each other
//! say theirs, and each notes durably whom it met with which, before a message of the other reaches it. Whoever comes back with
//! another number has lost its directory, and with it votes and entries that it had acknowledged. However little time there
//! was, every member that an entry or a vote of the old directory went to has met it; so there is no quorum of the old days
//! from which a vote of the new directory would be heard. That holds for members of the present release: one that says no number
//! is let in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use harmony_types::{FileSystem, NodeId, StorageError};

use super::rows::{Kind, RowsFile};

const KIND: Kind = Kind {
    name: "incarnations",
    magic: b"HMYINCAR",
    advice: "by it this member's peers know it: remove this member from the cluster, add it anew, and start it with an \
             empty data directory",
};

/// See the module.
#[derive(Default)]
pub(crate) struct Incarnations {
    /// By member, this one included. Held during I/O on purpose: nobody is let in meanwhile.
    known: Mutex<BTreeMap<NodeId, u64>>,
    file: Option<RowsFile>,
}

impl Incarnations {
    /// Reads the file `incarnations` in `dir`, if there is one.
    pub(super) fn open(files: Arc<dyn FileSystem>, dir: PathBuf) -> Result<Self, StorageError> {
        let file = RowsFile::new(files, dir, KIND);
        Ok(Self { known: Mutex::new(file.read()?), file: Some(file) })
    }

    /// Makes sure that this member's directory has a number, `fresh` if it has none yet. Without a file there is none to tell.
    pub(crate) fn begin(&self, me: NodeId, fresh: u64) -> Result<(), StorageError> {
        if self.file.is_none() || self.of(me) != 0 {
            return Ok(());
        }
        self.meet(me, fresh.max(1)).map(drop)
    }

    /// The number of a member's directory; 0 when it is not known.
    pub(crate) fn of(&self, member: NodeId) -> u64 {
        self.lock().get(&member).copied().unwrap_or_default()
    }

    /// A member says that its directory has this number, or 0 when it does not know: whether it is the one that it was met with.
    ///
    /// # Errors
    /// It was never met, and that cannot be noted: it must not be spoken with.
    pub(crate) fn meet(&self, member: NodeId, incarnation: u64) -> Result<bool, StorageError> {
        if incarnation == 0 {
            return Ok(true);
        }
        let mut known = self.lock();
        if let Some(met) = known.get(&member) {
            return Ok(*met == incarnation);
        }
        let mut after = known.clone();
        after.insert(member, incarnation);
        if let Some(file) = &self.file {
            file.write(&after)?;
        }
        *known = after;
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, u64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use harmony_types::fake::fs::{CallKind, Crash, Fault, MemoryFileSystem};

    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn open(files: &Arc<MemoryFileSystem>) -> Incarnations {
        Incarnations::open(Arc::clone(files) as _, "/m".into()).unwrap()
    }

    #[test]
    fn a_directory_keeps_its_number_and_what_it_met_over_a_crash() {
        let files = Arc::new(MemoryFileSystem::with_dir("/m"));
        let one = open(&files);
        one.begin(id(1), 7).unwrap();
        assert!(one.meet(id(2), 8).unwrap());
        let after = open(&Arc::new(files.crash_image(Crash::LoseUnsynced)));
        after.begin(id(1), 9).unwrap();
        assert_eq!([1, 2, 3].map(|number| after.of(id(number))), [7, 8, 0]);
        assert!(after.meet(id(2), 8).unwrap());
        assert!(!after.meet(id(2), 9).unwrap(), "another directory");
        assert!(after.meet(id(2), 0).unwrap(), "an earlier release says nothing");
    }

    #[test]
    fn whoever_cannot_be_noted_was_not_met() {
        let files = Arc::new(MemoryFileSystem::with_dir("/m"));
        let one = open(&files);
        files.inject(Fault::on(CallKind::CHANGING).lasting());
        one.meet(id(2), 8).unwrap_err();
        one.begin(id(1), 7).unwrap_err();
        files.clear_faults();
        assert_eq!([one.of(id(1)), one.of(id(2))], [0, 0]);
        assert!(one.meet(id(2), 9).unwrap());
    }

    #[test]
    fn a_damaged_file_is_named() {
        let files = Arc::new(MemoryFileSystem::with_dir("/m"));
        open(&files).begin(id(1), 7).unwrap();
        files.flip("/m/incarnations", 14, 1).unwrap();
        let error = Incarnations::open(Arc::clone(&files) as _, "/m".into()).err().unwrap().to_string();
        assert!(error.contains("/m/incarnations") && error.contains("add it anew"), "{error}");
    }

    #[test]
    fn without_a_file_there_is_no_number_to_tell() {
        let one = Incarnations::default();
        one.begin(id(1), 7).unwrap();
        assert_eq!(one.of(id(1)), 0);
    }
}
