//! Any file system, with calls that are counted and fail as planned; above the real one, too.

#![allow(dead_code, reason = "each test program uses its part")]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use harmony_types::fake::fs::CallKind;
use harmony_types::{File, FileSystem, OpenMode};
use harmony_wal::OsFileSystem;

/// Which call fails: the `nth` of its kinds, from 1.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) kinds: Vec<CallKind>,
    pub(crate) nth: u64,
    pub(crate) errno: i32,
    /// A write that fails writes so many bytes all the same.
    pub(crate) written_bytes: usize,
}

#[derive(Default)]
struct Shared {
    plan: Option<Plan>,
    counted: u64,
    struck: u64,
}

/// The wrapper; clones share one plan.
#[derive(Clone)]
pub(crate) struct FailingFileSystem {
    inner: Arc<dyn FileSystem>,
    shared: Arc<Mutex<Shared>>,
    /// Whether a sync reaches the disk: nobody cuts the power of a real one, and waiting for it takes long.
    syncs: bool,
}

impl FailingFileSystem {
    pub(crate) fn over(inner: Arc<dyn FileSystem>) -> Self {
        Self { inner, shared: Arc::default(), syncs: true }
    }

    /// Over the operating system's files; syncs are counted and not carried out.
    pub(crate) fn real() -> Self {
        Self { syncs: false, ..Self::over(OsFileSystem::new()) }
    }

    pub(crate) fn plan(&self, plan: Plan) {
        *self.shared() = Shared { plan: Some(plan), ..Shared::default() };
    }

    pub(crate) fn clear(&self) {
        self.shared().plan = None;
    }

    /// How many calls have failed as planned.
    pub(crate) fn struck(&self) -> u64 {
        self.shared().struck
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call; the plan when it is its turn to fail.
    fn count(&self, kind: CallKind) -> Option<Plan> {
        let mut shared = self.shared();
        let concerned = shared.plan.as_ref().is_some_and(|plan| plan.kinds.contains(&kind));
        shared.counted += u64::from(concerned);
        let due = shared.plan.clone().filter(|plan| concerned && plan.nth == shared.counted);
        shared.struck += u64::from(due.is_some());
        due
    }

    fn call<T>(&self, kind: CallKind, run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.count(kind) {
            Some(plan) => Err(io::Error::from_raw_os_error(plan.errno)),
            None => run(),
        }
    }
}

impl FileSystem for FailingFileSystem {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let inner = self.call(CallKind::Open, || self.inner.open(path, mode))?;
        Ok(Arc::new(FailingFile { inner, fs: self.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(CallKind::Rename, || self.inner.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.call(CallKind::Remove, || self.inner.remove_file(path))
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.call(CallKind::List, || self.inner.list_dir(path))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.call(CallKind::CreateDir, || self.inner.create_dir_all(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.call(CallKind::SyncDir, || if self.syncs { self.inner.sync_dir(path) } else { Ok(()) })
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.free_bytes(path)
    }
}

struct FailingFile {
    inner: Arc<dyn File>,
    fs: FailingFileSystem,
}

impl File for FailingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.fs.call(CallKind::Read, || self.inner.read_at(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let Some(plan) = self.fs.count(CallKind::Write) else {
            return self.inner.write_at(bytes, offset);
        };
        self.inner.write_at(&bytes[..bytes.len().min(plan.written_bytes)], offset)?;
        Err(io::Error::from_raw_os_error(plan.errno))
    }

    fn block_bytes(&self) -> Option<usize> {
        self.inner.block_bytes()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fs.call(CallKind::Sync, || if self.fs.syncs { self.inner.sync_data() } else { Ok(()) })
    }

    fn sync_all(&self) -> io::Result<()> {
        self.fs.call(CallKind::Sync, || if self.fs.syncs { self.inner.sync_all() } else { Ok(()) })
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.fs.call(CallKind::SetLen, || self.inner.set_len(bytes))
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.fs.call(CallKind::Allocate, || self.inner.allocate(bytes))
    }

    fn reset(&self, bytes: u64) -> io::Result<()> {
        self.fs.call(CallKind::SetLen, || self.inner.reset(bytes))
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.fs.call(CallKind::Lock, || self.inner.try_lock())
    }
}
