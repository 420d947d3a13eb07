//! A segmented, CRC-checked write-ahead log with group commit that tells a torn tail from corruption.
//!
//! ```
//! use bytes::Bytes;
//! use harmony_types::{Entry, LogIndex, Term};
//! use harmony_wal::{FileWal, OsFileSystem, Wal, WalConfig};
//!
//! # let temporary = tempfile::tempdir()?;
//! # let dir = temporary.path();
//! let wal = FileWal::open(OsFileSystem::new(), dir, WalConfig::default())?;
//! let entry = |index, text: &'static str| Entry {
//!     term: Term(1),
//!     index: LogIndex(index),
//!     data: Bytes::from_static(text.as_bytes()),
//!     ..Entry::default()
//! };
//! wal.append_many(None, &[entry(1, "first"), entry(2, "second")])?; // in memory, readable at once
//! wal.sync()?; // on disk, together with what other threads appended
//! wal.close()?;
//!
//! let wal = FileWal::open(OsFileSystem::new(), dir, WalConfig::default())?;
//! let entries = wal.entries(LogIndex(1)..LogIndex(3), u64::MAX)?;
//! assert_eq!(entries[1].data, "second");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it promises
//! - What was appended before a call of `sync` is there after any crash, once that `sync` has returned. Threads that
//!   wait for a sync share one write and one `fdatasync`; while it runs, others append.
//! - After a crash the log is a prefix of what was appended, and holds all that was synced. Entries that were truncated
//!   or replaced never come back.
//! - Only bytes that no sync acknowledged are ever cut; they are kept aside. Any other damage stops the open, names
//!   file, offset and index, and changes nothing. No single damaged byte is taken for a torn tail.
//! - After a failed write or sync the log is poisoned: reads go on, everything else is refused, no sync is retried.
//! - Appending allocates nothing for an entry in the long run: it is encoded into one of two buffers, and the cache
//!   shares its data. An open log takes 12 bytes of memory an entry, the cache, and the buffers (some MiB).
//!
//! # What lies in the directory
//! | name | content |
//! | --- | --- |
//! | `{sequence:016x}-{first index:016x}.wal` | a segment |
//! | `{sequence:016x}.new` | a segment in the making; removed at the next open |
//! | `{sequence:016x}.free` | a released segment, kept for the next one; at most two |
//! | `RESERVE` | space held back for a torn tail, for an open on a full disk; at most 8 MiB |
//! | `torn-{sequence:016x}-{offset}.bin` | a torn tail that was cut, for whoever wants to look; never read |
//! | `LOCK` | locked while a process has the log open |
//!
//! `docs/format.md` has every byte.
//!
//! # What the errors mean
//! [`WalError::Io`] and [`WalError::Poisoned`]: stop, find out what ails the disk, open again.
//! [`WalError::CrcMismatch`], [`WalError::CorruptRecord`], [`WalError::MissingSegment`]: the disk lost what it had
//! acknowledged; restore from a replica or a backup. [`WalError::Full`]: release a prefix. [`WalError::DiskFull`]: make room
//! or release a prefix; nothing was changed, and the log goes on.
//! [`WalError::InvalidIndex`], [`WalError::TooLarge`]: the caller's mistake; nothing was changed.
//! [`WalError::Foreign`], [`WalError::UnsupportedVersion`], [`WalError::Locked`]: the wrong directory, release or time.
//!
//! # How to read the source
//! `frame` (the unit of checking) → `segment` (a file of them) → `tail` (torn or corrupt?) → `recovery` → `pending` and
//! `writer` (from memory to disk) → `wal` (the log itself) → `group` (one sync for many threads) → `fetch`, `release`,
//! `spare`.

mod aside;
mod batched;
mod blocks;
mod cache;
mod directory;
mod dump;
mod fetch;
mod frame;
mod group;
mod index;
mod os;
mod pending;
mod preallocate;
mod reader;
mod record;
mod recovery;
mod release;
mod segment;
mod spare;
mod sums;
mod tail;
mod wal;
mod writer;

pub use harmony_types::config::{Identity, WalConfig};
pub use harmony_types::{
    Clock, ClusterId, Entry, EntryType, File, FileSystem, HardState, LogBounds, LogIndex, NodeId, OpenMode,
    RecordType, Term, Wal, WalError, WalOffset, WalRecord,
};

pub use batched::{BatchOptions, BatchedWal};
pub use dump::{DumpOptions, VerifyReport, dump, verify};
pub use os::OsFileSystem;
pub use recovery::{Recovery, TornTail};
pub use wal::FileWal;
