//! [`UnifiedStorage`]: the log and the tree as one storage. Here it is opened and looked at; [`fold`] takes what was applied into
//! the tree, [`storage`] is what the node calls.

mod fold;
mod start_over;
mod storage;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use harmony_types::config::StorageConfig;
use harmony_types::planted::{self, Bug};
use harmony_types::{Applied, FileSystem, RecordType, StorageError, Wal, WalRecord};
use harmony_wal::FileWal;

use crate::batch::Base;
use crate::memory::{Memory, Published};
use crate::mvcc::compact;
use crate::new_tree::NewTree;
use crate::observers::Observers;
use crate::op_counts::OpCounters;
use crate::rebuild::Rebuilds;
use crate::recovery;
use crate::room::{Effort, Room};
use crate::tree::meta::Progress;
use crate::tree::redb::RedbTree;
use crate::tree::{Durability, KvEngine};
use crate::verification::{Verification, Verifier};
use crate::view::{Reads, View};
use crate::views::Views;

/// The tree's file in its directory.
pub(crate) const TREE_FILE: &str = "tree.redb";
/// A tree file that is not complete yet; worthless after a crash.
pub(crate) const TREE_FILE_NEW: &str = "tree.redb.new";

/// Raft's log and the key-value state machine of one member, or of an embedded database.
///
/// Apply changes memory alone, see `memory.rs`; a checkpoint folds that into the tree beside it.
///
/// Invariants, besides those of [`harmony_types::Storage`]:
/// - `rebuilds` is held by whoever makes a new tree file, `applying` by whoever moves the applied index, `writer` by whoever
///   commits to the tree, `memory` for moments; they are taken in this order;
/// - the tree, the frozen batch on it if any, and the batch on top are together what was applied.
pub struct UnifiedStorage {
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) tree_dir: PathBuf,
    pub(crate) config: StorageConfig,
    wal: Arc<dyn Wal>,
    pub(crate) tree: ArcSwap<RedbTree>,
    pub(crate) memory: Memory,
    views: Arc<Views>,
    room: Room,
    pub(crate) rebuilds: Rebuilds,
    pub(crate) observers: Observers,
    pub(crate) ops: OpCounters,
    applying: Mutex<()>,
    /// Held during I/O on purpose: the tree has a single writer.
    writer: Mutex<()>,
    /// Held by who waits for `writer` next, so that nobody who comes later gets it before.
    next_writer: Mutex<()>,
    durable_applied: AtomicU64,
    verifier: Verifier,
    /// The last apply was, as the disk was full.
    apply_refused: AtomicBool,
    closed: AtomicBool,
    /// Closed with everything on disk.
    saved: AtomicBool,
}

/// Holding it is the right to commit to the tree.
pub(crate) type Writing<'a> = MutexGuard<'a, ()>;

impl UnifiedStorage {
    /// Opens the storage with its log in `wal_dir` and its tree in `tree_dir`, both made when missing: recovers the tree,
    /// then applies the log's committed tail again.
    ///
    /// # Errors
    /// Nothing on disk was changed by [`StorageError::Foreign`] (another cluster or member),
    /// [`StorageError::UnsupportedVersion`], [`StorageError::Locked`] and [`StorageError::InvalidIndex`] (a hole between
    /// tree and log). [`StorageError::Wal`] is the log's own refusal, [`StorageError::Tree`] the tree's. A mistake in
    /// `config` is an [`StorageError::Io`] of the kind `InvalidInput`.
    pub fn open(
        fs: Arc<dyn FileSystem>,
        wal_dir: &Path,
        tree_dir: &Path,
        config: StorageConfig,
    ) -> Result<Self, StorageError> {
        let tree = recovery::open_tree(&*fs, tree_dir, &config)?;
        let wal = FileWal::open(Arc::clone(&fs), wal_dir, config.wal.clone())?;
        Self::join(fs, Arc::new(wal), tree, tree_dir, config)
    }

    /// As [`UnifiedStorage::open`], over a log that is open already: a [`harmony_wal`] log with a wrapper around it, or one
    /// of another kind.
    ///
    /// # Errors
    /// As [`UnifiedStorage::open`].
    pub fn with_wal(
        fs: Arc<dyn FileSystem>,
        wal: Arc<dyn Wal>,
        tree_dir: &Path,
        config: StorageConfig,
    ) -> Result<Self, StorageError> {
        let tree = recovery::open_tree(&*fs, tree_dir, &config)?;
        Self::join(fs, wal, tree, tree_dir, config)
    }

    fn join(
        fs: Arc<dyn FileSystem>,
        wal: Arc<dyn Wal>,
        tree: RedbTree,
        tree_dir: &Path,
        config: StorageConfig,
    ) -> Result<Self, StorageError> {
        let mut view = View::open(tree.view()?)?;
        if planted::is(Bug::RevisionBack) && view.progress.compact.next() < view.progress.revision {
            view.progress.revision.0 -= 1;
        }
        recovery::check_log(&*wal, &view.progress, &tree_dir.join(TREE_FILE))?;
        let storage = Self {
            room: Room::open(
                Arc::clone(&fs),
                Arc::clone(&wal),
                tree_dir.to_owned(),
                config.checkpoint_bytes,
            )?,
            fs,
            tree_dir: tree_dir.to_owned(),
            wal,
            durable_applied: AtomicU64::new(view.progress.applied.index.0),
            memory: Memory::new(view),
            views: Views::new(config.view_bytes_max, config.checkpoint_bytes),
            config,
            tree: ArcSwap::from_pointee(tree),
            rebuilds: Rebuilds::default(),
            observers: Observers::default(),
            ops: OpCounters::default(),
            applying: Mutex::new(()),
            writer: Mutex::new(()),
            next_writer: Mutex::new(()),
            verifier: Verifier::default(),
            apply_refused: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            saved: AtomicBool::new(false),
        };
        if !storage.is_lost() {
            recovery::recover(&storage)?;
        }
        Ok(storage)
    }

    /// Whether there is no state, until a snapshot is installed: see [`UnifiedStorage::open_member`].
    pub fn is_lost(&self) -> bool {
        self.progress().lost
    }

    /// Refuses what needs a state when there is none.
    ///
    /// # Errors
    /// [`StorageError::CorruptRecord`]; [`StorageError::Closed`].
    pub(crate) fn check_state(&self) -> Result<(), StorageError> {
        self.check_open()?;
        if !self.is_lost() {
            return Ok(());
        }
        Err(StorageError::CorruptRecord {
            place: self.tree_dir.join(TREE_FILE).display().to_string(),
            reason: start_over::NO_STATE.to_owned(),
        })
    }

    /// Reads at what was applied last.
    ///
    /// # Errors
    /// [`StorageError::Closed`], and those of `read`.
    pub(crate) fn read<T>(
        &self,
        read: impl Fn(&dyn Reads) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.check_open()?;
        match self.memory.read(&read) {
            Some(result) => result,
            // Too long to keep apply waiting.
            None => self.view()?.read(read),
        }
    }

    /// What was applied last, standing still for as long as it is held.
    ///
    /// # Errors
    /// [`StorageError::Closed`]; the tree's.
    pub(crate) fn fixed_view(&self) -> Result<Base, StorageError> {
        self.check_open()?;
        loop {
            if let Some(base) = self.memory.fix() {
                return Ok(base);
            }
            let writing = match self.writer.try_lock() {
                Ok(writing) => writing,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                // A reader must not wait for a checkpoint, or for a disk that hangs.
                Err(TryLockError::WouldBlock) => return Ok(self.memory.copy()),
            };
            match self.fold_frozen(&writing, Durability::Visible, 0, Effort::Reader) {
                Err(StorageError::DiskFull { .. }) => return Ok(self.memory.copy()),
                folded => drop(folded?),
            }
        }
    }

    /// As [`UnifiedStorage::fixed_view`], all of it in the tree.
    ///
    /// # Errors
    /// As [`UnifiedStorage::fixed_view`].
    pub(crate) fn tree_view(&self) -> Result<Arc<View>, StorageError> {
        self.check_open()?;
        match self.memory.tree() {
            Some(view) => Ok(view),
            None => self.fold_somehow(Durability::Visible, 0),
        }
    }

    /// Length of the tree's file, bytes: etcd's database size.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn disk_bytes(&self) -> Result<u64, StorageError> {
        self.check_open()?;
        // Who asks for it must not wait for a checkpoint, or for a disk that hangs.
        self.tree.load().file_bytes()
    }

    /// Drops a bounded part of what compaction gave up; false when nothing is left, or nothing that a rebuild does not still
    /// need. Every checkpoint drops a part, too: this is for those who want to wait until all of it is gone.
    ///
    /// # Errors
    /// This machine failed.
    pub fn drop_compacted(&self) -> Result<bool, StorageError> {
        self.check_open()?;
        if !compact::is_due(&self.progress(), self.rebuilds.kept()) {
            return Ok(false);
        }
        let durability = if self.room.owes_much() { Durability::Durable } else { Durability::Visible };
        let progress = self.fold_somehow(durability, compact::CHECKPOINT_ROWS)?.progress;
        Ok(compact::is_due(&progress, self.rebuilds.kept()))
    }

    /// Reads about `pages_max` pages (of 4 KiB) of the tree's last checkpoint from the disk, around all caches, and checks
    /// them and the records in them; goes on where the last step ended, and begins again at the end. Call it at the pace at
    /// which the disk may be read: a checkpoint waits for one step, apply and reads do not. While a checkpoint runs, it does
    /// nothing.
    ///
    /// Damage is no error here, nor is a read that the disk refuses: it stands in the answer, and is logged when it is found. The storage goes on: it refuses what needs
    /// the damaged page when somebody asks for it.
    ///
    /// # Errors
    /// [`StorageError::Closed`].
    pub fn verify_step(&self, pages_max: u64) -> Result<Verification, StorageError> {
        self.check_open()?;
        let _writing = match self.writer.try_lock() {
            Ok(writing) => writing,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(self.verification()),
        };
        self.verifier.step(&self.tree.load_full(), pages_max)
    }

    /// What [`UnifiedStorage::verify_step`] said last.
    pub fn verification(&self) -> Verification {
        self.verifier.seen()
    }

    /// How far the state machine is.
    pub(crate) fn progress(&self) -> Progress {
        self.published().progress
    }

    /// What the last apply left.
    pub(crate) fn published(&self) -> Arc<Published> {
        self.memory.published()
    }

    /// The views that are held.
    pub(crate) fn views(&self) -> &Arc<Views> {
        &self.views
    }

    /// What is applied and not yet in the tree.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The log.
    pub(crate) fn wal(&self) -> &dyn Wal {
        &*self.wal
    }

    /// # Errors
    /// [`StorageError::Closed`].
    pub(crate) fn check_open(&self) -> Result<(), StorageError> {
        if self.closed.load(Ordering::Acquire) { Err(StorageError::Closed) } else { Ok(()) }
    }

    /// Waits while another thread folds, and in the order in which threads came.
    pub(crate) fn writer(&self) -> Writing<'_> {
        let _next = self.next_writer.lock().unwrap_or_else(PoisonError::into_inner);
        // A panic while writing leaves the tree as the last commit left it, and the memory on top of it.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while another thread applies.
    pub(crate) fn applying(&self) -> MutexGuard<'_, ()> {
        self.applying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a finished tree file in the old one's place. What is in memory is the caller's: it lies on the old tree's view, and
    /// belongs on the one that is returned.
    ///
    /// # Errors
    /// The system's; the old tree stays, and takes no more writes when nobody knows which of the two files has the name.
    pub(crate) fn swap_in(&self, _writing: &Writing<'_>, new: &mut NewTree) -> Result<View, StorageError> {
        let view = View::open(new.view()?)?;
        match new.take_place() {
            Ok(tree) => {
                self.views.replaced(tree.written_bytes());
                // Views of the old file go on reading it; what it holds in memory is not worth writing any more.
                self.tree.swap(Arc::new(tree)).abandon();
                Ok(view)
            }
            Err(error) => {
                if new.may_be_in_place() {
                    // A checkpoint into a file without a name would be lost, and the log that it covers released.
                    self.tree.load().abandon();
                }
                Err(error)
            }
        }
    }
}

/// Tells the log that it starts behind `applied`.
pub(crate) fn record_boundary(wal: &dyn Wal, applied: Applied) -> Result<(), StorageError> {
    wal.append(WalRecord {
        record_type: RecordType::Snapshot,
        index: applied.index,
        term: applied.term,
        data: Bytes::new(),
        crc: 0,
    })?;
    Ok(wal.sync()?)
}

/// Without a good end before, dropping it is a crash: the tree on disk stays at the last checkpoint, which the log is never
/// behind.
impl Drop for UnifiedStorage {
    fn drop(&mut self) {
        if !*self.saved.get_mut() {
            self.tree.load().abandon();
        }
        self.views.close();
    }
}

impl std::fmt::Debug for UnifiedStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnifiedStorage")
            .field("tree_dir", &self.tree_dir)
            .field("progress", &self.progress())
            .field("log", &self.wal.bounds())
            .finish_non_exhaustive()
    }
}
