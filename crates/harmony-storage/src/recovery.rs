//! Opening: which tree file counts, whether log and tree fit together, and the replay of the log's committed tail.
//!
//! | found after a crash | meaning | what is done |
//! | --- | --- | --- |
//! | `tree.redb.new` | a snapshot, a rebuild or a first file that never got its name | removed |
//! | no `tree.redb` | a new directory | an empty tree is made, under the other name first |
//! | a tree that came as a snapshot, a log that does not know | the crash hit between rename and the log's record | the record is written |
//! | a log that starts behind the applied index | files are missing or from elsewhere | refused |
//! | a log that ends before the applied index | the same | refused |
//! | committed entries behind the applied index | the usual case | applied again |

use std::io;
use std::num::NonZero;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use harmony_types::config::StorageConfig;
use harmony_types::{
    Applied, Entry, EntryType, FileSystem, LogIndex, Membership, NodeId, OpenMode, Storage, StorageError, Wal,
};

use crate::apply::{self, Asked};
use crate::prefetch::Prefetched;
use crate::tree::meta::{self, Progress};
use crate::tree::redb::RedbTree;
use crate::tree::{Durability, KvEngine};
use crate::unified::{TREE_FILE, TREE_FILE_NEW, UnifiedStorage, record_boundary};
use crate::view::View;

/// Entry data of one part of the replay, bytes.
const PART_BYTES: u64 = 4 << 20;

/// Parts that are read, or wait to be applied, at a time, besides one for each reader.
const PARTS_AHEAD: usize = 2;

/// Threads that read parts.
const READERS_MAX: usize = 4;

/// As many entries as are not worth another thread.
const ENTRIES_ALONE: u64 = 1_000;

/// Opens the directory's tree, or makes an empty one, and checks whose it is.
///
/// # Errors
/// [`StorageError::Foreign`], [`StorageError::UnsupportedVersion`], [`StorageError::Locked`] leave everything as it was.
pub(crate) fn open_tree(
    fs: &dyn FileSystem,
    dir: &Path,
    config: &StorageConfig,
) -> Result<RedbTree, StorageError> {
    if let Err(mistakes) = config.validate() {
        let source = io::Error::new(io::ErrorKind::InvalidInput, mistakes);
        return Err(StorageError::Io { action: "use the configuration of", path: dir.to_owned(), source });
    }
    create_dir(fs, dir)?;
    let path = dir.join(TREE_FILE);
    let exists = fs.exists(&path).map_err(StorageError::io("look for", &path))?;
    if exists {
        // A process that was killed between rename and sync left a name that a power loss takes back.
        fs.sync_dir(dir).map_err(StorageError::io("sync", dir))?;
    } else {
        make_first_tree(fs, dir, config)?;
    }
    let tree = RedbTree::open(fs, &path, OpenMode::ReadWrite, config.tree_cache_bytes)?;
    check_identity(&tree, &path, config)?;
    // Only now: before, the directory might have been another process's.
    remove_if_there(fs, &dir.join(TREE_FILE_NEW))?;
    Ok(tree)
}

/// Makes the directory and each parent that is missing, durably: each before anything is put into it, so that of those
/// that a killed process made only the innermost may have a name that is not durable.
fn create_dir(fs: &dyn FileSystem, dir: &Path) -> Result<(), StorageError> {
    let mut missing = Vec::new();
    for ancestor in dir.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()) {
        if fs.exists(ancestor).map_err(StorageError::io("look for", ancestor))? {
            sync_name(fs, ancestor)?;
            break;
        }
        missing.push(ancestor);
    }
    for made in missing.into_iter().rev() {
        fs.create_dir_all(made).map_err(StorageError::io("create", made))?;
        sync_name(fs, made)?;
    }
    Ok(())
}

/// Makes the name of a directory durable. A parent that this process may not open is somebody else's: its names are not
/// ours to sync.
fn sync_name(fs: &dyn FileSystem, dir: &Path) -> Result<(), StorageError> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    // The parent of a relative path's first part is the working directory.
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    match fs.sync_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced.map_err(StorageError::io("sync", parent)),
    }
}

/// Makes an empty tree under the other name and renames it: under its own name a tree is always whole.
fn make_first_tree(fs: &dyn FileSystem, dir: &Path, config: &StorageConfig) -> Result<(), StorageError> {
    let new = dir.join(TREE_FILE_NEW);
    remove_if_there(fs, &new)?;
    let tree = RedbTree::open(fs, &new, OpenMode::CreateNew, config.tree_cache_bytes)?;
    tree.commit(Durability::Durable, &mut |writer| {
        meta::write_head(writer, config.wal.identity)?;
        meta::write_membership(writer, &Membership::default())?;
        Progress::EMPTY.write(writer)
    })?;
    drop(tree);
    let path = dir.join(TREE_FILE);
    fs.rename(&new, &path).map_err(StorageError::io("rename to", &path))?;
    fs.sync_dir(dir).map_err(StorageError::io("sync", dir))
}

/// Removes a file unless there is none.
///
/// # Errors
/// [`StorageError::Io`].
pub(crate) fn remove_if_there(fs: &dyn FileSystem, path: &Path) -> Result<(), StorageError> {
    if fs.exists(path).map_err(StorageError::io("look for", path))? {
        fs.remove_file(path).map_err(StorageError::io("remove", path))?;
    }
    Ok(())
}

fn check_identity(tree: &RedbTree, path: &Path, config: &StorageConfig) -> Result<(), StorageError> {
    let (found_cluster, found_node) = meta::read_head(&*tree.view()?, &path.display().to_string())?;
    let identity = config.wal.identity;
    let (cluster, node) = (identity.cluster, NodeId::or_zero(identity.node));
    if (found_cluster, found_node) == (cluster, node) {
        return Ok(());
    }
    Err(StorageError::Foreign { path: path.to_owned(), found_cluster, found_node, cluster, node })
}

/// Checks that the log continues the tree, and finishes a snapshot install that a crash cut short.
///
/// # Errors
/// [`StorageError::InvalidIndex`] when there is a hole between them.
pub(crate) fn check_log(wal: &dyn Wal, progress: &Progress, path: &Path) -> Result<(), StorageError> {
    let applied = progress.applied;
    if progress.boundary_pending && !knows(wal, applied) {
        record_boundary(wal, applied)?;
    }
    let bounds = wal.bounds();
    let hole = |reason: String| StorageError::InvalidIndex { index: applied.index, reason };
    if applied.index < bounds.boundary {
        return Err(hole(format!(
            "{} has applied entries up to here, but the log begins at {}: entries between are missing",
            path.display(),
            bounds.first()
        )));
    }
    if bounds.last < applied.index {
        return Err(hole(format!(
            "{} has applied entries up to here, but the log ends at {}: it is incomplete or of another directory",
            path.display(),
            bounds.last
        )));
    }
    if !knows(wal, applied) {
        return Err(hole(format!(
            "{} has applied this entry in term {}, but the log holds one of term {}",
            path.display(),
            applied.term,
            wal.term(applied.index)?
        )));
    }
    Ok(())
}

fn knows(wal: &dyn Wal, applied: Applied) -> bool {
    wal.term(applied.index).is_ok_and(|term| term == applied.term)
}

/// Applies the entries behind the applied index that are known to be committed, up to but excluding the first change of
/// the membership, which only the node can compute. Most of the time goes into looking for what stood in the tree before, so
/// threads do that ahead of apply, each for a part of the tail.
///
/// # Errors
/// As [`Storage::apply`].
pub(crate) fn recover(storage: &UnifiedStorage) -> Result<(), StorageError> {
    let tail = Tail::of(storage);
    thread::scope(|scope| {
        // Parts in their order, each from the moment on when somebody reads it.
        let (order, parts) = mpsc::sync_channel(PARTS_AHEAD);
        for _ in 0..tail.readers {
            let (tail, order) = (&tail, order.clone());
            let reader = thread::Builder::new().name("harmony-replay".to_owned());
            if reader.spawn_scoped(scope, move || while tail.read_ahead(&order) {}).is_err() {
                // The system has no more threads: those that there are do it, or the loop below.
                break;
            }
        }
        drop(order);
        for part in parts {
            // A reader that panicked told nothing: its panic goes on when the scope ends.
            let Ok(part) = part.recv() else { return Ok(()) };
            part?.replay(storage)?;
            tail.follow();
        }
        while let Some(entries) = tail.take()? {
            Part::read(&tail.below(), entries)?.replay(storage)?;
            tail.follow();
        }
        Ok(())
    })
}

/// What nobody has begun to read of the log's committed tail.
struct Tail<'a> {
    storage: &'a UnifiedStorage,
    /// Where it begins; nothing when there is no more of it.
    next: Mutex<Option<LogIndex>>,
    committed: LogIndex,
    /// Threads that are worth it.
    readers: usize,
    below: Mutex<Below>,
}

/// What lies below all that is in memory.
#[derive(Clone)]
struct Below {
    tree: Arc<View>,
    /// The same, to be read from.
    twin: Arc<View>,
}

impl Below {
    fn of(tree: Arc<View>) -> Self {
        Self { twin: Arc::clone(&tree), tree }
    }

    /// To read a large part of it, around the tree's cache: filling that with pages that nobody asks for again takes fresh
    /// memory, which is dear (an eighth of the CPU of an opening).
    fn around_cache(storage: &UnifiedStorage, tree: Arc<View>) -> Self {
        // Behind a repair there is none; and damage that is in the way, apply meets, too.
        let twin = storage.tree.load().durable_view().and_then(View::open);
        match twin {
            Ok(twin) if twin.progress == tree.progress => Self { tree, twin: Arc::new(twin) },
            _ => Self::of(tree),
        }
    }
}

impl<'a> Tail<'a> {
    fn of(storage: &'a UnifiedStorage) -> Self {
        let committed = storage.wal().hard_state().commit.min(storage.wal().bounds().last);
        let next = Some(storage.applied().index.next()).filter(|next| *next <= committed);
        let is_long = next.is_some_and(|next| next.0 + ENTRIES_ALONE < committed.0);
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let readers = if is_long { cores.min(READERS_MAX) } else { 0 };
        let tree = tree_of(storage);
        let below = if is_long { Below::around_cache(storage, tree) } else { Below::of(tree) };
        Self { storage, next: Mutex::new(next), committed, readers, below: Mutex::new(below) }
    }

    fn below(&self) -> Below {
        self.below.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A part that was applied may have made a checkpoint: those that are read from here on are read from its tree.
    fn follow(&self) {
        let tree = tree_of(self.storage);
        let mut below = self.below.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&below.tree, &tree) {
            *below = Below::of(tree);
        }
    }

    /// Reads one part; false when there was none, or nobody waits for it.
    fn read_ahead(&self, order: &SyncSender<Receiver<Result<Part, StorageError>>>) -> bool {
        let mut next = self.next();
        let entries = self.take_from(&mut next).transpose();
        let Some(entries) = entries else { return false };
        let (done, part) = mpsc::sync_channel(1);
        // With the place in the log held, so that parts stand in its order.
        let wanted = order.send(part).is_ok();
        drop(next);
        wanted && done.send(entries.and_then(|entries| Part::read(&self.below(), entries))).is_ok()
    }

    /// The entries of the next part, not decoded yet.
    fn take(&self) -> Result<Option<Vec<Entry>>, StorageError> {
        self.take_from(&mut self.next())
    }

    fn take_from(&self, next: &mut Option<LogIndex>) -> Result<Option<Vec<Entry>>, StorageError> {
        let Some(first) = next.take() else { return Ok(None) };
        let mut entries = self.storage.wal().entries(first..self.committed.next(), PART_BYTES)?;
        let normal = entries.iter().take_while(|entry| entry.entry_type == EntryType::Normal).count();
        if normal == entries.len() {
            let last = entries.last().map(|entry| entry.index);
            *next = last.filter(|last| *last < self.committed).map(LogIndex::next);
        }
        entries.truncate(normal);
        Ok(Some(entries).filter(|entries| !entries.is_empty()))
    }

    fn next(&self) -> MutexGuard<'_, Option<LogIndex>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tree_of(storage: &UnifiedStorage) -> Arc<View> {
    storage.memory().with_top(|top| Arc::clone(top.tree()))
}

/// A part of the tail, to be applied at once.
struct Part {
    entries: Vec<Entry>,
    commands: Vec<Option<Asked>>,
    prefetched: Prefetched,
}

impl Part {
    /// Decodes the entries and reads what they look for in the tree. Memory is not asked what it holds of that: apply would
    /// wait.
    fn read(below: &Below, entries: Vec<Entry>) -> Result<Self, StorageError> {
        let commands = entries.iter().map(apply::decode).collect::<Result<Vec<_>, _>>()?;
        let kinds = commands.iter().flatten().map(|asked| &asked.kind);
        let prefetched = Prefetched::of_tree(&below.tree, &below.twin, kinds);
        Ok(Self { entries, commands, prefetched })
    }

    fn replay(self, storage: &UnifiedStorage) -> Result<(), StorageError> {
        storage.replay(&self.entries, self.commands, self.prefetched)
    }
}

#[cfg(test)]
mod tests {
    use harmony_types::fake::fs::MemoryFileSystem;

    use super::*;
    use crate::tree::pages::FORMAT_VERSION;
    use crate::tree::record::put_crc;
    use crate::tree::{KvWriter, Table};

    /// A new tree in which `change` was made to the state rows, opened again.
    fn reopened(
        change: impl Fn(&mut dyn KvWriter) -> Result<(), StorageError>,
    ) -> Result<RedbTree, StorageError> {
        let fs = MemoryFileSystem::new();
        let dir = Path::new("/tree");
        let config = StorageConfig { tree_cache_bytes: 1 << 20, ..StorageConfig::default() };
        let tree = open_tree(&fs, dir, &config)?;
        tree.commit(Durability::Durable, &mut |writer| change(writer))?;
        drop(tree);
        open_tree(&fs, dir, &config)
    }

    #[test]
    fn another_format_is_refused() {
        for version in [2u32, 4] {
            check_version(version);
        }
    }

    fn check_version(version: u32) {
        let error = reopened(|writer| {
            let mut row = version.to_be_bytes().to_vec();
            put_crc(b"format", &mut row);
            writer.put(Table::State, b"format", &row).map(|_| ())
        });
        let error = error.err().expect("the format is another");
        let StorageError::UnsupportedVersion { found, supported: FORMAT_VERSION, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(found, version);
    }

    #[test]
    fn a_tree_without_its_state_is_refused() {
        let error = reopened(|writer| writer.remove(Table::State, b"identity").map(|_| ()));
        let error = error.err().expect("the row is missing").to_string();
        assert!(error.contains("table state, row \"identity\""), "{error}");
    }

    #[test]
    fn a_failed_commit_leaves_the_tree_as_it_was() {
        let fs = MemoryFileSystem::new();
        let config = StorageConfig { tree_cache_bytes: 1 << 20, ..StorageConfig::default() };
        let tree = open_tree(&fs, Path::new("/tree"), &config).unwrap();
        let failed = tree.commit(Durability::Visible, &mut |writer| {
            writer.put(Table::Latest, b"k", b"half")?;
            Err(StorageError::Closed)
        });
        assert!(matches!(failed, Err(StorageError::Closed)));
        let found = tree.view().unwrap().get(Table::Latest, b"k", &mut |_| Ok(())).unwrap();
        assert!(!found);
    }
}
