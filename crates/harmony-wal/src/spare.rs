//! Released segments kept for the next ones, named `{sequence:016x}.free`.
//!
//! Their blocks stay reserved: a log that releases as it goes needs no new space, and a full disk cannot take it. What
//! a spare holds is never trusted: it is made to read as zeros, durably, before it becomes a segment, since the rule for
//! torn tails rests on that (see `tail.rs`). The content goes only after the old name, durably: a crash in between
//! finds either a whole segment that nobody needs, or a file that is no segment.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use harmony_types::{FileSystem, OpenMode, WalError};

use crate::preallocate::SegmentFile;
use crate::segment::SegmentName;

/// How many are kept.
const SPARES_MAX: usize = 2;

/// A file that reads as zeros.
pub(crate) struct Spare {
    pub(crate) segment: SegmentFile,
    /// Up to this byte its blocks were written, see `fill.rs`; the sync that makes it a segment settles them.
    pub(crate) filled: u64,
    /// Somebody writes zeros to it at this moment.
    pub(crate) filling: bool,
}

/// Held while zeros are written to a spare.
pub(crate) struct Filling<'a> {
    spares: &'a Spares,
    path: &'a Path,
    /// Zeros are written up to here.
    pub(crate) filled: u64,
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        let mut ready = self.spares.ready();
        if let Some(spare) = ready.iter_mut().find(|spare| *spare.segment.path == *self.path) {
            (spare.filling, spare.filled) = (false, self.filled);
        }
        self.spares.changed.notify_all();
    }
}

/// The spares of one log, all of one size.
pub(crate) struct Spares {
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) dir: PathBuf,
    pub(crate) segment_bytes: u64,
    ready: Mutex<Vec<Spare>>,
    /// How far the next segment should be filled by now; 0: not yet worth it.
    wanted: AtomicU64,
    /// The directory may be another process's: nothing is touched any more. Set with `ready` held.
    closed: AtomicBool,
    /// Held by whoever makes, renames or empties files, so that closing can wait for it.
    changing: Mutex<()>,
    /// Spares came, or one is wanted, or whoever fills them is to stop.
    changed: Condvar,
}

impl Spares {
    /// Takes over the spares that an earlier process left; those of another size are removed.
    pub(crate) fn open(fs: Arc<dyn FileSystem>, dir: &Path, segment_bytes: u64) -> Result<Self, WalError> {
        let spares = Self {
            fs,
            dir: dir.to_owned(),
            segment_bytes,
            ready: Mutex::default(),
            wanted: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            changing: Mutex::default(),
            changed: Condvar::new(),
        };
        for name in spares.fs.list_dir(dir).map_err(WalError::io("list", dir))? {
            if is_spare(&name) {
                spares.prepare(dir.join(name));
            }
        }
        Ok(spares)
    }

    /// Bytes of all spares.
    pub(crate) fn bytes(&self) -> u64 {
        self.segment_bytes * self.ready().len() as u64
    }

    /// The spare that is filled furthest; waits while zeros are written to it, one piece at most. For a segment of
    /// unusual size there is none, and then all spares are given up: their space may be what it needs.
    pub(crate) fn take(&self, bytes: u64) -> Option<Spare> {
        let mut ready = self.at_rest();
        self.wanted.store(0, Ordering::Release);
        if bytes == self.segment_bytes {
            let best = (0..ready.len()).max_by_key(|slot| ready[*slot].filled)?;
            return Some(ready.swap_remove(best));
        }
        let given_up = std::mem::take(&mut *ready);
        drop(ready);
        for spare in given_up {
            self.discard(&spare.segment.path);
        }
        None
    }

    /// Takes the names of `released` segments away, durably, and keeps as many as are wanted and fit into `room` bytes.
    ///
    /// A segment that a reader still has in hand is not kept: its content must not change.
    ///
    /// # Errors
    /// [`WalError::Closed`] leaves the files to the next open.
    pub(crate) fn recycle(&self, released: Vec<SegmentFile>, room: u64) -> Result<(), WalError> {
        let _changing = self.changing();
        if self.is_closed() {
            return Err(WalError::Closed);
        }
        let wanted = SPARES_MAX.saturating_sub(self.ready().len());
        let mut kept = Vec::new();
        for segment in released {
            let fits = self.segment_bytes * (kept.len() as u64 + 1) <= room.saturating_sub(self.bytes());
            let usable = segment.bytes == self.segment_bytes && Arc::strong_count(&segment.file) == 1;
            let name = segment.path.file_name().and_then(|name| SegmentName::parse(Path::new(name)));
            match name.filter(|_| fits && usable && kept.len() < wanted) {
                Some(name) => {
                    let spare = self.dir.join(format!("{:016x}.free", name.sequence));
                    self.fs.rename(&segment.path, &spare).map_err(WalError::io("rename", &*segment.path))?;
                    kept.push(spare);
                }
                None => {
                    let path = &segment.path;
                    self.fs.remove_file(path).map_err(WalError::io("remove", &**path))?;
                }
            }
        }
        self.fs.sync_dir(&self.dir).map_err(WalError::io("sync", &self.dir))?;
        for path in kept {
            self.prepare(path);
        }
        Ok(())
    }

    /// Makes the file a spare, or removes it: no record depends on it, so a failure costs no more than the file.
    fn prepare(&self, path: PathBuf) {
        if SPARES_MAX <= self.ready().len() {
            return self.discard(&path);
        }
        let blank = self.fs.open(&path, OpenMode::ReadWrite).and_then(|file| {
            if file.len()? != self.segment_bytes {
                return Ok(None);
            }
            file.reset(self.segment_bytes)?;
            file.sync_all()?;
            Ok(Some(file))
        });
        match blank {
            Ok(Some(file)) => self.add(SegmentFile { file, path: path.into(), bytes: self.segment_bytes }),
            Ok(None) => self.discard(&path),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "cannot use a released segment again");
                self.discard(&path);
            }
        }
    }

    /// Adds a file that reads as zeros, durably.
    pub(crate) fn add(&self, segment: SegmentFile) {
        let mut ready = self.ready();
        if !self.is_closed() {
            ready.push(Spare { segment, filled: 0, filling: false });
            self.changed.notify_all();
        }
    }

    /// Forgets all spares, once nobody changes their files. Whoever fills them ends.
    pub(crate) fn close(&self) {
        let _changing = self.changing();
        let mut ready = self.at_rest();
        self.closed.store(true, Ordering::Release);
        ready.clear();
        self.changed.notify_all();
    }

    /// See [`Spares::close`].
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Takes back a spare, unless it is in use by now.
    pub(crate) fn give_up(&self, path: &Path) {
        let _changing = self.changing();
        let mut ready = self.ready();
        let Some(slot) = ready.iter().position(|spare| *spare.segment.path == *path) else { return };
        ready.swap_remove(slot);
        drop(ready);
        self.discard(path);
    }

    /// Keeps everybody from taking this spare, whose zeros end at byte `filled`; `None` when somebody has, or fills it.
    pub(crate) fn begin_filling<'a>(&'a self, path: &'a Path, filled: u64) -> Option<Filling<'a>> {
        let mut ready = self.ready();
        let spare = ready.iter_mut().find(|spare| *spare.segment.path == *path)?;
        (!std::mem::replace(&mut spare.filling, true)).then(|| Filling { spares: self, path, filled })
    }

    /// Waits until spares come, or one is wanted, or until [`Spares::wake`].
    pub(crate) fn wait<'a>(&self, ready: MutexGuard<'a, Vec<Spare>>) -> MutexGuard<'a, Vec<Spare>> {
        self.changed.wait(ready).unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how far the next segment should be filled by now; cheap when that is known.
    pub(crate) fn want(&self, filled: u64) {
        if self.wanted.fetch_max(filled, Ordering::AcqRel) < filled {
            self.wake();
        }
    }

    /// What [`Spares::want`] asked for since a spare was taken last.
    pub(crate) fn wanted(&self) -> u64 {
        self.wanted.load(Ordering::Acquire)
    }

    /// Ends every [`Spares::wait`].
    pub(crate) fn wake(&self) {
        let _ready = self.ready();
        self.changed.notify_all();
    }

    /// Held while files of the directory are made or change their names. Before `ready`, if both.
    pub(crate) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn discard(&self, path: &Path) {
        if let Err(error) = self.fs.remove_file(path) {
            tracing::warn!(file = %path.display(), %error, "cannot remove a released segment");
        }
    }

    /// The spares, when nobody writes to them.
    fn at_rest(&self) -> MutexGuard<'_, Vec<Spare>> {
        let mut ready = self.ready();
        while ready.iter().any(|spare| spare.filling) {
            ready = self.wait(ready);
        }
        ready
    }

    /// Locked for moments; nobody does I/O with it.
    pub(crate) fn ready(&self) -> MutexGuard<'_, Vec<Spare>> {
        // A vector is never left half changed.
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a file name is that of a spare.
fn is_spare(name: &Path) -> bool {
    name.extension().is_some_and(|extension| extension == "free")
}
