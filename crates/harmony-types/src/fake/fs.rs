//! A file system in memory that knows what is synced, and fails as it is told to.
//!
//! What a real disk may do at a power loss, and what [`MemoryFileSystem`] makes of it:
//!
//! | a real disk | here |
//! | --- | --- |
//! | keeps all that a successful sync covered | exactly that: `synced` content, names after `sync_dir` |
//! | keeps, loses or reorders what was not synced | [`Crash`], or [`Fate`] for each change |
//! | writes a sector whole or not at all | torn writes fall apart at [`SECTOR_BYTES`]; [`Fate::KeepBytes`] is harsher |
//! | loses names of a directory that was not synced | files, renames, removals and directories, each on its own |
//! | forgets dirty pages once a sync failed | a later good sync does not save what a failed one covered |
//! | keeps a rename whole | both names change or none |
//! | makes a file's name durable with its content, often | never: `sync_dir` is what the contract asks for |
//! | shows zeros in a gap | zeros; never another file's old bytes |
//! | rots, misdirects | [`MemoryFileSystem::flip`] and [`MemoryFileSystem::overwrite`] on purpose |
//!
//! Within one sector, un-synced writes are kept or lost one by one too: harsher than a page cache, where a later
//! write to a sector brings the earlier ones along.
//!
//! Not modelled: permissions, links, removal and renaming of directories, the order in which a journal happens to
//! write names of one directory.

mod content;
mod crash;
mod disk;
mod fault;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub use crash::{Change, Crash, Fate, SECTOR_BYTES};
pub use fault::{CallKind, EIO, ENOSPC, Fault};

use crate::fs::{File, FileSystem, OpenMode};
use disk::{Disk, FileId, HandleId};

/// A disk in memory; clones are handles on the same one.
///
/// Paths are absolute; a relative one starts at the root. The root exists and is durable.
#[derive(Clone)]
pub struct MemoryFileSystem {
    shared: Arc<Shared>,
}

struct Shared {
    disk: Mutex<Disk>,
    changed: Condvar,
}

impl Default for MemoryFileSystem {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryFileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.files()).finish()
    }
}

/// Building one, looking at it, and crashing it.
impl MemoryFileSystem {
    /// An empty disk without a limit.
    pub fn new() -> Self {
        Self::from_disk(Disk::new())
    }

    /// An empty disk on which the directory `path` exists and is durable.
    pub fn with_dir(path: impl AsRef<Path>) -> Self {
        let mut disk = Disk::new();
        disk.create_dir_all(&disk::normal(path.as_ref())).expect("an empty disk has no file in the way");
        disk.sync_everything();
        Self::from_disk(disk)
    }

    /// The disk after a power loss, as a disk of its own: no locks, faults, counters or trace; all on it is durable.
    /// This one is not changed.
    pub fn crash_image(&self, crash: Crash) -> Self {
        self.crash_image_with(crash.fates())
    }

    /// As [`MemoryFileSystem::crash_image`], with the fate of each un-synced change decided by `fate`: it gets the
    /// change and its position in [`MemoryFileSystem::unsynced`].
    pub fn crash_image_with(&self, fate: impl FnMut(usize, &Change) -> Fate) -> Self {
        Self::from_disk(self.disk().crash(fate))
    }

    /// All changes that no sync has made durable, in the order of the calls.
    pub fn unsynced(&self) -> Vec<Change> {
        self.disk().unsynced()
    }

    /// Makes everything durable, without a call that counts or fails.
    pub fn sync_everything(&self) {
        self.disk().sync_everything();
    }

    /// All files by full path, sorted, as a running program sees them.
    pub fn files(&self) -> Vec<PathBuf> {
        self.disk().file_names()
    }

    /// A file's whole content as a running program sees it; `None` when there is no such file.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        self.disk().read_file(&disk::normal(path.as_ref()))
    }

    /// Bytes that all files take: what `set_len` added, or a write skipped, is a hole and takes none until it is written.
    pub fn used_bytes(&self) -> u64 {
        self.disk().used_bytes()
    }

    fn from_disk(disk: Disk) -> Self {
        Self { shared: Arc::new(Shared { disk: Mutex::new(disk), changed: Condvar::new() }) }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.shared.disk()
    }
}

/// Hurting it.
impl MemoryFileSystem {
    /// Plans a failure.
    pub fn inject(&self, fault: Fault) {
        self.disk().faults.add(fault);
    }

    /// Takes back all planned failures.
    pub fn clear_faults(&self) {
        self.disk().faults.clear();
    }

    /// How many calls have failed as planned: a loop over all n ends when none did.
    pub fn faults_struck(&self) -> u64 {
        self.disk().faults.struck
    }

    /// Limits the bytes of all files together; `None` lifts the limit. A write over it writes what fits, then `ENOSPC`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// Makes its files ask for blocks of this size, see [`File::block_bytes`]; each write of them is one call.
    pub fn set_block_bytes(&self, bytes: Option<usize>) {
        self.disk().block_bytes = bytes;
    }

    /// Flips the bits of `mask` in one byte of a file, on the disk and for readers: bit rot.
    ///
    /// # Errors
    /// No such file, or no such byte in it.
    pub fn flip(&self, path: impl AsRef<Path>, offset: u64, mask: u8) -> io::Result<()> {
        let path = disk::normal(path.as_ref());
        let mut disk = self.disk();
        if disk.len_of(&path)? <= offset {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        disk.damage(&path, |content| {
            let mut byte = [0];
            if content.read(&mut byte, offset) == 1 {
                content.write(&[byte[0] ^ mask], offset);
            }
        })
    }

    /// Overwrites bytes of a file, on the disk and for readers, growing it when needed.
    ///
    /// # Errors
    /// No such file.
    pub fn overwrite(&self, path: impl AsRef<Path>, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk().damage(&disk::normal(path.as_ref()), |content| content.write(bytes, offset))
    }

    /// Cuts or extends a file, on the disk and for readers.
    ///
    /// # Errors
    /// No such file.
    pub fn resize(&self, path: impl AsRef<Path>, bytes: u64) -> io::Result<()> {
        self.disk().damage(&disk::normal(path.as_ref()), |content| content.set_len(bytes))
    }

    /// Stops every call of these kinds before it does anything, until the guard is dropped: a disk that hangs.
    pub fn hold(&self, calls: impl IntoIterator<Item = CallKind>) -> Hold {
        self.disk().held.extend(calls);
        Hold { shared: Arc::clone(&self.shared) }
    }
}

/// Watching it.
impl MemoryFileSystem {
    /// Calls of this kind so far, failed ones too.
    pub fn calls(&self, call: CallKind) -> u64 {
        self.disk().counts.get(&call).copied().unwrap_or(0)
    }

    /// Calls so far, by kind; kinds that never occurred are not there.
    pub fn call_counts(&self) -> BTreeMap<CallKind, u64> {
        self.disk().counts.clone()
    }

    /// From now on, writes each call of these kinds as a line into the trace: `write /wal/1 512+128`, and what it
    /// failed with.
    pub fn start_trace(&self, calls: impl IntoIterator<Item = CallKind>) {
        self.disk().traced.extend(calls);
    }

    /// The trace since it was last taken.
    pub fn take_trace(&self) -> Vec<String> {
        std::mem::take(&mut self.disk().trace)
    }
}

impl Shared {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        // A test that panicked elsewhere must not hide its message behind a second panic.
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one way in for calls that count: waits while the kind is held, meets the planned fault, leaves its trace.
    fn call<T>(
        &self,
        call: CallKind,
        subject: &Subject<'_>,
        run: impl FnOnce(&mut Disk, Option<&Fault>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut disk = self.disk();
        while disk.held.contains(&call) {
            disk.waiting += 1;
            self.changed.notify_all();
            disk = self.changed.wait(disk).unwrap_or_else(PoisonError::into_inner);
            disk.waiting -= 1;
        }
        let path = subject.path(&disk);
        let fault = disk.count(call, &path);
        let result = run(&mut disk, fault.as_ref());
        if disk.traced.contains(&call) {
            let mut line = format!("{} {}{}", call.word(), path.display(), subject.detail);
            if let Err(error) = &result {
                line += &format!(": {error}");
            }
            disk.trace.push(line);
        }
        result
    }
}

/// What a call is about, for faults and traces.
struct Subject<'a> {
    target: Target<'a>,
    detail: String,
}

enum Target<'a> {
    Path(&'a Path),
    File(FileId),
}

impl Subject<'_> {
    fn path(&self, disk: &Disk) -> PathBuf {
        match self.target {
            Target::Path(path) => path.to_owned(),
            Target::File(id) => disk.path_of(id).to_owned(),
        }
    }
}

/// Holds calls back; see [`MemoryFileSystem::hold`]. Dropping it lets all held kinds go on.
#[must_use = "dropping it lets the calls go on"]
pub struct Hold {
    shared: Arc<Shared>,
}

impl Hold {
    /// Blocks until `count` threads stand in held calls.
    pub fn wait_for(&self, count: usize) {
        let mut disk = self.shared.disk();
        while disk.waiting < count {
            disk = self.shared.changed.wait(disk).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.disk().held.clear();
        self.shared.changed.notify_all();
    }
}

impl MemoryFileSystem {
    fn path_call<T>(
        &self,
        call: CallKind,
        path: &Path,
        run: impl FnOnce(&mut Disk, &Path) -> io::Result<T>,
    ) -> io::Result<T> {
        let path = disk::normal(path);
        let subject = Subject { target: Target::Path(&path), detail: String::new() };
        self.shared.call(call, &subject, |disk, fault| {
            stop_at(fault)?;
            run(disk, &path)
        })
    }
}

impl FileSystem for MemoryFileSystem {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let (id, handle) = self.path_call(CallKind::Open, path, |disk, path| disk.open(path, mode))?;
        let writable = mode != OpenMode::Read;
        Ok(Arc::new(MemoryFile { shared: Arc::clone(&self.shared), id, handle, writable }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (disk::normal(from), disk::normal(to));
        let detail = format!(" -> {}", to.display());
        let subject = Subject { target: Target::Path(&from), detail };
        self.shared.call(CallKind::Rename, &subject, |disk, fault| {
            stop_at(fault)?;
            disk.rename(&from, &to)
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.path_call(CallKind::Remove, path, Disk::remove)
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.path_call(CallKind::List, path, |disk, path| disk.list(path))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.path_call(CallKind::CreateDir, path, Disk::create_dir_all)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.path_call(CallKind::SyncDir, path, Disk::sync_dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.disk().exists(&disk::normal(path)))
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.disk().free_bytes())
    }
}

/// An open file of a [`MemoryFileSystem`].
struct MemoryFile {
    shared: Arc<Shared>,
    id: FileId,
    handle: HandleId,
    writable: bool,
}

impl MemoryFile {
    fn call<T>(
        &self,
        call: CallKind,
        detail: String,
        run: impl FnOnce(&mut Disk, Option<&Fault>) -> io::Result<T>,
    ) -> io::Result<T> {
        let subject = Subject { target: Target::File(self.id), detail };
        self.shared.call(call, &subject, run)
    }

    fn change(
        &self,
        call: CallKind,
        detail: String,
        run: impl FnOnce(&mut Disk, Option<&Fault>) -> io::Result<()>,
    ) -> io::Result<()> {
        let writable = self.writable;
        self.call(
            call,
            detail,
            |disk, fault| if writable { run(disk, fault) } else { Err(disk::bad_handle()) },
        )
    }
}

impl File for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.call(CallKind::Read, format!(" {offset}+{}", buffer.len()), |disk, fault| {
            stop_at(fault)?;
            Ok(disk.read(self.id, buffer, offset))
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(CallKind::Write, format!(" {offset}+{}", bytes.len()), |disk, fault| {
            let Some(fault) = fault else {
                return disk.write(self.id, bytes, offset);
            };
            disk.write(self.id, &bytes[..bytes.len().min(fault.written_bytes())], offset)?;
            Err(fault.error())
        })
    }

    fn block_bytes(&self) -> Option<usize> {
        self.shared.disk().block_bytes
    }

    /// One call; unlike a sync it makes nothing durable but its own blocks. Panics where a real disk refuses.
    fn write_blocks(&self, blocks: &[u8], offset: u64, durable: bool) -> io::Result<()> {
        let block_bytes = self.block_bytes().expect("only a file that tells of blocks is written in blocks");
        let whole = offset.is_multiple_of(block_bytes as u64) && blocks.len().is_multiple_of(block_bytes);
        assert!(whole, "{} bytes at {offset} are no blocks of {block_bytes}", blocks.len());
        assert_eq!(blocks.as_ptr().align_offset(block_bytes), 0, "the memory is not aligned");
        self.change(CallKind::Write, format!(" {offset}+{}", blocks.len()), |disk, fault| {
            let Some(fault) = fault else {
                return disk.write_blocks(self.id, blocks, offset, durable);
            };
            disk.write(self.id, &blocks[..blocks.len().min(fault.written_bytes())], offset)?;
            Err(fault.error())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.call(CallKind::Sync, String::new(), |disk, fault| {
            let Some(fault) = fault else {
                disk.sync(self.id);
                return Ok(());
            };
            disk.give_up(self.id);
            Err(fault.error())
        })
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.shared.disk().len(self.id))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.change(CallKind::SetLen, format!(" {bytes}"), |disk, fault| {
            stop_at(fault)?;
            disk.set_len(self.id, bytes)
        })
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.change(CallKind::Allocate, format!(" {bytes}"), |disk, fault| {
            stop_at(fault)?;
            disk.allocate(self.id, bytes)
        })
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.call(CallKind::Lock, String::new(), |disk, fault| {
            stop_at(fault)?;
            Ok(disk.try_lock(self.id, self.handle))
        })
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        self.shared.disk().close(self.id, self.handle);
    }
}

fn stop_at(fault: Option<&Fault>) -> io::Result<()> {
    fault.map_or(Ok(()), |fault| Err(fault.error()))
}

#[cfg(test)]
mod tests;
