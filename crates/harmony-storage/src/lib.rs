//! MVCC key-value storage: a write-ahead log and an on-disk B-tree behind [`harmony_types::Storage`].
//!
//! What is durable when:
//! - [`save`](harmony_types::Storage::save) and [`sync`](harmony_types::Storage::sync) put entries on disk, in the log;
//! - [`apply`](harmony_types::Storage::apply) makes committed entries visible to readers, all of a call at once;
//! - [`checkpoint`](harmony_types::Storage::checkpoint) puts what was applied on disk, together with the index of the last
//!   entry applied. A crash goes back to the last checkpoint, and opening replays the log from there. The log is released
//!   only up to there.
//! - [`close`](harmony_types::Storage::close) makes a checkpoint. Dropping the storage without it is as a crash.
//!
//! Reads never wait: they look at a view, the whole state at one applied index. Every page of the tree's file and every
//! record carries a checksum that is compared whenever it is read: a damaged byte is an error, never an answer.
//!
//! Checkpoints, rebuilds, verification and snapshots belong on threads of their own, which begin with
//! [`harmony_wal::work_in_background`]: where processors are scarce, applies and reads go first.
//!
//! The data model is etcd's: one revision for each command that changes something, the history kept until it is compacted.
//!
//! ```
//! use harmony_storage::{StorageConfig, UnifiedStorage};
//! use harmony_types::txn::Put;
//! use harmony_types::{Command, CommandKind, Entry, EntryType, HardState, LogIndex, Storage, Term};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let (wal, tree) = (dir.path().join("wal"), dir.path().join("tree"));
//! let storage =
//!     UnifiedStorage::open(harmony_wal::OsFileSystem::new(), &wal, &tree, StorageConfig::default())?;
//!
//! let put = Put { key: "k".into(), value: "v".into(), ..Put::default() };
//! let data = Command::from(CommandKind::Put(put)).encode_to_bytes();
//! let entry = Entry { term: Term(1), index: LogIndex(1), entry_type: EntryType::Normal, data };
//! let hard_state = HardState { term: Term(1), vote: None, commit: entry.index };
//! storage.save(Some(&hard_state), &[entry.clone()])?;
//! storage.sync()?; // durable from here on
//! storage.apply(&[entry])?; // visible from here on
//! assert_eq!(storage.query(b"k")?.as_deref(), Some(&b"v"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! Reading order: `unified` (the type that joins both halves) and `recovery`; `apply`, `prefetch`, `batch`, `mvcc`, `lease`,
//! `alarm` and `auth` (what commands do); `view`, `views` and `storage_view`, `reads`, `events` and
//! `observers`, `op_counts`; `tree` with its record
//! format and its pages; `room` and `reserve` (a full disk); `snapshot` and `canonical`; `new_tree` and `rebuild`.

mod alarm;
mod apply;
mod auth;
mod batch;
mod canonical;
mod check;
mod checked;
mod dump;
mod events;
mod lease;
mod memory;
mod mvcc;
mod new_tree;
mod observers;
mod op_counts;
mod prefetch;
mod reads;
mod rebuild;
mod recovery;
mod reserve;
mod room;
mod settings;
mod snapshot;
mod state_hash;
mod storage_view;
mod tree;
mod unified;
mod verification;
mod view;
mod views;

pub use check::{CheckReport, TreeStats, check, stats};
pub use dump::{DumpOptions, TreeTable, dump};
pub use harmony_types::StorageError;
pub use harmony_types::config::StorageConfig;
pub use harmony_types::history::{Events, EventsRequest, HistoryPosition};
pub use mvcc::hash::HashKv;
pub use op_counts::OpCounts;
pub use reads::{AppliedHash, RangeResult};
pub use rebuild::{Rebuild, RebuildStep, Rebuilt};
pub use snapshot::inspect::{SnapshotSummary, inspect_snapshot};
pub use snapshot::restore::{Restore, restore_snapshot};
pub use storage_view::{RangeChunk, RangeChunks, RangeEnd, StorageView};
pub use unified::UnifiedStorage;
pub use verification::Verification;
