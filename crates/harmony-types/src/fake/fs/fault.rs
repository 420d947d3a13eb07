//! Which call fails, and how.

use std::io;
use std::path::Path;

/// Linux's number for an input or output error.
pub const EIO: i32 = 5;

/// Linux's number for a full disk.
pub const ENOSPC: i32 = 28;

/// A kind of call on the disk, for faults, counters and traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CallKind {
    /// [`FileSystem::open`](crate::fs::FileSystem::open), creating or not.
    Open,
    /// [`File::read_at`](crate::fs::File::read_at).
    Read,
    /// [`File::write_at`](crate::fs::File::write_at).
    Write,
    /// [`File::set_len`](crate::fs::File::set_len).
    SetLen,
    /// [`File::allocate`](crate::fs::File::allocate).
    Allocate,
    /// [`File::sync_data`](crate::fs::File::sync_data) and [`File::sync_all`](crate::fs::File::sync_all).
    Sync,
    /// [`File::try_lock`](crate::fs::File::try_lock).
    Lock,
    /// [`FileSystem::rename`](crate::fs::FileSystem::rename).
    Rename,
    /// [`FileSystem::remove_file`](crate::fs::FileSystem::remove_file).
    Remove,
    /// [`FileSystem::list_dir`](crate::fs::FileSystem::list_dir).
    List,
    /// [`FileSystem::create_dir_all`](crate::fs::FileSystem::create_dir_all).
    CreateDir,
    /// [`FileSystem::sync_dir`](crate::fs::FileSystem::sync_dir).
    SyncDir,
}

impl CallKind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Open,
        Self::Read,
        Self::Write,
        Self::SetLen,
        Self::Allocate,
        Self::Sync,
        Self::Lock,
        Self::Rename,
        Self::Remove,
        Self::List,
        Self::CreateDir,
        Self::SyncDir,
    ];

    /// The kinds that may change the disk: fail all of them from the n-th on, and the power is out.
    pub const CHANGING: [Self; 9] = [
        Self::Open,
        Self::Write,
        Self::SetLen,
        Self::Allocate,
        Self::Sync,
        Self::Rename,
        Self::Remove,
        Self::CreateDir,
        Self::SyncDir,
    ];

    /// The word in a trace.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::SetLen => "set_len",
            Self::Allocate => "allocate",
            Self::Sync => "sync",
            Self::Lock => "lock",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::List => "list",
            Self::CreateDir => "create_dir",
            Self::SyncDir => "sync_dir",
        }
    }
}

/// A planned failure: the n-th call of some kinds, counted from the moment the fault is given to the disk.
#[derive(Clone, Debug)]
pub struct Fault {
    calls: Vec<CallKind>,
    path_part: String,
    calls_before: u64,
    errno: i32,
    written_bytes: usize,
    lasts: bool,
}

impl Fault {
    /// The next call of one of these kinds fails once, with `EIO`, having done nothing.
    pub fn on(calls: impl IntoIterator<Item = CallKind>) -> Self {
        Self {
            calls: calls.into_iter().collect(),
            path_part: String::new(),
            calls_before: 0,
            errno: EIO,
            written_bytes: 0,
            lasts: false,
        }
    }

    /// Not the next call but the n-th, from 1.
    ///
    /// # Panics
    /// `n` is 0.
    #[must_use]
    pub fn nth(mut self, n: u64) -> Self {
        assert!(n != 0, "calls are counted from 1");
        self.calls_before = n - 1;
        self
    }

    /// With this error number of the system, for example [`ENOSPC`].
    #[must_use]
    pub fn errno(mut self, errno: i32) -> Self {
        self.errno = errno;
        self
    }

    /// A failing write writes its first `bytes` bytes all the same.
    #[must_use]
    pub fn short_write(mut self, bytes: usize) -> Self {
        self.written_bytes = bytes;
        self
    }

    /// Every later call of these kinds fails too, until
    /// [`MemoryFileSystem::clear_faults`](super::MemoryFileSystem::clear_faults).
    #[must_use]
    pub fn lasting(mut self) -> Self {
        self.lasts = true;
        self
    }

    /// Only calls on paths that contain `part` count and fail.
    #[must_use]
    pub fn on_path(mut self, part: impl Into<String>) -> Self {
        self.path_part = part.into();
        self
    }

    pub(super) fn error(&self) -> io::Error {
        io::Error::from_raw_os_error(self.errno)
    }

    pub(super) fn written_bytes(&self) -> usize {
        self.written_bytes
    }

    fn concerns(&self, call: CallKind, path: &Path) -> bool {
        self.calls.contains(&call) && path.to_string_lossy().contains(&self.path_part)
    }
}

/// The faults that wait, and how many have struck.
#[derive(Debug, Default)]
pub(super) struct Faults {
    waiting: Vec<Fault>,
    pub(super) struck: u64,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.waiting.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Counts a call against every waiting fault; the first one that is due strikes.
    pub(super) fn strike(&mut self, call: CallKind, path: &Path) -> Option<Fault> {
        let mut due = None;
        for (slot, fault) in self.waiting.iter_mut().enumerate() {
            if !fault.concerns(call, path) {
                continue;
            }
            if fault.calls_before != 0 {
                fault.calls_before -= 1;
            } else if due.is_none() {
                due = Some(slot);
            }
        }
        let slot = due?;
        self.struck += 1;
        Some(if self.waiting[slot].lasts { self.waiting[slot].clone() } else { self.waiting.remove(slot) })
    }
}
