//! Released segments kept for the next ones, named `{sequence:016x}.free`.
//!
//! Their blocks stay reserved: a log that releases as it goes needs no new space, and a full disk cannot take it. What
//! a spare holds is never trusted: it is made to read as zeros, durably, before it becomes a segment, since the rule for
//! torn tails rests on that (see `tail.rs`). The content goes only after the old name, durably: a crash in between
//! finds either a whole segment that nobody needs, or a file that is no segment.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use harmony_types::{FileSystem, OpenMode, WalError};

use crate::preallocate::SegmentFile;
use crate::segment::SegmentName;

/// How many are kept.
const SPARES_MAX: usize = 2;

/// The spares of one log, all of one size.
pub(crate) struct Spares {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    segment_bytes: u64,
    ready: Mutex<Vec<SegmentFile>>,
}

impl Spares {
    /// Takes over the spares that an earlier process left; those of another size are removed.
    pub(crate) fn open(fs: Arc<dyn FileSystem>, dir: &Path, segment_bytes: u64) -> Result<Self, WalError> {
        let spares = Self { fs, dir: dir.to_owned(), segment_bytes, ready: Mutex::new(Vec::new()) };
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

    /// A file that reads as zeros and has `bytes` bytes. For a segment of unusual size there is none, and then all
    /// spares are given up: their space may be what it needs.
    pub(crate) fn take(&self, bytes: u64) -> Option<SegmentFile> {
        if bytes == self.segment_bytes {
            return self.ready().pop();
        }
        for spare in std::mem::take(&mut *self.ready()) {
            self.discard(&spare.path);
        }
        None
    }

    /// Takes the names of `released` segments away, durably, and keeps as many as are wanted and fit into `room` bytes.
    ///
    /// A segment that a reader still has in hand is not kept: its content must not change.
    pub(crate) fn recycle(&self, released: Vec<SegmentFile>, room: u64) -> Result<(), WalError> {
        let wanted = SPARES_MAX.saturating_sub(self.ready().len());
        let mut kept = Vec::new();
        for segment in released {
            let fits = self.segment_bytes * (kept.len() as u64 + 1) <= room.saturating_sub(self.bytes());
            let usable = segment.bytes == self.segment_bytes && Arc::strong_count(&segment.file) == 1;
            let name = segment.path.file_name().and_then(|name| SegmentName::parse(Path::new(name)));
            match name.filter(|_| fits && usable && kept.len() < wanted) {
                Some(name) => {
                    let spare = self.dir.join(format!("{:016x}.free", name.sequence));
                    self.fs.rename(&segment.path, &spare).map_err(WalError::io("rename", &segment.path))?;
                    kept.push(spare);
                }
                None => {
                    let path = &segment.path;
                    self.fs.remove_file(path).map_err(WalError::io("remove", path))?;
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
            Ok(Some(file)) => self.ready().push(SegmentFile { file, path, bytes: self.segment_bytes }),
            Ok(None) => self.discard(&path),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "cannot use a released segment again");
                self.discard(&path);
            }
        }
    }

    fn discard(&self, path: &Path) {
        if let Err(error) = self.fs.remove_file(path) {
            tracing::warn!(file = %path.display(), %error, "cannot remove a released segment");
        }
    }

    fn ready(&self) -> MutexGuard<'_, Vec<SegmentFile>> {
        // A vector is never left half changed.
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a file name is that of a spare.
fn is_spare(name: &Path) -> bool {
    name.extension().is_some_and(|extension| extension == "free")
}
