//! [`UnifiedStorage`]: the log and the tree as one storage.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use harmony_types::config::StorageConfig;
use harmony_types::wal::LogBounds;
use harmony_types::{
    Applied, DiskSpace, Entry, EntryType, FileSystem, HardState, LogIndex, Membership, Outcome, RecordType,
    Recovered, Snapshot, SnapshotData, SnapshotMeta, Storage, StorageError, Term, Wal, WalRecord,
};
use harmony_wal::FileWal;

use crate::apply::{self, Decoded};
use crate::batch::Base;
use crate::memory::{Memory, Published};
use crate::mvcc::compact;
use crate::new_tree::NewTree;
use crate::observers::Observers;
use crate::prefetch::Prefetched;
use crate::rebuild::Rebuilds;
use crate::recovery;
use crate::room::{self, Effort, Need, Room};
use crate::snapshot::{read, write::SnapshotStream};
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
/// Invariants, besides those of [`Storage`]:
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
    applying: Mutex<()>,
    /// Held during I/O on purpose: the tree has a single writer.
    writer: Mutex<()>,
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
        let view = View::open(tree.view()?)?;
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
            applying: Mutex::new(()),
            writer: Mutex::new(()),
            verifier: Verifier::default(),
            apply_refused: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            saved: AtomicBool::new(false),
        };
        recovery::recover(&storage)?;
        Ok(storage)
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

    /// Takes all that was applied into the tree, for somebody who can wait for the disk: where it has too little room for a commit
    /// beside the next checkpoint, by a checkpoint.
    fn fold_somehow(&self, durability: Durability, compact_rows: usize) -> Result<Arc<View>, StorageError> {
        let writing = self.writer();
        match self.fold(&writing, durability, compact_rows) {
            Err(StorageError::DiskFull { .. }) if durability == Durability::Visible => {
                self.fold(&writing, Durability::Durable, compact_rows)
            }
            folded => folded,
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
    /// Damage is no error here, but stands in the answer; it is logged when it is found. The storage goes on: it refuses what needs
    /// the damaged page when somebody asks for it.
    ///
    /// # Errors
    /// [`StorageError::Closed`]; [`StorageError::Io`].
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

    /// Waits while another thread folds.
    pub(crate) fn writer(&self) -> Writing<'_> {
        // A panic while writing leaves the tree as the last commit left it, and the memory on top of it.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while another thread applies.
    pub(crate) fn applying(&self) -> MutexGuard<'_, ()> {
        self.applying.lock().unwrap_or_else(PoisonError::into_inner)
    }

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
        // What a view froze, at any moment, or a fold that failed left.
        while !self.memory.freeze() {
            let pages = self.tree.load().file_pages();
            let behind = self.memory.with_top(|top| Need::of(top, pages));
            self.fold_frozen(writing, Durability::Visible, 0, effort(behind))?;
        }
        if durability == Durability::Durable {
            // The tree must never be ahead of the log on disk: a restart would find a hole.
            self.wal.sync()?;
        }
        let last = effort(Need::default());
        let view = self.fold_frozen(writing, durability, compact_rows, last)?.expect("frozen above");
        if durability == Durability::Durable {
            self.durable_applied.store(view.progress.applied.index.0, Ordering::Release);
        }
        Ok(view)
    }

    /// Takes the frozen batch into the tree, if there is one, and puts the tree in its place.
    fn fold_frozen(
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
            progress.write(writer)
        })?;
        let view = Arc::new(View { tree: tree.view()?, progress, settings: batch.settings().clone() });
        self.room.committed(&admitted);
        self.memory.rebase(&view);
        self.views.folded(&batch, &view, tree.written_bytes());
        Ok(Some(view))
    }

    /// Folds when memory is full, or when it soon holds more than the disk has room for: whoever applies waits for the disk
    /// then. `may_exceed`: whether apply goes on when there is no room at all.
    fn bound_memory(&self, entries: &[Entry], may_exceed: impl FnOnce() -> bool) -> Result<(), StorageError> {
        let is_full = self.config.checkpoint_bytes <= self.memory.bytes();
        let need = self.need().and(Need::of_entries(entries));
        if !is_full && self.room.has(need) {
            return Ok(());
        }
        let writing = self.writer();
        match self.fold(&writing, Durability::Durable, compact::STEP_ROWS) {
            Err(StorageError::DiskFull { .. })
                if (!is_full && self.room.reserve_has(&self.tree.load(), need)?) || may_exceed() =>
            {
                Ok(())
            }
            folded => folded.map(drop),
        }
    }

    /// What taking all that is in memory into the tree may need.
    fn need(&self) -> Need {
        let pages = self.tree.load().file_pages();
        self.memory.with_top(|top| match top.base() {
            Base::Frozen(frozen) => Need::of(frozen, pages).and(Need::of(top, pages)),
            Base::Tree(_) => Need::of(top, pages),
        })
    }

    /// As [`Storage::apply`], while nobody else has the storage yet: all of it, whatever memory it takes, so that a full disk
    /// does not keep a member from starting. A first memory that is full is left for the next checkpoint, as it was when the
    /// process ended.
    pub(crate) fn replay(&self, entries: &[Entry], prefetched: Prefetched) -> Result<(), StorageError> {
        let decoded = decode(entries)?;
        let is_full = self.config.checkpoint_bytes <= self.memory.bytes();
        if is_full && !self.memory.freeze() {
            self.bound_memory(entries, || true)?;
        }
        self.apply_decoded(&decoded, prefetched).map(drop)
    }

    fn apply_decoded(
        &self,
        entries: &[Decoded<'_>],
        prefetched: Prefetched,
    ) -> Result<Vec<Outcome>, StorageError> {
        let (outcomes, told) = self.memory.change(|batch| {
            batch.take_prefetched(prefetched);
            let before = batch.progress.revision;
            // Collecting results would not know how many there will be.
            let mut outcomes = Vec::with_capacity(entries.len());
            for entry in entries {
                outcomes.push(apply::entry(batch, entry)?);
            }
            let told = self.observers.collect(batch, before, entries, &outcomes)?;
            Ok((outcomes, told))
        })?;
        self.observers.tell(told);
        Ok(outcomes)
    }

    fn record_boundary(&self, applied: Applied) -> Result<(), StorageError> {
        record_boundary(&*self.wal, applied)
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

fn decode(entries: &[Entry]) -> Result<Vec<Decoded<'_>>, StorageError> {
    // Collecting results would not know how many there will be.
    let mut decoded = Vec::with_capacity(entries.len());
    for entry in entries {
        decoded.push(Decoded::new(entry)?);
    }
    Ok(decoded)
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

impl Storage for UnifiedStorage {
    type Outcome = Outcome;

    fn bootstrap(&self, membership: &Membership) -> Result<(), StorageError> {
        self.check_open()?;
        membership.check().map_err(|reason| StorageError::CorruptRecord {
            place: "the first members".to_owned(),
            reason,
        })?;
        let _applying = self.applying();
        if *self.published().settings.membership != Membership::default() {
            return Ok(());
        }
        self.memory.change(|batch| {
            batch.set_membership(membership.clone());
            Ok(())
        })?;
        self.fold(&self.writer(), Durability::Durable, 0).map(drop)
    }

    fn save(&self, hard_state: Option<&HardState>, entries: &[Entry]) -> Result<(), StorageError> {
        self.check_open()?;
        self.wal.append_many(hard_state, entries)?;
        Ok(())
    }

    /// The order that makes a crash leave the old state or the new one: the new tree is complete on disk; its name
    /// replaces the old one's; the log learns where it starts. Between the last two, opening finishes the work.
    fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), StorageError> {
        self.check_open()?;
        let mut rebuilds = self.rebuilds.lock();
        let _applying = self.applying();
        let applied = self.applied();
        if snapshot.meta.index <= applied.index {
            return Err(StorageError::InvalidIndex {
                index: snapshot.meta.index,
                reason: format!("the snapshot is older than what is applied, {}", applied.index),
            });
        }
        // It would be one of the state that is given up here.
        self.rebuilds.give_up(&mut rebuilds);
        let mut new = NewTree::create(&self.fs, &self.tree_dir, &self.config)?;
        let mut stream = snapshot.data.into_reader();
        read::install(&mut new, self.config.wal.identity, &snapshot.meta, &mut *stream)?;
        let writing = self.writer();
        let view = self.swap_in(&writing, &mut new)?;
        self.memory.reset(view);
        // Readers see it from here on, whatever becomes of the log.
        self.observers.replaced(self.progress().revision);
        self.record_boundary(Applied { index: snapshot.meta.index, term: snapshot.meta.term })?;
        // Not before: until the log begins behind the snapshot, it cannot be released up to there.
        self.durable_applied.store(snapshot.meta.index.0, Ordering::Release);
        Ok(())
    }

    fn read_all(&self) -> Result<Recovered, StorageError> {
        self.check_open()?;
        let view = self.published();
        let bounds = self.wal.bounds();
        let first = view.progress.applied.index.next().max(bounds.first());
        let end = bounds.last.next();
        let entries = if first < end { self.wal.entries(first..end, u64::MAX)? } else { Vec::new() };
        Ok(Recovered {
            membership: Membership::clone(&view.settings.membership),
            hard_state: self.wal.hard_state(),
            entries,
        })
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.check_open()?;
        Ok(self.wal.sync()?)
    }

    fn disk_space(&self, upcoming_bytes: u64) -> DiskSpace {
        // Until a checkpoint was refused nobody knows how little it does with.
        let is_short = self.apply_refused.load(Ordering::Acquire)
            || (self.room.is_short() && !self.room.has(self.need()));
        let tree = if is_short { DiskSpace::Low } else { DiskSpace::Enough };
        tree.max(self.wal.disk_space(upcoming_bytes))
    }

    fn needs_space(&self, command: &Bytes) -> bool {
        !room::frees_space(command)
    }

    fn bounds(&self) -> LogBounds {
        self.wal.bounds()
    }

    fn term(&self, index: LogIndex) -> Result<Term, StorageError> {
        Ok(self.wal.term(index)?)
    }

    fn entries(&self, range: Range<LogIndex>, bytes_max: u64) -> Result<Vec<Entry>, StorageError> {
        Ok(self.wal.entries(range, bytes_max)?)
    }

    fn hard_state(&self) -> HardState {
        self.wal.hard_state()
    }

    fn release(&self, upto: LogIndex) -> Result<(), StorageError> {
        self.check_open()?;
        let upto = upto.min(self.durable_applied());
        if upto <= self.wal.bounds().boundary {
            return Ok(());
        }
        Ok(self.wal.release(upto)?)
    }

    fn apply(&self, entries: &[Entry]) -> Result<Vec<Outcome>, StorageError> {
        self.check_open()?;
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let decoded = decode(entries)?;
        let _applying = self.applying();
        let bounded = self.bound_memory(entries, || {
            let bytes_max = self.config.checkpoint_bytes.saturating_mul(room::FREEING_FACTOR);
            self.memory.bytes() < bytes_max && room::free_space(entries)
        });
        self.apply_refused.store(matches!(bounded, Err(StorageError::DiskFull { .. })), Ordering::Release);
        bounded?;
        let prefetched = Prefetched::read(&self.memory, decoded.iter().filter_map(Decoded::kind));
        self.apply_decoded(&decoded, prefetched)
    }

    fn apply_membership(&self, entry: &Entry, membership: &Membership) -> Result<(), StorageError> {
        self.check_open()?;
        if entry.entry_type == EntryType::Normal {
            return Err(StorageError::InvalidIndex {
                index: entry.index,
                reason: "the entry is no membership change".to_owned(),
            });
        }
        let _applying = self.applying();
        self.memory.change(|batch| apply::membership_change(batch, entry, membership))
    }

    fn applied(&self) -> Applied {
        self.published().progress.applied
    }

    fn durable_applied(&self) -> LogIndex {
        LogIndex(self.durable_applied.load(Ordering::Acquire))
    }

    fn membership(&self) -> Membership {
        Membership::clone(&self.published().settings.membership)
    }

    fn query(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.get(key)?.map(|kv| kv.value))
    }

    fn create_snapshot(&self) -> Result<Snapshot, StorageError> {
        let since = self.views.written();
        let view = self.tree_view()?;
        let meta = SnapshotMeta {
            index: view.progress.applied.index,
            term: view.progress.applied.term,
            membership: Membership::clone(&view.settings.membership),
        };
        let pin = self.views.pin(since, Base::Tree(view));
        let stream = SnapshotStream::new(pin, self.config.wal.identity.cluster);
        Ok(Snapshot { meta, data: SnapshotData::Stream(Box::new(stream)) })
    }

    fn checkpoint(&self) -> Result<LogIndex, StorageError> {
        self.check_open()?;
        let writing = self.writer();
        let progress = self.progress();
        let is_due = compact::is_due(&progress, self.rebuilds.kept());
        if progress.applied.index == self.durable_applied() && !is_due {
            self.room.hold_reserve();
            return Ok(progress.applied.index);
        }
        let view = self.fold(&writing, Durability::Durable, compact::CHECKPOINT_ROWS)?;
        Ok(view.progress.applied.index)
    }

    fn close(&self) -> Result<(), StorageError> {
        let mut rebuilds = self.rebuilds.lock();
        self.rebuilds.give_up(&mut rebuilds);
        let saved = match self.checkpoint() {
            Err(StorageError::Closed) => return Ok(()),
            saved => saved,
        };
        self.closed.store(true, Ordering::Release);
        self.views.close();
        let closed = self.wal.close();
        saved?;
        closed?;
        self.saved.store(true, Ordering::Release);
        Ok(())
    }
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
