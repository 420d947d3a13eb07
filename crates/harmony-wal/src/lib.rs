//! A segmented, CRC-checked write-ahead log with group commit that tells a torn tail from corruption.
//!
//! ```
//! use bytes::Bytes;
//! use harmony_wal::{Entry, FileWal, LogIndex, OsFileSystem, Term, Wal, WalConfig};
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
//! # drop(wal);
//!
//! let wal = FileWal::open(OsFileSystem::new(), dir, WalConfig::default())?;
//! let entries = wal.entries(LogIndex(1)..LogIndex(3), u64::MAX)?;
//! assert_eq!(entries[1].data, "second");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! An entry has an index, one above that of the entry before it, a term that never steps back, and data. Who has no use
//! for terms leaves them at 1. An entry at an index that is taken replaces that one and all behind it.
//!
//! # What it promises
//! - What was appended before a call of `sync` is there after any crash, once that `sync` has returned. Threads that
//!   wait for a sync share one write and one sync; while it runs, others append.
//! - After a crash the log is a prefix of what was appended, and holds all that was synced. Entries that were truncated
//!   or replaced never come back, once a sync behind that has returned.
//! - Only bytes that no sync acknowledged are ever cut; they are kept aside. Any other damage stops the open, names
//!   file, offset and index, and changes nothing. No single damaged byte is taken for a torn tail.
//! - After a failed write or sync the log is poisoned: reads go on, everything else is refused, no sync is retried.
//! - A second process on the same directory is refused.
//!
//! # What to call
//! [`FileWal`] syncs when it is told to: `append_many`, then `sync`, before anything is acknowledged. [`BatchedWal`] over
//! it syncs after so many records and so much time, for callers that can lose the last moments. Both are a [`Wal`].
//! [`FileWal::fill_ahead`] starts a thread that prepares the next segment. [`dump`] and [`verify`] look at a directory
//! without changing it.
//!
//! All calls take `&self` and may come from any thread. One lock guards what is in memory; it is never held during a
//! read, a write or a sync of a group, so that appends and reads go on meanwhile. A call of `sync` waits for the
//! group that holds its records: its own thread writes it, or another one does. Dropping a log without `close` writes
//! nothing: what was not synced is lost, as in a crash. `examples/event_log.rs` shares a log between threads,
//! `examples/follower.rs` replaces a suffix.
//!
//! # What it costs
//! | call | asks of the file system |
//! | --- | --- |
//! | `append`, `append_many`, `truncate` | nothing; the free space, when it needs a segment; a write for each 128 KiB that nobody synced |
//! | `sync`, `close` | one write and one `fdatasync` for all that waits; nothing when nothing waits |
//! | a `sync` of up to 256 KiB, where [`File::block_bytes`] tells of blocks | one durable write past the system's cache, of whole blocks |
//! | now and then, a `sync` of small groups | one write more, of at most 1 MiB: zeros ahead, so that the next syncs change no metadata; not in a segment that [`FileWal::fill_ahead`] has filled |
//! | the step to the next segment | four syncs more, one of them of the directory, and one more open; waits for one piece of 256 KiB that a filler has begun |
//! | `FileWal::open` of a new directory | writes all of the first segment |
//! | `entries` | nothing for what is in the cache; else one read for what stands side by side, 1 MiB at most |
//! | `term`, `bounds`, `hard_state` | nothing |
//! | `release` | a note, written and synced; a rename or a removal for each segment, a sync of the directory; two of them at most are kept, emptied and synced |
//! | `FileWal::open`, `open_with` | reads the whole log once, a long one with several threads; `open_with` shows it on the way |
//!
//! Data is copied once, into the buffer that is written; the cache shares it with the caller. If it is a slice of a larger
//! buffer, that stays in memory as long as the cache has the slice. Entries read from disk share the buffer of their read.
//!
//! Appending and syncing allocate nothing for an entry: 24 times at most for a segment, and a block of memory for each 4096
//! entries of the index. One thing is not the log's to avoid: [`Bytes`](bytes::Bytes) made of a vector allocates a count
//! of its owners when it is first cloned, and the cache is an owner.
//!
//! An open log takes 12 bytes of memory an entry, 120 MB for ten million, and no more while it grows. To this come
//! `cache_bytes` (data and 64 bytes for each entry in the cache), and what is not yet written: 32 MiB at most for groups
//! that are small beside that, however far appends outrun the disk, and 300 KiB in which groups become blocks. Released entries give their memory back, but for
//! 2.5 MiB that are used again. An open that reads more than 32 MiB takes 14 MiB more for each thread, of which there are
//! four at most, until it is done; [`FileWal::open_with`] at most two, and 64 MiB more for each.
//!
//! # What lies in the directory
//! | name | content |
//! | --- | --- |
//! | `{sequence:016x}-{first index:016x}.wal` | a segment |
//! | `{sequence:016x}.new` | a segment in the making; removed at the next open |
//! | `{sequence:016x}.free` | a released segment, kept for the next one; at most two |
//! | `RESERVE` | space held back for a torn tail, for an open on a full disk; at most 8 MiB |
//! | `torn-{sequence:016x}-{offset}.bin` | a torn tail that was cut, for whoever wants to look; never read |
//! | `repaired-{n}/` | what a [`repair`] cut, whole files as they were; never read |
//! | `LOCK` | locked while a process has the log open |
//!
//! A segment is a head of 72 bytes and frames, little endian, each at a multiple of 8:
//!
//! | offset | size | meaning |
//! | --- | --- | --- |
//! | 0 | 4 | length: bytes of header, payload and trailer; 0 = end of the log |
//! | 4 | 4 | durable: the segment was synced up to this byte when the frame was written |
//! | 8 | 8 | index |
//! | 16 | 8 | term |
//! | 24 | 4 | checksum of all but itself, padding and trailer; seeded with segment and offset |
//! | 28 | 3 | link: checksum of header and the frame before |
//! | 31 | 1 | kind: entry, hard state, snapshot, truncation, and the log's own |
//! | 32 | n | payload |
//! | end-4 | 3 | sectors in the frame that could be taken for never written |
//! | end-1 | 1 | end mark |
//!
//! [docs/format.md](https://github.com/harmonydb/harmonydb/blob/main/docs/format.md) has every byte, and why a torn tail
//! can be told from damage.
//!
//! # What the errors mean
//! | error | the log | what to do |
//! | --- | --- | --- |
//! | [`WalError::InvalidIndex`], [`TooLarge`](WalError::TooLarge), [`NotFound`](WalError::NotFound), [`Closed`](WalError::Closed) | unchanged | correct the caller |
//! | [`WalError::Full`] | unchanged, goes on | release a prefix: the quota is reached |
//! | [`WalError::DiskFull`] | unchanged, goes on | make room, or release a prefix |
//! | [`WalError::Io`] of a write or sync, [`WalError::Poisoned`] | reads only | find out what ails the disk, then open again; what was not acknowledged may be there or not |
//! | [`WalError::Io`] of an open or read | nothing is lost | find out why, try again |
//! | [`WalError::Locked`] | not opened | another process has it |
//! | [`WalError::Foreign`], [`UnsupportedVersion`](WalError::UnsupportedVersion) | not opened, unchanged | another directory; a newer release |
//! | [`WalError::CrcMismatch`], [`CorruptRecord`](WalError::CorruptRecord), [`MissingSegment`](WalError::MissingSegment) | not opened, unchanged; a read leaves it open | the disk lost what it had acknowledged: restore from a replica or a backup, or see what [`plan_repair`] can keep |
//!
//! # Another file system
//! [`OsFileSystem`] is the one of the operating system. Anything else implements [`FileSystem`] and [`File`]: positioned
//! reads and writes, `sync_data`, and names that are durable after `sync_dir`. `harmony_types::fake::fs::MemoryFileSystem` (feature `fake`)
//! is one in memory that loses, keeps, tears and reorders what was not synced: with it a test crashes its own log anywhere.
//!
//! ```
//! # use std::{path::Path, sync::Arc};
//! # use harmony_wal::{Entry, FileWal, LogIndex, Term, Wal, WalConfig, WalError};
//! use harmony_types::fake::fs::{Crash, MemoryFileSystem};
//!
//! let disk = MemoryFileSystem::new();
//! let open = |disk: &MemoryFileSystem| FileWal::open(Arc::new(disk.clone()), Path::new("/wal"), WalConfig::default());
//! let entry = |index| Entry { term: Term(1), index: LogIndex(index), ..Entry::default() };
//! let wal = open(&disk)?;
//! wal.append_many(None, &[entry(1)])?;
//! wal.sync()?;
//! wal.append_many(None, &[entry(2)])?;
//!
//! let after = open(&disk.crash_image(Crash::LoseUnsynced))?;
//! assert_eq!(after.bounds().last, LogIndex(1));
//! # Ok::<(), WalError>(())
//! ```
//!
//! # How to read the source
//! `frame` (the unit of checking) → `segment` (a file of them) → `tail` (torn or corrupt?) → `ahead`, `replay` and
//! `recovery` → `pending` and `writer` and `tail_block` (from memory to disk) → `wal` (the log itself) → `group` (one sync for many
//! threads) → `fetch`, `release`, `spare`, `fill`, `room` → `repair` (by hand, never at open). `background` is for
//! whoever shares the processors with a log.

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod ahead;
mod aside;
mod background;
mod batched;
mod blocks;
mod cache;
mod clock;
mod directory;
mod dump;
mod fetch;
mod fill;
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
mod repair;
mod replay;
mod room;
mod segment;
mod spare;
mod sums;
mod tail;
mod tail_block;
mod wal;
mod writer;

pub use harmony_types::config::{Identity, WalConfig};
pub use harmony_types::{
    Clock, ClusterId, DiskSpace, Entry, EntryType, File, FileSystem, HardState, LogBounds, LogIndex, NodeId,
    OpenMode, RecordType, Term, Wal, WalError, WalOffset, WalRecord,
};

pub use background::{give_way, work_in_background};
pub use batched::{BatchOptions, BatchedWal};
pub use clock::SystemClock;
pub use dump::{DumpOptions, VerifyReport, dump, verify};
pub use fill::Filler;
pub use os::OsFileSystem;
pub use recovery::{Recovery, TornTail, identity_of};
pub use repair::{
    Cut, Kept, Lost, RepairOptions, RepairPlan, Repaired, Salvage, is_damage, plan_repair, plan_salvage,
    repair, salvage,
};
pub use wal::{FileWal, RecordRef};
