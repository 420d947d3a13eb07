//! The disk behind the handles: what the running system sees, what would survive, and what lies between.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::content::Content;
use super::crash::{Change, Fate};
use super::fault::{CallKind, ENOSPC, Fault, Faults};
use crate::fs::OpenMode;

// Linux's numbers for what a system refuses by itself.
const ENOENT: i32 = 2;
const EBADF: i32 = 9;
const EEXIST: i32 = 17;
const ENOTDIR: i32 = 20;
const EISDIR: i32 = 21;
const EFBIG: i32 = 27;

/// Largest file, bytes: as an `off_t` has it.
const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// Free space of a disk without a limit, bytes.
const FREE_WITHOUT_LIMIT: u64 = 1 << 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HandleId(u64);

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    File(FileId),
}

/// A file's content: `current` is `synced` with all `pending` changes and those that a failed sync gave up.
#[derive(Debug, Default)]
struct FileState {
    current: Content,
    synced: Content,
    pending: Vec<Pending>,
    path: PathBuf,
    handles: u64,
    locked_by: Option<HandleId>,
}

#[derive(Clone, Debug)]
struct Pending {
    sequence: u64,
    change: Change,
    /// A sync that covered this change failed: a later one says nothing about it.
    given_up: bool,
    /// On disk without a sync, though changes before it are not: no crash undoes it.
    durable: bool,
}

/// An un-synced change of names: the edits happen together or not at all.
#[derive(Clone, Debug)]
struct PendingName {
    sequence: u64,
    change: Change,
    edits: Vec<(PathBuf, Option<Node>)>,
}

#[derive(Debug)]
pub(super) struct Disk {
    files: BTreeMap<FileId, FileState>,
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    pending_names: Vec<PendingName>,
    next_id: u64,
    next_sequence: u64,
    pub(super) capacity: Option<u64>,
    pub(super) block_bytes: Option<usize>,
    pub(super) faults: Faults,
    pub(super) counts: BTreeMap<CallKind, u64>,
    pub(super) trace: Vec<String>,
    pub(super) traced: BTreeSet<CallKind>,
    pub(super) held: BTreeSet<CallKind>,
    pub(super) waiting: usize,
}

impl Disk {
    /// An empty disk with its root.
    pub(super) fn new() -> Self {
        let root = BTreeMap::from([(PathBuf::from("/"), Node::Dir)]);
        Self {
            files: BTreeMap::new(),
            names: root.clone(),
            durable_names: root,
            pending_names: Vec::new(),
            next_id: 0,
            next_sequence: 0,
            capacity: None,
            block_bytes: None,
            faults: Faults::default(),
            counts: BTreeMap::new(),
            trace: Vec::new(),
            traced: BTreeSet::new(),
            held: BTreeSet::new(),
            waiting: 0,
        }
    }

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<(FileId, HandleId)> {
        let found = self.names.get(path).copied();
        let id = match (found, mode) {
            (Some(Node::Dir), _) => return Err(system(EISDIR)),
            (Some(Node::File(_)), OpenMode::CreateNew) => return Err(system(EEXIST)),
            (Some(Node::File(id)), _) => id,
            (None, OpenMode::Read | OpenMode::ReadWrite) => return Err(system(ENOENT)),
            (None, OpenMode::CreateNew | OpenMode::Create) => self.create(path)?,
        };
        self.next_id += 1;
        self.file(id).handles += 1;
        Ok((id, HandleId(self.next_id)))
    }

    fn create(&mut self, path: &Path) -> io::Result<FileId> {
        self.require_dir(parent(path))?;
        self.next_id += 1;
        let id = FileId(self.next_id);
        self.files.insert(id, FileState { path: path.to_owned(), ..FileState::default() });
        self.change_names(
            Change::Create { path: path.to_owned() },
            vec![(path.to_owned(), Some(Node::File(id)))],
        );
        Ok(id)
    }

    pub(super) fn close(&mut self, id: FileId, handle: HandleId) {
        let file = self.file(id);
        file.handles -= 1;
        if file.locked_by == Some(handle) {
            file.locked_by = None;
        }
        self.forget_unreachable();
    }

    pub(super) fn path_of(&self, id: FileId) -> &Path {
        &self.files[&id].path
    }

    pub(super) fn len(&self, id: FileId) -> u64 {
        self.files[&id].current.len()
    }

    pub(super) fn read(&self, id: FileId, buffer: &mut [u8], offset: u64) -> usize {
        self.files[&id].current.read(buffer, offset)
    }

    /// Writes what fits; an error says that it was not all.
    pub(super) fn write(&mut self, id: FileId, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= FILE_BYTES_MAX);
        let end = end.ok_or_else(|| system(EFBIG))?;
        let stop = self.files[&id].current.fits_until(offset, end, self.free_bytes());
        let fits = usize::try_from(stop.saturating_sub(offset)).expect("no more than the bytes given");
        if fits != 0 {
            let path = self.path_of(id).to_owned();
            let bytes = Bytes::copy_from_slice(&bytes[..fits]);
            self.change_file(id, Change::Write { path, offset, bytes });
        }
        if fits == bytes.len() { Ok(()) } else { Err(system(ENOSPC)) }
    }

    /// As [`Disk::write`]; with `durable` these bytes are on disk then, and nothing that was written before.
    pub(super) fn write_blocks(
        &mut self,
        id: FileId,
        blocks: &[u8],
        offset: u64,
        durable: bool,
    ) -> io::Result<()> {
        self.write(id, blocks, offset)?;
        let file = self.file(id);
        if let Some(last) = file.pending.last_mut() {
            last.durable = durable;
        }
        // Nothing before it can be lost: as good as synced.
        if file.pending.iter().all(|pending| pending.durable) {
            self.sync(id);
        }
        Ok(())
    }

    pub(super) fn set_len(&mut self, id: FileId, bytes: u64) -> io::Result<()> {
        if FILE_BYTES_MAX < bytes {
            return Err(system(EFBIG));
        }
        let path = self.path_of(id).to_owned();
        self.change_file(id, Change::SetLen { path, bytes });
        Ok(())
    }

    pub(super) fn allocate(&mut self, id: FileId, bytes: u64) -> io::Result<()> {
        if FILE_BYTES_MAX < bytes {
            return Err(system(EFBIG));
        }
        if self.free_bytes() < self.files[&id].current.missing_bytes(0, bytes) {
            return Err(system(ENOSPC));
        }
        let path = self.path_of(id).to_owned();
        self.change_file(id, Change::Allocate { path, bytes });
        Ok(())
    }

    pub(super) fn sync(&mut self, id: FileId) {
        let file = self.file(id);
        for pending in std::mem::take(&mut file.pending) {
            // What an earlier failed sync gave up is gone from the disk's point of view; readers still see it.
            if !pending.given_up {
                pending.change.apply(&Fate::Keep, &mut file.synced);
            }
        }
    }

    /// A failed sync: nobody knows what is on disk, and the system takes the changes for written.
    pub(super) fn give_up(&mut self, id: FileId) {
        for pending in &mut self.file(id).pending {
            pending.given_up = !pending.durable;
        }
    }

    pub(super) fn try_lock(&mut self, id: FileId, handle: HandleId) -> bool {
        *self.file(id).locked_by.get_or_insert(handle) == handle
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.require_file(from)?;
        self.require_dir(parent(to))?;
        if self.names.get(to) == Some(&Node::Dir) {
            return Err(system(EISDIR));
        }
        if from == to {
            return Ok(());
        }
        self.file(id).path = to.to_owned();
        let edits = vec![(from.to_owned(), None), (to.to_owned(), Some(Node::File(id)))];
        self.change_names(Change::Rename { from: from.to_owned(), to: to.to_owned() }, edits);
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.require_file(path)?;
        self.change_names(Change::Remove { path: path.to_owned() }, vec![(path.to_owned(), None)]);
        Ok(())
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.require_dir(dir)?;
        let inside = self.names.iter().filter(|(path, node)| **node != Node::Dir && parent(path) == dir);
        Ok(inside.filter_map(|(path, _)| path.file_name().map(PathBuf::from)).collect())
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut ancestors: Vec<&Path> = path.ancestors().collect();
        ancestors.reverse();
        for dir in ancestors {
            match self.names.get(dir) {
                Some(Node::Dir) => {}
                Some(Node::File(_)) => return Err(system(ENOTDIR)),
                None => {
                    let edits = vec![(dir.to_owned(), Some(Node::Dir))];
                    self.change_names(Change::CreateDir { path: dir.to_owned() }, edits);
                }
            }
        }
        Ok(())
    }

    /// Makes the changes of names in `dir` durable, and with a rename into or out of it those that it rests on in the
    /// other directory: a journal writes them in order.
    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.require_dir(dir)?;
        let mut dirs = BTreeSet::from([dir.to_owned()]);
        let mut durable = Vec::new();
        for pending in std::mem::take(&mut self.pending_names).into_iter().rev() {
            let touched = || pending.edits.iter().map(|(path, _)| parent(path).to_owned());
            if touched().any(|dir| dirs.contains(&dir)) {
                dirs.extend(touched());
                durable.push(pending);
            } else {
                self.pending_names.push(pending);
            }
        }
        self.pending_names.reverse();
        for pending in durable.into_iter().rev() {
            edit(&mut self.durable_names, &pending.edits);
        }
        self.forget_unreachable();
        Ok(())
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.names.contains_key(path)
    }

    pub(super) fn free_bytes(&self) -> u64 {
        match self.capacity {
            Some(capacity) => capacity.saturating_sub(self.used_bytes()),
            None => FREE_WITHOUT_LIMIT.saturating_sub(self.used_bytes()),
        }
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let live = |id| self.names.values().any(|node| *node == Node::File(id));
        let files = self.files.iter().filter(|(id, file)| file.handles != 0 || live(**id));
        files.map(|(_, file)| file.current.used_bytes()).sum()
    }

    /// All files by name, as the running system sees them.
    pub(super) fn file_names(&self) -> Vec<PathBuf> {
        self.names.iter().filter(|(_, node)| **node != Node::Dir).map(|(path, _)| path.clone()).collect()
    }

    pub(super) fn read_file(&self, path: &Path) -> Option<Vec<u8>> {
        match self.names.get(path)? {
            Node::File(id) => Some(self.files[id].current.to_vec()),
            Node::Dir => None,
        }
    }

    pub(super) fn len_of(&self, path: &Path) -> io::Result<u64> {
        self.require_file(path).map(|id| self.len(id))
    }

    /// Overwrites behind the back of the system: durable at once, and no call anyone counts.
    pub(super) fn damage(&mut self, path: &Path, change: impl Fn(&mut Content)) -> io::Result<()> {
        let id = self.require_file(path)?;
        let file = self.file(id);
        change(&mut file.current);
        change(&mut file.synced);
        Ok(())
    }

    /// Makes everything durable.
    pub(super) fn sync_everything(&mut self) {
        for file in self.files.values_mut() {
            file.synced = file.current.clone();
            file.pending.clear();
        }
        self.durable_names.clone_from(&self.names);
        self.pending_names.clear();
        self.forget_unreachable();
    }

    /// All un-synced changes in the order of the calls.
    pub(super) fn unsynced(&self) -> Vec<Change> {
        let mut changes: Vec<(u64, &Change)> = Vec::new();
        changes.extend(self.pending_names.iter().map(|pending| (pending.sequence, &pending.change)));
        for file in self.files.values() {
            let pending = file.pending.iter().filter(|pending| !pending.durable);
            changes.extend(pending.map(|pending| (pending.sequence, &pending.change)));
        }
        changes.sort_by_key(|(sequence, _)| *sequence);
        changes.into_iter().map(|(_, change)| change.clone()).collect()
    }

    /// The disk after a power loss: `fate` decides about each un-synced change, asked in the order of the calls.
    pub(super) fn crash(&self, mut fate: impl FnMut(usize, &Change) -> Fate) -> Self {
        let mut sequences: Vec<u64> = self.pending_names.iter().map(|pending| pending.sequence).collect();
        let pending = self.files.values().flat_map(|file| &file.pending).filter(|pending| !pending.durable);
        sequences.extend(pending.map(|pending| pending.sequence));
        sequences.sort_unstable();
        let fates: BTreeMap<u64, Fate> = sequences
            .into_iter()
            .zip(self.unsynced())
            .enumerate()
            .map(|(position, (sequence, change))| (sequence, fate(position, &change)))
            .collect();

        let mut names = self.durable_names.clone();
        for pending in self.pending_names.iter().filter(|pending| fates[&pending.sequence] == Fate::Keep) {
            edit(&mut names, &pending.edits);
        }
        // A name whose directory is not there cannot be reached, whatever its own fate.
        let reachable: BTreeMap<PathBuf, Node> = names
            .iter()
            .filter(|(path, _)| path.ancestors().skip(1).all(|dir| names.get(dir) == Some(&Node::Dir)))
            .map(|(path, node)| (path.clone(), *node))
            .collect();

        let (capacity, block_bytes) = (self.capacity, self.block_bytes);
        let mut image = Self { next_id: self.next_id, capacity, block_bytes, ..Self::new() };
        for (path, node) in &reachable {
            if let Node::File(id) = node {
                let file = &self.files[id];
                let mut content = file.synced.clone();
                for pending in &file.pending {
                    let fate = if pending.durable { &Fate::Keep } else { &fates[&pending.sequence] };
                    pending.change.apply(fate, &mut content);
                }
                let left = FileState {
                    current: content.clone(),
                    synced: content,
                    path: path.clone(),
                    ..FileState::default()
                };
                image.files.insert(*id, left);
            }
        }
        image.names.clone_from(&reachable);
        image.durable_names = reachable;
        image
    }

    fn file(&mut self, id: FileId) -> &mut FileState {
        self.files.get_mut(&id).expect("a file lives as long as its handles and names")
    }

    fn require_dir(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(system(ENOTDIR)),
            None => Err(system(ENOENT)),
        }
    }

    fn require_file(&self, path: &Path) -> io::Result<FileId> {
        match self.names.get(path) {
            Some(Node::File(id)) => Ok(*id),
            Some(Node::Dir) => Err(system(EISDIR)),
            None => Err(system(ENOENT)),
        }
    }

    fn change_file(&mut self, id: FileId, change: Change) {
        let sequence = self.sequence();
        let file = self.file(id);
        change.apply(&Fate::Keep, &mut file.current);
        file.pending.push(Pending { sequence, change, given_up: false, durable: false });
    }

    fn change_names(&mut self, change: Change, edits: Vec<(PathBuf, Option<Node>)>) {
        let sequence = self.sequence();
        edit(&mut self.names, &edits);
        self.pending_names.push(PendingName { sequence, change, edits });
        self.forget_unreachable();
    }

    fn sequence(&mut self) -> u64 {
        self.next_sequence += 1;
        self.next_sequence
    }

    /// Drops files that no handle holds and that no crash can bring back.
    fn forget_unreachable(&mut self) {
        let file_of = |node: &Node| if let Node::File(id) = node { Some(*id) } else { None };
        let mut live: BTreeSet<FileId> = self.names.values().filter_map(file_of).collect();
        live.extend(self.durable_names.values().filter_map(file_of));
        let edits = self.pending_names.iter().flat_map(|pending| &pending.edits);
        live.extend(edits.filter_map(|(_, node)| node.as_ref().and_then(file_of)));
        self.files.retain(|id, file| file.handles != 0 || live.contains(id));
    }

    /// The fault that this call meets, if any, after counting it.
    pub(super) fn count(&mut self, call: CallKind, path: &Path) -> Option<Fault> {
        *self.counts.entry(call).or_default() += 1;
        self.faults.strike(call, path)
    }
}

fn edit(names: &mut BTreeMap<PathBuf, Node>, edits: &[(PathBuf, Option<Node>)]) {
    for (path, node) in edits {
        match node {
            Some(node) => names.insert(path.clone(), *node),
            None => names.remove(path),
        };
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

pub(super) fn system(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

pub(super) fn bad_handle() -> io::Error {
    system(EBADF)
}

/// One spelling for a path: absolute, the root being the working directory too, without `.` and `..`.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    normal
}
